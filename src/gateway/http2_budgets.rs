//! Bounds on the memory that HTTP/2 clients occupy: streams of a connection, windows and responses of a user and in
//! total.

use crate::domain::{UserQuotaLimits, UserQuotas};

/// Maximum number of streams of a connection, and of changing requests under way on it.
pub(super) const MAX_STREAMS: u32 = 64;
/// Windows of a connection that is not authenticated, or whose user's share is used up (RFC 9113 section 6.9.2).
pub(super) const UNAUTHENTICATED_WINDOW_BYTES: u32 = 65_535;
/// Maximum number of bytes of windows that are open beyond [`UNAUTHENTICATED_WINDOW_BYTES`].
const WINDOW_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 64 << 20, total: 512 << 20 };
/// Maximum number of bytes of responses that are buffered.
const RESPONSE_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 64 << 20, total: 512 << 20 };

/// Budgets that all HTTP/2 connections share.
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
