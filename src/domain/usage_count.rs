//! How often tokens were used and callers refused, by the hour.

use super::{Protocol, UnixMillis};

/// What is counted of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageKind {
    /// A session in use: a request of its own, or an hour in which a longer one was used.
    Use,
    /// An attempt to log in or an operation on the tree that was refused.
    Refusal,
}

/// How often something happened over one protocol within one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageCount {
    /// The beginning of the hour.
    pub hour: UnixMillis,
    /// By which door.
    pub protocol: Protocol,
    /// What happened.
    pub kind: UsageKind,
    /// How often.
    pub count: u64,
}
