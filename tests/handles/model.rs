//! The executable model: what every step answers and leaves, by OpenSSH's semantics and the rules in force.

use crate::file_system::{Content, FileSystem, InodeNumber, Location, ModificationTime, Refused, Result};
use crate::locks::Locks;
use crate::operations::{CHANNELS, OpenFlags, Request, Step, handle_at, session_of};
use crate::rules::{Rule, RuleSet};
use crate::uploads::Upload;

/// What a step answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    EndOfFile,
    /// Any other status: servers give different codes for the same reason.
    Refused,
    Data(Vec<u8>),
    Attributes(Attributes),
    Entries(Vec<(String, Attributes)>),
    Target(String),
    /// The content that an ETag stands for.
    Etag(InodeNumber, u64),
}

/// The attributes of an answer. Sizes count for files, modes not for links, times not for directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `-`, `d` or `l`.
    pub(crate) kind: char,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) modified: ModificationTime,
}

/// What a configuration is, besides its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) rules: RuleSet,
    /// Whether the server may write any file, whatever its mode.
    pub(crate) superuser: bool,
    /// Whether every file has to be text: without gaps.
    pub(crate) text: bool,
}

/// An open file or directory.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// The path that was opened, as it was given.
    pub(crate) path: String,
    pub(crate) flags: OpenFlags,
    pub(crate) file: InodeNumber,
    /// The number of the upload that its CLOSE commits.
    pub(crate) upload: Option<usize>,
    /// The name of the file by which it was opened, wherever that was renamed to; none once it was removed or replaced.
    pub(crate) name: Option<(InodeNumber, String)>,
    /// Whether an upload has replaced the file.
    pub(crate) replaced: bool,
}

impl Handle {
    pub(crate) fn writes(&self) -> bool {
        self.flags.has(OpenFlags::WRITE)
    }
}

impl Handle {
    /// Makes a handle to what is at a location, or will be.
    pub(crate) fn new(path: &str, flags: OpenFlags, file: InodeNumber, location: &Location) -> Self {
        let name = Some((location.directory, location.name.clone()));
        Self { path: path.to_owned(), flags, file, upload: None, name, replaced: false }
    }
}

/// Who looks: a session, which sees its uploads, or everybody else.
pub(crate) type Viewer = Option<usize>;

/// The model of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) setting: Setting,
    pub(crate) files: FileSystem,
    pub(crate) handles: [Vec<Handle>; CHANNELS],
    pub(crate) uploads: Vec<Upload>,
    pub(crate) locks: Locks,
}

impl Model {
    pub(crate) fn new(setting: Setting) -> Self {
        let handles = std::array::from_fn(|_| Vec::new());
        Self { setting, files: FileSystem::new(), handles, uploads: Vec::new(), locks: Locks::default() }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.setting.rules.has(rule)
    }

    /// Returns the step that is carried out: a request on a handle goes to the next channel that has one open,
    /// and one on two handles to the next that has two.
    pub(crate) fn resolve(&self, step: &Step) -> Step {
        match step {
            Step::Sftp(channel, request) if request.is_on_handle() => {
                let mut channels = (0..CHANNELS).map(|next| (channel + next) % CHANNELS);
                let needed = if matches!(request, Request::CopyData { .. }) { 2 } else { 1 };
                let open = channels.find(|channel| self.handles[*channel].len() >= needed);
                Step::Sftp(open.unwrap_or(*channel), request.clone())
            }
            _ => step.clone(),
        }
    }

    /// Carries a step out and returns its answer; `None` for a step that means nothing here and is left out.
    pub(crate) fn apply(&mut self, step: &Step) -> Option<Outcome> {
        match step {
            Step::Sftp(channel, request) => {
                if self.is_left_out(*channel, request) {
                    return None;
                }
                Some(self.request(*channel, request).unwrap_or(Outcome::Refused))
            }
            Step::Cut(session) => {
                (0..CHANNELS).filter(|channel| session_of(*channel) == *session).for_each(|c| self.cut(c));
                Some(Outcome::Done)
            }
            Step::EndChannel(channel) => {
                while !self.handles[*channel].is_empty() {
                    // Nobody is left to be told.
                    let _ = self.close(*channel, 0);
                }
                Some(Outcome::Done)
            }
            Step::WebDav(request) => self.web_dav(request).map(|result| result.unwrap_or(Outcome::Refused)),
        }
    }

    fn request(&mut self, channel: usize, request: &Request) -> Result<Outcome> {
        let session = session_of(channel);
        let at = |number: usize| handle_at(number, self.handles[channel].len());
        match request {
            Request::Open { path, flags, mode } => self.open(channel, path, *flags, *mode)?,
            Request::Read { handle, offset, length } => return self.read(channel, at(*handle), *offset, *length),
            Request::Write { handle, offset, data } => self.write(channel, at(*handle), *offset, data.as_bytes())?,
            Request::Close { handle } => self.close(channel, at(*handle))?,
            Request::HandleStat { handle } => {
                return Ok(Outcome::Attributes(self.attributes(self.handles[channel][at(*handle)].file)));
            }
            Request::HandleSetStat { handle, change } => self.set_handle_attributes(channel, at(*handle), *change)?,
            Request::Sync { handle } => self.sync(channel, at(*handle))?,
            Request::CopyData { from, offset, length, to, to_offset } => {
                self.copy_data(channel, (at(*from), *offset), *length, (at(*to), *to_offset))?;
            }
            Request::Stat { path } => return self.stat(session, path, true),
            Request::LinkStat { path } => return self.stat(session, path, false),
            Request::SetStat { path, change } => self.set_attributes(session, path, *change)?,
            Request::LinkSetStat { path, change } => self.set_link_attributes(session, path, *change)?,
            Request::Rename { from, to } => self.rename(session, from, to)?,
            Request::PosixRename { from, to } => self.posix_rename(session, from, to)?,
            Request::HardLink { from, to } => self.hard_link(session, from, to)?,
            Request::SymbolicLink { target, path } => self.symbolic_link(session, target, path)?,
            Request::ReadLink { path } => return self.read_link(session, path),
            Request::Remove { path } => self.remove(session, path)?,
            Request::MakeDirectory { path, mode } => self.make_directory(session, path, *mode)?,
            Request::RemoveDirectory { path } => self.remove_directory(session, path)?,
            Request::List { path } => return self.list(session, path),
        }
        Ok(Outcome::Done)
    }

    /// Tells whether a request is left out: it needs a handle that isn't there, or what it does isn't defined.
    fn is_left_out(&self, channel: usize, request: &Request) -> bool {
        let handles = &self.handles[channel];
        let session = session_of(channel);
        match request {
            Request::Read { .. } | Request::Close { .. } | Request::HandleStat { .. } | Request::Sync { .. } => {
                handles.is_empty()
            }
            Request::Write { handle, offset, .. } => match handles.get(handle_at(*handle, handles.len())) {
                Some(handle) => self.leaves_gap(handle, *offset),
                None => true,
            },
            Request::HandleSetStat { handle, change } => match handles.get(handle_at(*handle, handles.len())) {
                Some(handle) => self.extends(handle.file, change.size) || self.locks_out(handle.file, change.mode),
                None => true,
            },
            Request::SetStat { path, change } | Request::LinkSetStat { path, change } => {
                let follow = matches!(request, Request::SetStat { .. });
                let file = self.locate(Some(session), path, follow).ok().and_then(|location| location.entry);
                file.is_some_and(|file| self.extends(file, change.size) || self.locks_out(file, change.mode))
            }
            Request::CopyData { from, offset, length, to, to_offset } => {
                let at = |number: &usize| handles.get(handle_at(*number, handles.len()));
                let (Some(from), Some(to)) = (at(from), at(to)) else {
                    return true;
                };
                let reads = from.flags.reads() && self.files.is_file(from.file);
                let endless = *length == 0 && from.file == to.file;
                let found = self.files.size(from.file) > *offset;
                !reads || !to.writes() || endless || (self.setting.text && !found) || self.leaves_gap(to, *to_offset)
            }
            _ => false,
        }
    }

    fn leaves_gap(&self, handle: &Handle, offset: u64) -> bool {
        let appends = handle.flags.has(OpenFlags::APPEND);
        self.setting.text && !appends && offset > self.files.size(handle.file)
    }

    fn extends(&self, file: InodeNumber, size: Option<u64>) -> bool {
        self.setting.text && size.is_some_and(|size| size > self.files.size(file))
    }

    /// Tells whether a mode would lock the owner out of a directory.
    fn locks_out(&self, file: InodeNumber, mode: Option<u32>) -> bool {
        self.files.is_directory(file) && mode.is_some_and(|mode| mode & 0o700 != 0o700)
    }

    /// Finds where a path leads for a viewer.
    pub(crate) fn locate(&self, viewer: Viewer, path: &str, follow: bool) -> Result<Location> {
        self.files.locate(path, follow, |directory, name| self.shown(viewer, directory, name))
    }

    /// Tells whether the server may change the content of a file that is opened by its name.
    pub(crate) fn may_write(&self, file: InodeNumber) -> bool {
        self.setting.superuser || self.files.inode(file).mode & 0o200 != 0
    }

    pub(crate) fn attributes(&self, number: InodeNumber) -> Attributes {
        let inode = self.files.inode(number);
        let kind = match inode.content {
            Content::File(_) => '-',
            Content::Directory { .. } => 'd',
            Content::Link(_) => 'l',
        };
        let mode = if kind == 'l' { 0o777 } else { inode.mode };
        let modified = if kind == 'd' { ModificationTime::Unknown } else { inode.modified };
        Attributes { kind, size: self.files.size(number), mode, modified }
    }

    pub(crate) fn stat(&self, session: usize, path: &str, follow: bool) -> Result<Outcome> {
        let entry = self.locate(Some(session), path, follow)?.existing()?;
        Ok(Outcome::Attributes(self.attributes(entry)))
    }

    fn read_link(&self, session: usize, path: &str) -> Result<Outcome> {
        let entry = self.locate(Some(session), path, false)?.existing()?;
        match &self.files.inode(entry).content {
            Content::Link(target) => Ok(Outcome::Target(target.clone())),
            Content::File(_) | Content::Directory { .. } => Err(Refused),
        }
    }

    fn list(&self, session: usize, path: &str) -> Result<Outcome> {
        let directory = self.locate(Some(session), path, true)?.existing()?;
        if !self.files.is_directory(directory) {
            return Err(Refused);
        }
        let names = self.shown_names(Some(session), directory);
        let shown = |name: String| Some((self.shown(Some(session), directory, &name)?, name));
        let entries = names.into_iter().filter_map(shown).map(|(number, name)| (name, self.attributes(number)));
        Ok(Outcome::Entries(entries.collect()))
    }

    /// Ends a channel whose connection breaks: uploads are discarded, what was written in place stays.
    fn cut(&mut self, channel: usize) {
        for handle in std::mem::take(&mut self.handles[channel]) {
            match handle.upload {
                Some(upload) => self.discard(upload),
                None => self.finish_in_place(&handle),
            }
        }
    }
}
