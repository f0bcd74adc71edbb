//! What the access log says of each request: taken from it before it is carried out, and logged with its reply.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::domain::TreePath;
use crate::telemetry::{FinishedOperation, SftpRequestName};

use super::access_log::HandleLog;
use super::error::SftpStatus;
use super::request::{HandleId, MalformedSftpRequest, OpenFlags, SftpRequest};
use super::worker::ChannelWorker;

/// What is logged of a request, taken from it before it is carried out.
pub(super) enum LoggedRequest {
    /// It opens a handle.
    Open(Box<HandleLog>),
    /// It closes a handle.
    Close(Option<Box<HandleLog>>),
    /// It is a part of the use of a handle.
    OnHandle(HandleId),
    /// It has a line of its own, with its paths.
    Single(Option<Vec<u8>>, Option<Vec<u8>>),
}

impl ChannelWorker {
    /// Takes from a request what is logged of it; `None` where there is no access log.
    pub(super) fn logged_request(
        &mut self,
        request: &std::result::Result<SftpRequest, MalformedSftpRequest>,
    ) -> Option<LoggedRequest> {
        let log = Arc::clone(self.session.access_log.as_ref()?);
        let Ok(request) = request else { return Some(LoggedRequest::Single(None, None)) };
        let absolute = |path: &Bytes| absolute_path(&self.start_directory, path);
        let single = |path: &Bytes| LoggedRequest::Single(Some(absolute(path)), None);
        let pair = |path: &Bytes, target: &Bytes| LoggedRequest::Single(Some(absolute(path)), Some(absolute(target)));
        Some(match request {
            SftpRequest::Open { path, flags, .. } => {
                let is_write = [OpenFlags::WRITE, OpenFlags::APPEND, OpenFlags::CREATE, OpenFlags::TRUNCATE]
                    .into_iter()
                    .any(|flag| flags.contains(flag));
                let name = if is_write { SftpRequestName::Write } else { SftpRequestName::Read };
                LoggedRequest::Open(HandleLog::new(&log, name, absolute(path)))
            }
            SftpRequest::Opendir(path) => {
                LoggedRequest::Open(HandleLog::new(&log, SftpRequestName::Readdir, absolute(path)))
            }
            SftpRequest::Close(handle) => LoggedRequest::Close(self.handles.take_log(*handle)),
            SftpRequest::Read { handle, .. }
            | SftpRequest::Write { handle, .. }
            | SftpRequest::Fstat(handle)
            | SftpRequest::Fsetstat { handle, .. }
            | SftpRequest::Readdir(handle)
            | SftpRequest::Fstatvfs(handle)
            | SftpRequest::Fsync(handle) => LoggedRequest::OnHandle(*handle),
            SftpRequest::CopyData { from, to, .. } => {
                LoggedRequest::Single(self.handles.log_path(*from), self.handles.log_path(*to))
            }
            SftpRequest::CheckFileHandle { handle, .. } => LoggedRequest::Single(self.handles.log_path(*handle), None),
            SftpRequest::Rename { from, to }
            | SftpRequest::PosixRename { from, to }
            | SftpRequest::Hardlink { from, to } => pair(from, to),
            // The target is stored as sent, relative to the link.
            SftpRequest::Symlink { target, path } => LoggedRequest::Single(Some(absolute(path)), Some(target.to_vec())),
            SftpRequest::Stat(path)
            | SftpRequest::Lstat(path)
            | SftpRequest::Setstat { path, .. }
            | SftpRequest::Lsetstat { path, .. }
            | SftpRequest::Mkdir { path, .. }
            | SftpRequest::Rmdir(path)
            | SftpRequest::Remove(path)
            | SftpRequest::Readlink(path)
            | SftpRequest::Realpath(path)
            | SftpRequest::ExpandPath(path)
            | SftpRequest::Statvfs(path)
            | SftpRequest::CheckFileName { path, .. } => single(path),
            SftpRequest::HomeDirectory(_)
            | SftpRequest::Limits
            | SftpRequest::UsersGroupsById { .. }
            | SftpRequest::Unknown => LoggedRequest::Single(None, None),
        })
    }

    /// Logs a request that was answered with a status.
    pub(super) fn log_request(&mut self, logged: LoggedRequest, operation: &FinishedOperation, status: SftpStatus) {
        match logged {
            LoggedRequest::Open(log) if status == SftpStatus::Ok => self.handles.set_last_log(log),
            LoggedRequest::Open(log) | LoggedRequest::Close(Some(log)) => log.finish(status),
            LoggedRequest::OnHandle(handle) => {
                if let Some(log) = self.handles.log_mut(handle) {
                    log.received_bytes += operation.received_bytes;
                    log.sent_bytes += operation.sent_bytes;
                }
            }
            LoggedRequest::Close(None) => self.log_single(operation, None, None),
            LoggedRequest::Single(path, target) => self.log_single(operation, path, target),
        }
    }

    fn log_single(&self, operation: &FinishedOperation, path: Option<Vec<u8>>, target: Option<Vec<u8>>) {
        if let Some(log) = &self.session.access_log {
            let now = SystemTime::now();
            log.log(operation, now.checked_sub(operation.duration).unwrap_or(now), path, target);
        }
    }
}

/// Returns a path as the log shows it: from the root, and otherwise as it was sent.
fn absolute_path(start_directory: &TreePath, path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') {
        return path.to_vec();
    }
    let mut absolute = vec![b'/'];
    absolute.extend_from_slice(start_directory.as_bytes());
    if !matches!(path, b"" | b".") {
        if absolute.len() > 1 {
            absolute.push(b'/');
        }
        absolute.extend_from_slice(path);
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_the_start_directory() {
        let home = TreePath::parse(b"alice").expect("a path");
        for (start, path, expected) in [
            (&home, "/x", "/x"),
            (&home, "x", "/alice/x"),
            (&home, ".", "/alice"),
            (&home, "../x", "/alice/../x"),
            (&TreePath::root(), "x", "/x"),
            (&TreePath::root(), "", "/"),
        ] {
            assert_eq!(absolute_path(start, path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
