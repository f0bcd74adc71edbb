//! Dispatch of one channel's requests, in order. All functions block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::domain::{Login, TreePath};
use crate::telemetry::{
    FinishedOperation, OperationKind, OperationRecorder, OperationStatus, SftpRequestName, UserOperations,
};
use crate::tree::{self, SessionFiles, View};

use super::access_log::SessionLog;
use super::error::{Error, Result, SftpStatus};
use super::handles::SftpHandleTable;
use super::hash_limit::HashLimiter;
use super::packet_input::{MAX_PACKET_BYTES, PacketFrame};
use super::reply::{DATA_HEADER_BYTES, REPLY_BATCH_BYTES, ReplyBatch};
use super::request::{ClientPacket, MalformedSftpRequest, SftpRequest};

/// Maximum data of one READ reply and one WRITE, as announced by `limits@openssh.com`.
pub(super) const MAX_DATA_BYTES: usize = 261_120;

/// State that the channels of a session share.
pub(super) struct SftpSession {
    pub(super) files: SessionFiles,
    pub(super) auth: Authenticator,
    /// Permits for open files and directories.
    pub(super) handle_permits: Arc<Semaphore>,
    /// Total number of these permits.
    pub(super) max_handles: usize,
    /// Bounds concurrent hashing; shared by all sessions.
    pub(super) hash_limiter: HashLimiter,
    /// Whether the client sends SYMLINK's arguments in the draft's order.
    pub(super) symlink_link_first: bool,
    /// Cancelled when the connection ends.
    pub(super) closing: CancellationToken,
    /// Record to which every request is reported.
    pub(super) recorder: Arc<OperationRecorder>,
    /// Counters of the session's user; `None` without metrics by user.
    pub(super) user_operations: Option<Arc<UserOperations>>,
    /// What the access log says of the session; `None` where there is no such log.
    pub(super) access_log: Option<Arc<SessionLog>>,
}

impl SftpSession {
    /// Returns the session's view of the tree, without its own pending uploads.
    pub(super) fn view(&self) -> &View {
        self.files.view()
    }

    /// Returns the session's user.
    pub(super) fn login(&self) -> &Login {
        self.view().session().login()
    }
}

/// Result of a run of the worker.
pub(super) struct WorkerOutcome {
    /// Encoded replies.
    pub(super) replies: Bytes,
    /// Requests that were given to the worker and are not answered yet.
    pub(super) pending: PendingWork,
    /// Number of open files and directories.
    pub(super) open_handles: usize,
    /// Whether the client violated the protocol, so that the rest of its input can't be interpreted.
    pub(super) protocol_error: bool,
}

/// Requests that a worker has not answered yet, by where the next one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingWork {
    /// No requests.
    Nothing,
    /// The next request is short, and runs on the connection's own thread.
    Inline,
    /// The next request moves much data: it would block the connection's own thread for too long.
    Blocking,
}

/// State of one channel, and the queue of its requests.
pub(super) struct ChannelWorker {
    pub(super) session: Arc<SftpSession>,
    pub(super) handles: SftpHandleTable,
    /// Directory that relative paths start from.
    pub(super) start_directory: TreePath,
    queue: VecDeque<PacketFrame>,
    /// Parsed request that was put back: its reply did not fit into the batch, or it needs a blocking thread.
    deferred_packet: Option<ClientPacket>,
    initialized: bool,
}

impl ChannelWorker {
    /// Returns the worker of a new channel.
    pub(super) fn new(session: Arc<SftpSession>) -> Self {
        let (handles, start_directory) =
            (SftpHandleTable::new(session.handle_permits.clone()), session.view().start_directory());
        Self { session, handles, start_directory, queue: VecDeque::new(), deferred_packet: None, initialized: false }
    }

    /// Queues a packet.
    pub(super) fn push(&mut self, frame: PacketFrame) {
        self.queue.push_back(frame);
    }

    /// Answers requests until none is left, the batch is full, the next would block, or the connection ends.
    pub(super) fn run(&mut self) -> WorkerOutcome {
        self.process_while(|worker, packet| !worker.is_blocking(packet))
    }

    /// As [`ChannelWorker::run`], but also answers blocking requests.
    pub(super) fn run_blocking(&mut self) -> WorkerOutcome {
        self.process_while(|_, _| true)
    }

    /// Closes all handles in the order of their opening, as the client would have. Returns whether every upload was
    /// committed.
    pub(super) fn close_handles(&mut self) -> bool {
        let mut all_committed = true;
        for mut handle in self.handles.drain() {
            let log = handle.take_log();
            // Goes on after an error: one refused upload must not keep the others from being committed.
            let closed = handle.close();
            if let Some(log) = log {
                log.finish(closed.as_ref().map_or_else(|error| error.status().0, |()| SftpStatus::Ok));
            }
            if let Err(error) = closed {
                tracing::info!(login = %self.session.login(), %error, "can't commit an upload that its client did not close");
                all_committed = false;
            }
        }
        all_committed
    }

    fn process_while(&mut self, accepts: impl Fn(&Self, &ClientPacket) -> bool) -> WorkerOutcome {
        let mut replies = ReplyBatch::default();
        let (mut protocol_error, mut used) = (false, false);
        // Of the next request: the end of one is the start of another, which saves a look at the clock.
        let mut started_at = Instant::now();
        // Checked for each request: once the connection ends, no further one takes effect.
        while !self.session.closing.is_cancelled() && !replies.is_full() {
            let Some(packet) = self.next_packet() else { break };
            if !accepts(self, &packet) || !fits_in_batch(&packet, &replies) {
                // Kept parsed and answered first in the next run: clients rely on the order of requests.
                self.deferred_packet = Some(packet);
                break;
            }
            match packet {
                ClientPacket::Init => {
                    // A repeated INIT is answered like the first, and changes nothing.
                    self.initialized = true;
                    replies.version();
                }
                ClientPacket::Request(id, request) if self.initialized => {
                    used |= self.answer_request(id, request, &mut replies, &mut started_at);
                }
                // A request before INIT or a packet without an id can't be answered; the session ends.
                ClientPacket::Request(..) | ClientPacket::Truncated => {
                    protocol_error = true;
                    break;
                }
            }
        }
        if used {
            self.session.view().session().record_use();
        }
        WorkerOutcome {
            replies: replies.into_bytes(),
            pending: self.pending_work(),
            open_handles: self.handles.len(),
            protocol_error,
        }
    }

    /// Answers a request and reports it; returns whether it was a use of the token.
    fn answer_request(
        &mut self,
        id: u32,
        request: std::result::Result<SftpRequest, MalformedSftpRequest>,
        replies: &mut ReplyBatch,
        started_at: &mut Instant,
    ) -> bool {
        let described = request.as_ref().ok().map(SftpRequest::describe);
        let name = request.as_ref().map_or(SftpRequestName::Other, SftpRequest::name);
        let received_bytes = request.as_ref().map_or(0, SftpRequest::content_bytes);
        let (logged, reply_start) = (self.logged_request(&request), replies.len());
        let result = request.map_err(|_| Error::Malformed).and_then(|r| self.handle_request(id, r, replies));
        let result = result.map_err(|error| match error {
            Error::Tree(error) => {
                let path = described.as_ref().and_then(|(_, path)| TreePath::parse(path.as_deref()?).ok());
                Error::Tree(self.session.view().explain_refusal(error, path.as_ref()))
            }
            other => other,
        });
        if let (Some((operation, path)), Err(Error::Tree(tree::Error::RefusedByHost(error)))) = (described, &result) {
            let path = path.map(|path| String::from_utf8_lossy(&path).escape_debug().to_string());
            tree::log_host_refusal(operation, path, error);
        }
        let is_data = name == SftpRequestName::Read && result.is_ok();
        let sent_bytes = if is_data { replies.len().saturating_sub(reply_start + DATA_HEADER_BYTES) } else { 0 };
        // Refused requests are no use of the token: they must not extend its sliding expiration. EOF ends every
        // download.
        let is_use = matches!(result, Ok(()) | Err(Error::Eof));
        let status = result.map_or_else(|error| replies.error(id, &error), |()| SftpStatus::Ok);
        let ended_at = Instant::now();
        let operation = FinishedOperation {
            kind: OperationKind::Sftp(name),
            status: OperationStatus::Sftp(status.code()),
            received_bytes,
            sent_bytes: sent_bytes as u64,
            duration: ended_at.saturating_duration_since(*started_at),
        };
        self.session.recorder.record(&operation);
        if let Some(user) = &self.session.user_operations {
            user.count(&operation);
        }
        if let Some(logged) = logged {
            self.log_request(logged, &operation, status);
        }
        *started_at = ended_at;
        is_use
    }

    fn pending_work(&self) -> PendingWork {
        match &self.deferred_packet {
            Some(packet) if self.is_blocking(packet) => PendingWork::Blocking,
            Some(_) => PendingWork::Inline,
            None if self.queue.is_empty() => PendingWork::Nothing,
            None => PendingWork::Inline,
        }
    }

    fn is_blocking(&self, packet: &ClientPacket) -> bool {
        // Copies and hashes take as long as the file is large; CLOSE and fsync as long as the disk needs for what was
        // written. Everything else takes about as long as reading a small file.
        match packet {
            ClientPacket::Request(
                _,
                Ok(
                    SftpRequest::CopyData { .. }
                    | SftpRequest::CheckFileName { .. }
                    | SftpRequest::CheckFileHandle { .. },
                ),
            ) => true,
            ClientPacket::Request(_, Ok(SftpRequest::Close(handle) | SftpRequest::Fsync(handle))) => {
                self.handles.is_sync_blocking(*handle)
            }
            ClientPacket::Request(..) | ClientPacket::Init | ClientPacket::Truncated => false,
        }
    }

    fn next_packet(&mut self) -> Option<ClientPacket> {
        self.deferred_packet.take().or_else(|| self.queue.pop_front().map(ClientPacket::parse))
    }

    fn handle_request(&mut self, id: u32, request: SftpRequest, out: &mut ReplyBatch) -> Result<()> {
        match request {
            SftpRequest::Read { handle, offset, length } => {
                return self.read(id, handle, offset, clamp_read_length(length), out);
            }
            SftpRequest::Open { path, flags, attributes } => out.handle(id, self.open(&path, flags, &attributes)?),
            SftpRequest::Opendir(path) => out.handle(id, self.opendir(&path)?),
            SftpRequest::Readdir(handle) => return self.readdir(id, handle, out),
            SftpRequest::Stat(path) => out.attributes(id, &self.stat(&path)?),
            SftpRequest::Lstat(path) => out.attributes(id, &self.lstat(&path)?),
            SftpRequest::Fstat(handle) => out.attributes(id, &self.fstat(handle)?),
            SftpRequest::Realpath(path) => out.name(id, &self.realpath(&path)?),
            SftpRequest::ExpandPath(path) => out.name(id, &self.expand_path(&path)?),
            SftpRequest::HomeDirectory(user) => out.name(id, &self.home_directory(&user)?),
            SftpRequest::Readlink(path) => out.name(id, &self.readlink(&path)?),
            SftpRequest::Statvfs(path) => out.statvfs(id, &self.statvfs(&path)?),
            SftpRequest::Fstatvfs(handle) => out.statvfs(id, &self.fstatvfs(handle)?),
            SftpRequest::Limits => {
                // In the order of the reply: packet, read and write sizes, number of handles.
                let sizes = [MAX_PACKET_BYTES, MAX_DATA_BYTES, MAX_DATA_BYTES, self.session.max_handles];
                out.limits(id, sizes.map(|size| u64::try_from(size).unwrap_or(u64::MAX)));
            }
            SftpRequest::CheckFileName { path, hashes } => return self.check_file_name(id, &path, &hashes, out),
            SftpRequest::CheckFileHandle { handle, hashes } => return self.check_file_handle(id, handle, &hashes, out),
            SftpRequest::UsersGroupsById { users, groups } => {
                out.users_groups_by_id(id, &users, &groups, self.session.login())
            }
            other => {
                self.handle_change(other)?;
                out.ok(id);
            }
        }
        Ok(())
    }

    /// Carries out a request whose reply is a status alone.
    fn handle_change(&mut self, request: SftpRequest) -> Result<()> {
        match request {
            SftpRequest::Write { handle, offset, data } => self.write(handle, offset, &data),
            SftpRequest::Close(handle) => self.close(handle),
            SftpRequest::Setstat { path, attributes } => self.setstat(&path, &attributes, true),
            SftpRequest::Lsetstat { path, attributes } => self.setstat(&path, &attributes, false),
            SftpRequest::Fsetstat { handle, attributes } => self.fsetstat(handle, &attributes),
            SftpRequest::Mkdir { path, attributes } => self.mkdir(&path, &attributes),
            SftpRequest::Rmdir(path) => self.rmdir(&path),
            SftpRequest::Remove(path) => self.remove(&path),
            SftpRequest::Rename { from, to } => self.rename(&from, &to, crate::tree::OverwriteMode::Refuse),
            SftpRequest::PosixRename { from, to } => self.rename(&from, &to, crate::tree::OverwriteMode::Posix),
            SftpRequest::Hardlink { from, to } => self.hard_link(&from, &to),
            // In the draft's order the two fields are swapped; `request` parsed them in OpenSSH's order.
            SftpRequest::Symlink { target: path, path: target } if self.session.symlink_link_first => {
                self.symlink(&target, &path)
            }
            SftpRequest::Symlink { target, path } => self.symlink(&target, &path),
            SftpRequest::Fsync(handle) => self.fsync(handle),
            SftpRequest::CopyData { from, offset, length, to, to_offset } => {
                self.copy_data(from, offset, length, to, to_offset)
            }
            // Listed without a wildcard: the compiler then asks where a new request is dispatched.
            SftpRequest::Read { .. }
            | SftpRequest::Open { .. }
            | SftpRequest::Opendir(_)
            | SftpRequest::Readdir(_)
            | SftpRequest::Stat(_)
            | SftpRequest::Lstat(_)
            | SftpRequest::Fstat(_)
            | SftpRequest::Realpath(_)
            | SftpRequest::ExpandPath(_)
            | SftpRequest::HomeDirectory(_)
            | SftpRequest::Readlink(_)
            | SftpRequest::Statvfs(_)
            | SftpRequest::Fstatvfs(_)
            | SftpRequest::CheckFileName { .. }
            | SftpRequest::CheckFileHandle { .. }
            | SftpRequest::Limits
            | SftpRequest::UsersGroupsById { .. }
            | SftpRequest::Unknown => Err(Error::Unsupported),
        }
    }
}

fn fits_in_batch(packet: &ClientPacket, replies: &ReplyBatch) -> bool {
    match packet {
        // Only READ reserves its full length before it is known how much there is to read.
        ClientPacket::Request(_, Ok(SftpRequest::Read { length, .. })) => replies.fits_data(clamp_read_length(*length)),
        ClientPacket::Request(..) | ClientPacket::Init | ClientPacket::Truncated => true,
    }
}

fn clamp_read_length(length: u32) -> usize {
    usize::try_from(length).map_or(MAX_DATA_BYTES, |length| length.min(MAX_DATA_BYTES))
}

// With its header, the largest DATA reply fits into one batch.
const _: () = assert!(MAX_DATA_BYTES + DATA_HEADER_BYTES <= REPLY_BATCH_BYTES);
