//! The steps of a sequence and their random generation.

use std::fmt;

use proptest::prelude::*;

/// Number of SFTP channels: two of the first session, one of each other.
pub(crate) const CHANNELS: usize = 4;
pub(crate) const SESSIONS: usize = 3;

/// Returns the session to which a channel belongs.
pub(crate) fn session_of(channel: usize) -> usize {
    channel.saturating_sub(1)
}

/// The flags of an OPEN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFlags(pub(crate) u32);

impl OpenFlags {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const APPEND: u32 = 4;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 16;
    pub(crate) const EXCLUSIVE: u32 = 32;

    pub(crate) fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Tells whether the handle can be read from; without READ and WRITE it can, as with O_RDONLY.
    pub(crate) fn reads(self) -> bool {
        self.has(Self::READ) || !self.has(Self::WRITE)
    }

    pub(crate) fn creates_exclusively(self) -> bool {
        self.has(Self::CREATE) && self.has(Self::EXCLUSIVE)
    }
}

/// Returns the place of a handle that a request gives by its number, among `open` handles in the order of their OPENs.
pub(crate) fn handle_index(number: usize, open: usize) -> usize {
    open.saturating_sub(1 + number % open.max(1))
}

impl fmt::Debug for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["READ", "WRITE", "APPEND", "CREAT", "TRUNC", "EXCL"];
        let set = names.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        let set: Vec<&str> = set.map(|(_, name)| *name).collect();
        f.write_str(if set.is_empty() { "0" } else { "" })?;
        f.write_str(&set.join("|"))
    }
}

/// The attributes that a SETSTAT or FSETSTAT sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    pub(crate) size: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) modified: Option<u32>,
}

/// An SFTP request; handles are given by their number, counted from the one that the channel opened last, modulo how
/// many it has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SftpRequest {
    Open { path: String, flags: OpenFlags, mode: Option<u32> },
    Read { handle: usize, offset: u64, length: u32 },
    Write { handle: usize, offset: u64, data: String },
    Close { handle: usize },
    HandleStat { handle: usize },
    HandleSetStat { handle: usize, change: AttributeChange },
    Sync { handle: usize },
    CopyData { from: usize, offset: u64, length: u64, to: usize, to_offset: u64 },
    Stat { path: String },
    LinkStat { path: String },
    SetStat { path: String, change: AttributeChange },
    LinkSetStat { path: String, change: AttributeChange },
    Rename { from: String, to: String },
    PosixRename { from: String, to: String },
    HardLink { from: String, to: String },
    SymbolicLink { target: String, path: String },
    ReadLink { path: String },
    Remove { path: String },
    MakeDirectory { path: String, mode: Option<u32> },
    RemoveDirectory { path: String },
    List { path: String },
}

impl SftpRequest {
    /// Tells whether the request is on an open handle.
    pub(crate) fn is_on_handle(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::Write { .. }
                | Self::Close { .. }
                | Self::HandleStat { .. }
                | Self::HandleSetStat { .. }
                | Self::Sync { .. }
                | Self::CopyData { .. }
        )
    }

    /// Returns the path that the request changes, or where it puts something.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::Open { path, .. } | Self::SetStat { path, .. } | Self::LinkSetStat { path, .. } => Some(path),
            Self::Rename { to, .. } | Self::PosixRename { to, .. } | Self::HardLink { to, .. } => Some(to),
            Self::SymbolicLink { path, .. } | Self::Remove { path } => Some(path),
            _ => None,
        }
    }
}

/// The condition of a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutCondition {
    None,
    /// If-Match with the present ETag.
    Current,
    /// If-Match with an ETag that the file had before, or never.
    Stale,
    /// If-None-Match: *
    Absent,
}

/// A request of the WebDAV client; `None` as a path is the directory in which paths start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WebDavRequest {
    Put {
        path: String,
        data: String,
        condition: PutCondition,
    },
    Move {
        from: String,
        to: String,
        overwrite: bool,
    },
    Copy {
        from: String,
        to: String,
        overwrite: bool,
    },
    Delete {
        path: String,
    },
    Lock {
        path: String,
        deep: bool,
    },
    /// A lock by its number, modulo how many there are.
    Unlock {
        lock: usize,
    },
    Get {
        path: String,
    },
    Etag {
        path: String,
    },
}

/// One step of a sequence.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ModelStep {
    Sftp(usize, SftpRequest),
    /// A session's connection breaks; the session connects again.
    DropSession(usize),
    /// A channel ends in order, by an end of file; another takes its place.
    EndChannel(usize),
    WebDav(WebDavRequest),
}

impl fmt::Debug for ModelStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sftp(channel, request) => write!(f, "{}: {request:?}", channel_name(*channel)),
            Self::DropSession(session) => write!(f, "session {session}: cut"),
            Self::EndChannel(channel) => write!(f, "{}: end of file", channel_name(*channel)),
            Self::WebDav(request) => write!(f, "WebDAV: {request:?}"),
        }
    }
}

/// Gives every name in a step a suffix.
pub(crate) fn step_with_suffix(step: &ModelStep, suffix: &'static str) -> ModelStep {
    let named = |path: &mut String| *path = with_suffix(path, suffix);
    let mut step = step.clone();
    match &mut step {
        ModelStep::DropSession(_) | ModelStep::EndChannel(_) => {}
        ModelStep::Sftp(_, request) => match request {
            SftpRequest::Open { path, .. }
            | SftpRequest::Stat { path }
            | SftpRequest::LinkStat { path }
            | SftpRequest::SetStat { path, .. }
            | SftpRequest::LinkSetStat { path, .. }
            | SftpRequest::ReadLink { path }
            | SftpRequest::Remove { path }
            | SftpRequest::MakeDirectory { path, .. }
            | SftpRequest::RemoveDirectory { path }
            | SftpRequest::List { path } => named(path),
            SftpRequest::Rename { from, to }
            | SftpRequest::PosixRename { from, to }
            | SftpRequest::HardLink { from, to } => {
                [from, to].into_iter().for_each(named);
            }
            SftpRequest::SymbolicLink { target, path } => {
                [target, path].into_iter().for_each(named);
            }
            SftpRequest::Read { .. }
            | SftpRequest::Write { .. }
            | SftpRequest::Close { .. }
            | SftpRequest::HandleStat { .. } => {}
            SftpRequest::HandleSetStat { .. } | SftpRequest::Sync { .. } | SftpRequest::CopyData { .. } => {}
        },
        ModelStep::WebDav(request) => match request {
            WebDavRequest::Put { path, .. }
            | WebDavRequest::Delete { path }
            | WebDavRequest::Lock { path, .. }
            | WebDavRequest::Get { path }
            | WebDavRequest::Etag { path } => named(path),
            WebDavRequest::Move { from, to, .. } | WebDavRequest::Copy { from, to, .. } => {
                [from, to].into_iter().for_each(named);
            }
            WebDavRequest::Unlock { .. } => {}
        },
    }
    step
}

fn channel_name(channel: usize) -> String {
    let second = if channel == 1 { ", second channel" } else { "" };
    format!("session {}{second}", session_of(channel))
}

/// Parameters by which the sequences of a configuration are generated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceShape {
    /// Suffix of every name.
    pub(crate) suffix: &'static str,
    pub(crate) webdav: bool,
    /// Maximum number of steps.
    pub(crate) length: usize,
}

/// Draws a sequence of steps: some that make a few entries, then any.
pub(crate) fn step_sequence(shape: SequenceShape) -> BoxedStrategy<Vec<ModelStep>> {
    let channel = || prop_oneof![5 => Just(0), 3 => Just(1), 5 => Just(2), 2 => Just(3)];
    let sftp = (channel(), request(shape.suffix)).prop_map(|(channel, request)| ModelStep::Sftp(channel, request));
    let cut = (0..SESSIONS).prop_map(ModelStep::DropSession);
    let end = channel().prop_map(ModelStep::EndChannel);
    let webdav = webdav(shape.suffix).prop_map(ModelStep::WebDav);
    let share = if shape.webdav { 14 } else { 0 };
    let step = prop_oneof![97 => sftp, 1 => cut, 2 => end, share => webdav];
    let begin = initial_steps(shape.suffix);
    (begin, prop::collection::vec(step, 1..=shape.length)).prop_map(|(begin, steps)| [begin, steps].concat()).boxed()
}

/// Draws what is there when the sessions begin.
fn initial_steps(suffix: &'static str) -> BoxedStrategy<Vec<ModelStep>> {
    let last = CHANNELS - 1;
    let directory = |path: &'static str| {
        let path = with_suffix(path, suffix);
        vec![ModelStep::Sftp(last, SftpRequest::MakeDirectory { path, mode: None })]
    };
    let link = |target: &str, path: &str| {
        let (target, path) = (with_suffix(target, suffix), with_suffix(path, suffix));
        vec![ModelStep::Sftp(last, SftpRequest::SymbolicLink { target, path })]
    };
    let file = |path: &'static str| {
        let flags = OpenFlags(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE);
        let steps = [
            SftpRequest::Open { path: with_suffix(path, suffix), flags, mode: None },
            SftpRequest::Write { handle: 0, offset: 0, data: "begin".to_owned() },
            SftpRequest::Close { handle: 0 },
        ];
        steps.map(|request| ModelStep::Sftp(last, request)).to_vec()
    };
    let all = [file("a"), file("b"), directory("d"), file("d/a"), directory("e"), link("a", "l"), link("d", "m")];
    prop::sample::subsequence(all.to_vec(), 0..=all.len()).prop_map(|parts| parts.concat()).boxed()
}

/// Draws a path; most lead to the same few names, so that they collide.
fn path(suffix: &'static str) -> BoxedStrategy<String> {
    let one = prop_oneof![12 => Just("a"), 5 => Just("b"), 1 => Just("c"), 4 => Just("l"), 1 => Just("m"),
        3 => Just("d"), 1 => Just("e")];
    let deep = prop_oneof![4 => Just("d/a"), 1 => Just("d/b"), 1 => Just("d/l"), 1 => Just("d/e"), 1 => Just("d/e/a"),
        1 => Just("e/a"), 1 => Just("l/a")];
    prop_oneof![3 => one, 1 => deep].prop_map(move |path| with_suffix(path, suffix)).boxed()
}

pub(crate) fn with_suffix(path: &str, suffix: &str) -> String {
    let names = path.split('/').map(|name| if name == ".." { name.to_owned() } else { format!("{name}{suffix}") });
    names.collect::<Vec<_>>().join("/")
}

fn directory(suffix: &'static str) -> BoxedStrategy<String> {
    let paths = prop_oneof![6 => Just("d"), 2 => Just("e"), 1 => Just("d/e"), 1 => Just("l")];
    prop_oneof![4 => paths.prop_map(move |path| with_suffix(path, suffix)), 1 => path(suffix)].boxed()
}

fn target(suffix: &'static str) -> BoxedStrategy<String> {
    let targets = prop_oneof![6 => Just("a"), 2 => Just("b"), 2 => Just("d"), 1 => Just("d/a"), 1 => Just("l"),
        1 => Just("m"), 2 => Just("../a")];
    targets.prop_map(move |path| with_suffix(path, suffix)).boxed()
}

fn file_mode() -> BoxedStrategy<u32> {
    prop_oneof![2 => Just(0o644), 2 => Just(0o600), 1 => Just(0o666), 1 => Just(0o755), 2 => Just(0o444)].boxed()
}

fn change() -> BoxedStrategy<AttributeChange> {
    let size = prop::option::weighted(0.5, prop_oneof![Just(0), Just(2), Just(3), Just(9)]);
    let mode = prop::option::weighted(0.4, file_mode());
    let modified = prop::option::weighted(0.4, 900_000_000..900_000_010_u32);
    let change = (size, mode, modified).prop_map(|(size, mode, modified)| AttributeChange { size, mode, modified });
    // Servers differ in what they do when there is nothing to do.
    let some = |change: AttributeChange| match change {
        AttributeChange { size: None, mode: None, modified: None } => AttributeChange { size: Some(1), ..change },
        _ => change,
    };
    change.prop_map(some).boxed()
}

/// Draws what lsetstat sets: no size, which OpenSSH refuses and patgate sets.
fn link_change() -> BoxedStrategy<AttributeChange> {
    let without_size = |change: AttributeChange| match change.mode {
        None => AttributeChange { size: None, modified: change.modified.or(Some(900_000_000)), ..change },
        Some(_) => AttributeChange { size: None, ..change },
    };
    change().prop_map(without_size).boxed()
}

fn flags() -> BoxedStrategy<OpenFlags> {
    let usual = prop_oneof![
        3 => Just(OpenFlags::READ),
        5 => Just(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE),
        2 => Just(OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE),
        3 => Just(OpenFlags::WRITE),
        2 => Just(OpenFlags::READ | OpenFlags::WRITE),
        2 => Just(OpenFlags::WRITE | OpenFlags::CREATE),
        1 => Just(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::APPEND),
        1 => Just(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE),
    ];
    prop_oneof![3 => usual, 1 => 0..64_u32].prop_map(OpenFlags).boxed()
}

fn data() -> BoxedStrategy<String> {
    "[a-z]{1,5}".boxed()
}

fn offset() -> BoxedStrategy<u64> {
    prop_oneof![4 => Just(0), 1 => Just(2), 1 => Just(4), 1 => Just(9)].boxed()
}

fn request(suffix: &'static str) -> BoxedStrategy<SftpRequest> {
    prop_oneof![5 => handle_request(suffix), 3 => name_request(suffix)].boxed()
}

fn handle_request(suffix: &'static str) -> BoxedStrategy<SftpRequest> {
    let number = || 0..4_usize;
    let open = (path(suffix), flags(), prop::option::weighted(0.3, file_mode()));
    let copy = (number(), offset(), 0..5_u64, 1..3_usize, offset());
    prop_oneof![
        10 => open.prop_map(|(path, flags, mode)| SftpRequest::Open { path, flags, mode }),
        4 => (number(), offset(), 1..12_u32).prop_map(|(handle, offset, length)| {
            SftpRequest::Read { handle, offset, length }
        }),
        9 => (number(), offset(), data()).prop_map(|(handle, offset, data)| SftpRequest::Write { handle, offset, data }),
        6 => number().prop_map(|handle| SftpRequest::Close { handle }),
        2 => number().prop_map(|handle| SftpRequest::HandleStat { handle }),
        3 => (number(), change()).prop_map(|(handle, change)| SftpRequest::HandleSetStat { handle, change }),
        1 => number().prop_map(|handle| SftpRequest::Sync { handle }),
        5 => copy.prop_map(|(from, offset, length, next, to_offset)| {
            SftpRequest::CopyData { from, offset, length, to: from + next, to_offset }
        }),
    ]
    .boxed()
}

fn name_request(suffix: &'static str) -> BoxedStrategy<SftpRequest> {
    let path = || path(suffix);
    let pair = || (path(), path());
    let mode = prop_oneof![3 => Just(None), 1 => Just(Some(0o700)), 1 => Just(Some(0o775))];
    prop_oneof![
        1 => path().prop_map(|path| SftpRequest::Stat { path }),
        1 => path().prop_map(|path| SftpRequest::LinkStat { path }),
        3 => (path(), change()).prop_map(|(path, change)| SftpRequest::SetStat { path, change }),
        1 => (path(), link_change()).prop_map(|(path, change)| SftpRequest::LinkSetStat { path, change }),
        3 => pair().prop_map(|(from, to)| SftpRequest::Rename { from, to }),
        4 => pair().prop_map(|(from, to)| SftpRequest::PosixRename { from, to }),
        2 => pair().prop_map(|(from, to)| SftpRequest::HardLink { from, to }),
        2 => (target(suffix), path()).prop_map(|(target, path)| SftpRequest::SymbolicLink { target, path }),
        1 => path().prop_map(|path| SftpRequest::ReadLink { path }),
        3 => path().prop_map(|path| SftpRequest::Remove { path }),
        3 => (directory(suffix), mode).prop_map(|(path, mode)| SftpRequest::MakeDirectory { path, mode }),
        2 => directory(suffix).prop_map(|path| SftpRequest::RemoveDirectory { path }),
        1 => directory(suffix).prop_map(|path| SftpRequest::List { path }),
    ]
    .boxed()
}

fn webdav(suffix: &'static str) -> BoxedStrategy<WebDavRequest> {
    let path = || path(suffix);
    let condition = prop_oneof![3 => Just(PutCondition::None), 1 => Just(PutCondition::Current), 1 => Just(PutCondition::Stale),
        1 => Just(PutCondition::Absent)];
    let pair = || (path(), path(), any::<bool>());
    let put = (path(), data(), condition);
    prop_oneof![
        4 => put.prop_map(|(path, data, condition)| WebDavRequest::Put { path, data, condition }),
        3 => pair().prop_map(|(from, to, overwrite)| WebDavRequest::Move { from, to, overwrite }),
        1 => pair().prop_map(|(from, to, overwrite)| WebDavRequest::Copy { from, to, overwrite }),
        3 => path().prop_map(|path| WebDavRequest::Delete { path }),
        2 => (path(), any::<bool>()).prop_map(|(path, deep)| WebDavRequest::Lock { path, deep }),
        3 => (0..4_usize).prop_map(|lock| WebDavRequest::Unlock { lock }),
        1 => path().prop_map(|path| WebDavRequest::Get { path }),
        2 => path().prop_map(|path| WebDavRequest::Etag { path }),
    ]
    .boxed()
}
