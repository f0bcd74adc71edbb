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
use super::handles::Handles;
use super::hashing::Hashing;
use super::input::{Frame, MAX_PACKET};
use super::reply::{BATCH, Replies};
use super::request::{Packet, Request};

/// The most that one READ is answered and one WRITE may bring, as `limits@openssh.com` says.
pub(super) const MAX_DATA: usize = 261_120;

/// What the channels of a session share.
pub(super) struct Shared {
    pub(super) files: SessionFiles,
    pub(super) auth: Authenticator,
    /// Places for open files and folders.
    pub(super) places: Arc<Semaphore>,
    /// How many places there are in all.
    pub(super) handles: usize,
    /// Bounds what is hashed at once.
    pub(super) hashing: Hashing,
    /// Whether the client sends SYMLINK's arguments in the draft's order.
    pub(super) link_first: bool,
    /// Cancelled when the connection is to end.
    pub(super) over: CancellationToken,
}

impl Shared {
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
pub(super) struct Outcome {
    /// The answers.
    pub(super) replies: Bytes,
    /// Whether requests are left that were not answered yet, and what the next is like.
    pub(super) left: Left,
    /// How many files and folders are open.
    pub(super) open: usize,
    /// Whether the client broke the protocol: nothing after that can be understood.
    pub(super) broken: bool,
}

/// What a worker has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Requests that take as long as a small file takes.
    Light,
    /// First a request that moves much at once: the connection's own thread would be gone too long.
    Heavy,
}

/// Answers the requests of one channel.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) handles: Handles,
    /// The directory that relative paths begin in.
    pub(super) start: TreePath,
    queue: VecDeque<Frame>,
    /// A request whose answer would not fit into the batch before.
    held: Option<Packet>,
    greeted: bool,
}

impl Worker {
    /// Makes the worker of a new channel.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (handles, start) = (Handles::new(shared.places.clone()), shared.view().start());
        Self { shared, handles, start, queue: VecDeque::new(), held: None, greeted: false }
    }

    /// Adds a packet to those that are to be answered.
    pub(super) fn push(&mut self, frame: Frame) {
        self.queue.push_back(frame);
    }

    /// Answers requests until none is left, a batch is full, the next is heavy, or the connection is over.
    pub(super) fn run(&mut self) -> Outcome {
        self.answer_while(|worker, packet| !worker.is_heavy(packet))
    }

    /// As [`Worker::run`], heavy requests too.
    pub(super) fn run_heavy(&mut self) -> Outcome {
        self.answer_while(|_, _| true)
    }

    /// Closes all that is open, as the client would: it has ended the channel in order. Tells whether every upload
    /// was committed.
    pub(super) fn close_all(&mut self) -> bool {
        let mut whole = true;
        for open in self.handles.drain() {
            if let Err(error) = open.close() {
                tracing::info!(login = %self.shared.login(), %error, "an upload that its client did not close was refused");
                whole = false;
            }
        }
        whole
    }

    fn answer_while(&mut self, takes: impl Fn(&Self, &Packet) -> bool) -> Outcome {
        let mut replies = Replies::default();
        let (mut broken, mut used) = (false, false);
        while !self.shared.over.is_cancelled() && !replies.is_full() {
            let Some(packet) = self.next() else { break };
            if !takes(self, &packet) || !has_room(&packet, &replies) {
                self.held = Some(packet);
                break;
            }
            match packet {
                Packet::Init => {
                    self.greeted = true;
                    replies.version();
                }
                Packet::Request(id, request) if self.greeted => {
                    let answered = request.map_err(|_| Error::Malformed).and_then(|r| self.answer(id, r, &mut replies));
                    used |= matches!(answered, Ok(()) | Err(Error::Eof));
                    if let Err(error) = answered {
                        replies.refuse(id, &error);
                    }
                }
                Packet::Request(..) | Packet::Broken => {
                    broken = true;
                    break;
                }
            }
        }
        if used {
            self.shared.view().session().used();
        }
        Outcome { replies: replies.into_bytes(), left: self.left(), open: self.handles.len(), broken }
    }

    fn left(&self) -> Left {
        match &self.held {
            Some(packet) if self.is_heavy(packet) => Left::Heavy,
            Some(_) => Left::Light,
            None if self.queue.is_empty() => Left::Nothing,
            None => Left::Light,
        }
    }

    fn is_heavy(&self, packet: &Packet) -> bool {
        match packet {
            Packet::Request(
                _,
                Ok(Request::CopyData { .. } | Request::CheckName { .. } | Request::CheckHandle { .. }),
            ) => true,
            Packet::Request(_, Ok(Request::Close(handle) | Request::Sync(handle))) => self.handles.is_heavy(*handle),
            Packet::Request(..) | Packet::Init | Packet::Broken => false,
        }
    }

    fn next(&mut self) -> Option<Packet> {
        self.held.take().or_else(|| self.queue.pop_front().map(Packet::parse))
    }

    fn answer(&mut self, id: u32, request: Request, out: &mut Replies) -> Result<()> {
        match request {
            Request::Read { handle, offset, length } => return self.read(id, handle, offset, read_size(length), out),
            Request::Open { path, flags, attributes } => out.handle(id, self.open(&path, flags, &attributes)?),
            Request::OpenFolder(path) => out.handle(id, self.open_folder(&path)?),
            Request::ReadFolder(handle) => return self.read_folder(id, handle, out),
            Request::Stat(path) => out.attributes(id, &self.stat(&path)?),
            Request::LinkStat(path) => out.attributes(id, &self.link_stat(&path)?),
            Request::HandleStat(handle) => out.attributes(id, &self.handle_stat(handle)?),
            Request::RealPath(path) => out.name(id, &self.real_path(&path)?),
            Request::ExpandPath(path) => out.name(id, &self.expand_path(&path)?),
            Request::HomeDirectory(user) => out.name(id, &self.home_directory(&user)?),
            Request::ReadLink(path) => out.name(id, &self.read_link(&path)?),
            Request::Space(path) => out.space(id, &self.space(&path)?),
            Request::HandleSpace(handle) => out.space(id, &self.handle_space(handle)?),
            Request::Limits => {
                let sizes = [MAX_PACKET, MAX_DATA, MAX_DATA, self.shared.handles];
                out.limits(id, sizes.map(|size| u64::try_from(size).unwrap_or(u64::MAX)));
            }
            Request::CheckName { path, hashes } => return self.check_name(id, &path, &hashes, out),
            Request::CheckHandle { handle, hashes } => return self.check_handle(id, handle, &hashes, out),
            Request::Names { users, groups } => out.owners(id, &users, &groups, self.shared.login()),
            other => {
                self.change(other)?;
                out.ok(id);
            }
        }
        Ok(())
    }

    /// Does what is answered with a status alone.
    fn change(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Write { handle, offset, data } => self.write(handle, offset, &data),
            Request::Close(handle) => self.close(handle),
            Request::SetStat { path, attributes } => self.set_stat(&path, &attributes, true),
            Request::LinkSetStat { path, attributes } => self.set_stat(&path, &attributes, false),
            Request::HandleSetStat { handle, attributes } => self.handle_set_stat(handle, &attributes),
            Request::MakeFolder { path, attributes } => self.make_folder(&path, &attributes),
            Request::RemoveFolder(path) => self.remove_folder(&path),
            Request::Remove(path) => self.remove(&path),
            Request::Rename { from, to } => self.rename(&from, &to, crate::tree::Overwrite::No),
            Request::PosixRename { from, to } => self.rename(&from, &to, crate::tree::Overwrite::Posix),
            Request::HardLink { from, to } => self.hard_link(&from, &to),
            // In the draft's order the two change places.
            Request::Symlink { target: path, path: target } if self.shared.link_first => self.symlink(&target, &path),
            Request::Symlink { target, path } => self.symlink(&target, &path),
            Request::Sync(handle) => self.sync(handle),
            Request::CopyData { from, offset, length, to, to_offset } => {
                self.copy_data(from, offset, length, to, to_offset)
            }
            Request::Read { .. }
            | Request::Open { .. }
            | Request::OpenFolder(_)
            | Request::ReadFolder(_)
            | Request::Stat(_)
            | Request::LinkStat(_)
            | Request::HandleStat(_)
            | Request::RealPath(_)
            | Request::ExpandPath(_)
            | Request::HomeDirectory(_)
            | Request::ReadLink(_)
            | Request::Space(_)
            | Request::HandleSpace(_)
            | Request::CheckName { .. }
            | Request::CheckHandle { .. }
            | Request::Limits
            | Request::Names { .. }
            | Request::Unknown => Err(Error::Unsupported),
        }
    }
}

fn has_room(packet: &Packet, replies: &Replies) -> bool {
    match packet {
        Packet::Request(_, Ok(Request::Read { length, .. })) => replies.has_room(read_size(*length)),
        Packet::Request(..) | Packet::Init | Packet::Broken => true,
    }
}

fn read_size(length: u32) -> usize {
    usize::try_from(length).map_or(MAX_DATA, |length| length.min(MAX_DATA))
}

const _: () = assert!(MAX_DATA + 13 <= BATCH);
