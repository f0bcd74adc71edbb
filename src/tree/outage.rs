//! Why the served folder, or a file system in it, is not served at present.

use std::time::Duration;

/// Time after which a client may ask again for what is not served.
pub const OUTAGE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A reason for which nothing is answered of a tree until it is back; it names no path of the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeOutage {
    /// Nothing is at the path.
    #[error("it is not there: its file system may not be mounted")]
    Missing,
    /// Another directory is at the path.
    #[error("another directory is in its place: its file system may not be mounted")]
    Replaced,
    /// What could be written to when it was opened can only be read.
    #[error("its file system has become read-only")]
    ReadOnly,
    /// The file system answers with errors.
    #[error("its file system fails: {0}")]
    Failing(String),
    /// The file system does not answer.
    #[error("its file system does not answer")]
    Unresponsive,
    /// What is open belongs to a mount that has ended.
    #[error("its file system was unmounted since this was opened: open it again")]
    Detached,
}
