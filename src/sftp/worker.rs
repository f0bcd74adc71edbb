//! Answers the requests of one channel, in order. All of it blocks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::domain::{Login, TreePath};
use crate::tree::{SessionFiles, View};

use super::error::{Error, Result};
use super::handles::SftpHandleTable;
use super::hash_limit::HashLimiter;
use super::packet_input::{MAX_PACKET_BYTES, PacketFrame};
use super::reply::{REPLY_BATCH_BYTES, ReplyBatch};
use super::request::{ClientPacket, SftpRequest};

/// The most that one READ is answered and one WRITE may bring, as `limits@openssh.com` says.
pub(super) const MAX_DATA_BYTES: usize = 261_120;

/// What the channels of a session share.
pub(super) struct SftpSession {
    pub(super) files: SessionFiles,
    pub(super) auth: Authenticator,
    /// Places for open files and folders.
    pub(super) handle_permits: Arc<Semaphore>,
    /// How many places there are in all.
    pub(super) max_handles: usize,
    /// Bounds what is hashed at once.
    pub(super) hash_limiter: HashLimiter,
    /// Whether the client sends SYMLINK's arguments in the draft's order.
    pub(super) symlink_link_first: bool,
    /// Cancelled when the connection is to end.
    pub(super) closing: CancellationToken,
}

impl SftpSession {
    /// Returns the tree as the session's token shows it, without its own uploads.
    pub(super) fn view(&self) -> &View {
        self.files.view()
    }

    /// Returns the session's user.
    pub(super) fn login(&self) -> &Login {
        self.view().session().login()
    }
}

/// What a run of the worker brought.
pub(super) struct WorkerOutcome {
    /// The answers.
    pub(super) replies: Bytes,
    /// Whether requests are left that were not answered yet, and what the next is like.
    pub(super) pending: PendingWork,
    /// How many files and folders are open.
    pub(super) open_handles: usize,
    /// Whether the client broke the protocol: nothing after that can be understood.
    pub(super) protocol_error: bool,
}

/// What a worker has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingWork {
    /// Nothing.
    Nothing,
    /// Requests that take as long as a small file takes.
    Inline,
    /// First a request that moves much at once: the connection's own thread would be gone too long.
    Blocking,
}

/// Answers the requests of one channel.
pub(super) struct ChannelWorker {
    pub(super) session: Arc<SftpSession>,
    pub(super) handles: SftpHandleTable,
    /// The directory that relative paths begin in.
    pub(super) start_directory: TreePath,
    queue: VecDeque<PacketFrame>,
    /// A request whose answer would not fit into the batch before.
    deferred_packet: Option<ClientPacket>,
    initialized: bool,
}

impl ChannelWorker {
    /// Makes the worker of a new channel.
    pub(super) fn new(session: Arc<SftpSession>) -> Self {
        let (handles, start_directory) =
            (SftpHandleTable::new(session.handle_permits.clone()), session.view().start_directory());
        Self { session, handles, start_directory, queue: VecDeque::new(), deferred_packet: None, initialized: false }
    }

    /// Adds a packet to those that are to be answered.
    pub(super) fn push(&mut self, frame: PacketFrame) {
        self.queue.push_back(frame);
    }

    /// Answers requests until none is left, a batch is full, the next is heavy, or the connection is over.
    pub(super) fn run(&mut self) -> WorkerOutcome {
        self.process_while(|worker, packet| !worker.is_blocking(packet))
    }

    /// As [`ChannelWorker::run`], heavy requests too.
    pub(super) fn run_blocking(&mut self) -> WorkerOutcome {
        self.process_while(|_, _| true)
    }

    /// Closes all that is open, as the client would: it has ended the channel in order. Tells whether every upload
    /// was committed.
    pub(super) fn close_handles(&mut self) -> bool {
        let mut all_committed = true;
        for handle in self.handles.drain() {
            if let Err(error) = handle.close() {
                tracing::info!(login = %self.session.login(), %error, "an upload that its client did not close was refused");
                all_committed = false;
            }
        }
        all_committed
    }

    fn process_while(&mut self, accepts: impl Fn(&Self, &ClientPacket) -> bool) -> WorkerOutcome {
        let mut replies = ReplyBatch::default();
        let (mut protocol_error, mut used) = (false, false);
        while !self.session.closing.is_cancelled() && !replies.is_full() {
            let Some(packet) = self.next_packet() else { break };
            if !accepts(self, &packet) || !fits_in_batch(&packet, &replies) {
                self.deferred_packet = Some(packet);
                break;
            }
            match packet {
                ClientPacket::Init => {
                    self.initialized = true;
                    replies.version();
                }
                ClientPacket::Request(id, request) if self.initialized => {
                    let result =
                        request.map_err(|_| Error::Malformed).and_then(|r| self.handle_request(id, r, &mut replies));
                    used |= matches!(result, Ok(()) | Err(Error::Eof));
                    if let Err(error) = result {
                        replies.error(id, &error);
                    }
                }
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

    fn pending_work(&self) -> PendingWork {
        match &self.deferred_packet {
            Some(packet) if self.is_blocking(packet) => PendingWork::Blocking,
            Some(_) => PendingWork::Inline,
            None if self.queue.is_empty() => PendingWork::Nothing,
            None => PendingWork::Inline,
        }
    }

    fn is_blocking(&self, packet: &ClientPacket) -> bool {
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

    /// Does what is answered with a status alone.
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
            // In the draft's order the two change places.
            SftpRequest::Symlink { target: path, path: target } if self.session.symlink_link_first => {
                self.symlink(&target, &path)
            }
            SftpRequest::Symlink { target, path } => self.symlink(&target, &path),
            SftpRequest::Fsync(handle) => self.fsync(handle),
            SftpRequest::CopyData { from, offset, length, to, to_offset } => {
                self.copy_data(from, offset, length, to, to_offset)
            }
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
        ClientPacket::Request(_, Ok(SftpRequest::Read { length, .. })) => replies.fits_data(clamp_read_length(*length)),
        ClientPacket::Request(..) | ClientPacket::Init | ClientPacket::Truncated => true,
    }
}

fn clamp_read_length(length: u32) -> usize {
    usize::try_from(length).map_or(MAX_DATA_BYTES, |length| length.min(MAX_DATA_BYTES))
}

const _: () = assert!(MAX_DATA_BYTES + 13 <= REPLY_BATCH_BYTES);
