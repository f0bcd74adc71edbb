//! Names of open files in `/proc`.

use std::os::fd::{AsFd, AsRawFd};

/// Returns the path by which this process can open or change exactly this entry again.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
