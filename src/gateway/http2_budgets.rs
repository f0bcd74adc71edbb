//! Bounds on what HTTP/2 clients have the server hold: streams of a connection, windows and responses of a user and of all.

use crate::domain::{UserQuotaLimits, UserQuotas};

/// Maximum number of streams of a connection, and of changes under way on it.
pub(super) const MAX_STREAMS: u32 = 64;
/// Windows of a connection whose caller has proven nothing, or whose user has used up his share (RFC 9113 section 6.9.2).
pub(super) const UNAUTHENTICATED_WINDOW_BYTES: u32 = 65_535;
/// Bytes of windows that are open beyond [`UNAUTHENTICATED_WINDOW_BYTES`].
const WINDOW_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 64 << 20, total: 512 << 20 };
/// Bytes of responses that may be held.
const RESPONSE_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 64 << 20, total: 512 << 20 };

/// What all connections over HTTP/2 hold together.
#[derive(Clone)]
pub(super) struct Http2Budgets {
    pub(super) windows: UserQuotas,
    pub(super) responses: UserQuotas,
}

impl Default for Http2Budgets {
    fn default() -> Self {
        Self { windows: UserQuotas::new(WINDOW_LIMITS), responses: UserQuotas::new(RESPONSE_LIMITS) }
    }
}
