//! Reasons for which the served directory, or a file system mounted in it, is not served at present.

use std::time::Duration;

/// Delay after which a client may retry a request that an outage has refused.
pub const OUTAGE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The reason why a tree is not served until it is back. Its text names no path of the host, since clients see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeOutage {
    /// Nothing exists at the path.
    #[error("it is not there: its file system may not be mounted")]
    Missing,
    /// Another directory is at the path.
    #[error("another directory is in its place: its file system may not be mounted")]
    Replaced,
    /// The file system was writable when it was opened and is read-only now.
    #[error("its file system has become read-only")]
    ReadOnly,
    /// The file system answers with errors.
    #[error("its file system fails: {0}")]
    Failing(String),
    /// The file system does not answer.
    #[error("its file system does not answer")]
    Unresponsive,
    /// The open file belongs to a file system that was unmounted.
    #[error("its file system was unmounted since this was opened: open it again")]
    Detached,
}
