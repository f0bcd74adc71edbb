//! Bounds on what callers can fill the store with.

use super::UserQuotaLimits;

/// Bounds on what callers can fill the store with, beside the space of dead properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Number of locks that are held at once.
    pub locks: UserQuotaLimits,
    /// Number of rows of named nodes, by the user who had them named.
    pub named_nodes: UserQuotaLimits,
    /// Number of rows of tokens, dead ones among them as long as they are kept.
    pub tokens: UserQuotaLimits,
    /// Number of rows of the audit trail, by the user whom they concern.
    pub audit_rows: UserQuotaLimits,
}

impl Default for StateLimits {
    fn default() -> Self {
        let limits = |per_user, in_all| UserQuotaLimits { per_user, total: in_all };
        Self {
            locks: limits(1024, 65_536),
            named_nodes: limits(200_000, 2_000_000),
            tokens: limits(10_000, 1_000_000),
            audit_rows: limits(100_000, 1_000_000),
        }
    }
}
