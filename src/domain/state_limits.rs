//! Quotas on the rows that callers can add to the store.

use super::UserQuotaLimits;

/// Quotas on the rows that callers can add to the store, beside that of dead properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Maximum number of WebDAV locks at once.
    pub locks: UserQuotaLimits,
    /// Maximum number of named nodes, by the user who had them named.
    pub named_nodes: UserQuotaLimits,
    /// Maximum number of stored tokens, with inactive ones until the end of their retention.
    pub tokens: UserQuotaLimits,
    /// Maximum number of audit events, by the user that they concern.
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
