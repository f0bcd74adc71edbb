//! Counts of uses of tokens and of refusals, by hour.

use super::{Protocol, UnixMillis};

/// Kind of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageKind {
    /// A use of a session: a single request, or an hour in which a longer session was used.
    Use,
    /// An attempt to log in or an operation on the tree that was refused.
    Refusal,
}

/// Number of uses or refusals over one protocol within one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageCount {
    /// Start of the hour.
    pub hour: UnixMillis,
    /// Protocol of the caller.
    pub protocol: Protocol,
    /// Kind of the count.
    pub kind: UsageKind,
    /// Number of uses or refusals.
    pub count: u64,
}
