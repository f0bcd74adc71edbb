//! The executable model: the answer and the result of every step, by OpenSSH's semantics and the rules in force.

use crate::file_system::{
    FileSystem, InodeContent, InodeNumber, ModificationTime, OperationRefused, PathLocation, Result,
};
use crate::locks::ModelLocks;
use crate::rules::{PatgateRule, RuleSet};
use crate::steps::{CHANNELS, ModelStep, OpenFlags, SftpRequest, handle_index, session_of};
use crate::uploads::ModelUpload;

/// The response to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    Done,
    EndOfFile,
    /// Any other status: servers give different codes for the same reason.
    Refused,
    Data(Vec<u8>),
    Attributes(ExpectedAttributes),
    Entries(Vec<(String, ExpectedAttributes)>),
    Target(String),
    /// The content that an ETag stands for.
    Etag(InodeNumber, u64),
}

/// The attributes of an answer. Sizes count for files, modes not for links, times not for directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedAttributes {
    /// `-`, `d` or `l`.
    pub(crate) kind: char,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) modified: ModificationTime,
}

/// A configuration: its rules and the properties of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelConfig {
    pub(crate) rules: RuleSet,
    /// Whether the server may write any file, whatever its mode.
    pub(crate) superuser: bool,
    /// Whether every file has to be text: without gaps.
    pub(crate) text: bool,
}

/// An open file or directory.
#[derive(Clone, Debug)]
pub(crate) struct ModelHandle {
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

impl ModelHandle {
    pub(crate) fn writes(&self) -> bool {
        self.flags.has(OpenFlags::WRITE)
    }
}

impl ModelHandle {
    /// Makes a handle to what is at a location, or will be.
    pub(crate) fn new(path: &str, flags: OpenFlags, file: InodeNumber, location: &PathLocation) -> Self {
        let name = Some((location.directory, location.name.clone()));
        Self { path: path.to_owned(), flags, file, upload: None, name, replaced: false }
    }
}

/// The viewer of a path: a session, which sees its own uploads, or `None` for all others.
pub(crate) type SessionViewer = Option<usize>;

/// The model of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct HandleModel {
    pub(crate) setting: ModelConfig,
    pub(crate) files: FileSystem,
    pub(crate) handles: [Vec<ModelHandle>; CHANNELS],
    pub(crate) uploads: Vec<ModelUpload>,
    pub(crate) locks: ModelLocks,
}

impl HandleModel {
    pub(crate) fn new(setting: ModelConfig) -> Self {
        let handles = std::array::from_fn(|_| Vec::new());
        Self { setting, files: FileSystem::new(), handles, uploads: Vec::new(), locks: ModelLocks::default() }
    }

    pub(crate) fn has(&self, rule: PatgateRule) -> bool {
        self.setting.rules.has(rule)
    }

    /// Returns the step that is carried out: a request on a handle goes to the next channel that has one open,
    /// and one on two handles to the next that has two.
    pub(crate) fn resolve(&self, step: &ModelStep) -> ModelStep {
        match step {
            ModelStep::Sftp(channel, request) if request.is_on_handle() => {
                let mut channels = (0..CHANNELS).map(|next| (channel + next) % CHANNELS);
                let needed = if matches!(request, SftpRequest::CopyData { .. }) { 2 } else { 1 };
                let open = channels.find(|channel| self.handles[*channel].len() >= needed);
                ModelStep::Sftp(open.unwrap_or(*channel), request.clone())
            }
            _ => step.clone(),
        }
    }

    /// Carries a step out and returns its answer; `None` for a step that means nothing here and is left out.
    pub(crate) fn apply(&mut self, step: &ModelStep) -> Option<StepOutcome> {
        match step {
            ModelStep::Sftp(channel, request) => {
                if self.is_skipped(*channel, request) {
                    return None;
                }
                Some(self.request(*channel, request).unwrap_or(StepOutcome::Refused))
            }
            ModelStep::DropSession(session) => {
                (0..CHANNELS).filter(|channel| session_of(*channel) == *session).for_each(|c| self.lose_connection(c));
                Some(StepOutcome::Done)
            }
            ModelStep::EndChannel(channel) => {
                while !self.handles[*channel].is_empty() {
                    // Nobody is left to be told.
                    let _ = self.close(*channel, 0);
                }
                Some(StepOutcome::Done)
            }
            ModelStep::WebDav(request) => self.web_dav(request).map(|result| result.unwrap_or(StepOutcome::Refused)),
        }
    }

    fn request(&mut self, channel: usize, request: &SftpRequest) -> Result<StepOutcome> {
        let session = session_of(channel);
        let at = |number: usize| handle_index(number, self.handles[channel].len());
        match request {
            SftpRequest::Open { path, flags, mode } => self.open(channel, path, *flags, *mode)?,
            SftpRequest::Read { handle, offset, length } => return self.read(channel, at(*handle), *offset, *length),
            SftpRequest::Write { handle, offset, data } => {
                self.write(channel, at(*handle), *offset, data.as_bytes())?
            }
            SftpRequest::Close { handle } => self.close(channel, at(*handle))?,
            SftpRequest::HandleStat { handle } => {
                return Ok(StepOutcome::Attributes(self.attributes(self.handles[channel][at(*handle)].file)));
            }
            SftpRequest::HandleSetStat { handle, change } => {
                self.set_handle_attributes(channel, at(*handle), *change)?
            }
            SftpRequest::Sync { handle } => self.sync(channel, at(*handle))?,
            SftpRequest::CopyData { from, offset, length, to, to_offset } => {
                self.copy_data(channel, (at(*from), *offset), *length, (at(*to), *to_offset))?;
            }
            SftpRequest::Stat { path } => return self.stat(session, path, true),
            SftpRequest::LinkStat { path } => return self.stat(session, path, false),
            SftpRequest::SetStat { path, change } => self.set_attributes(session, path, *change)?,
            SftpRequest::LinkSetStat { path, change } => self.set_link_attributes(session, path, *change)?,
            SftpRequest::Rename { from, to } => self.rename(session, from, to)?,
            SftpRequest::PosixRename { from, to } => self.posix_rename(session, from, to)?,
            SftpRequest::HardLink { from, to } => self.hard_link(session, from, to)?,
            SftpRequest::SymbolicLink { target, path } => self.symbolic_link(session, target, path)?,
            SftpRequest::ReadLink { path } => return self.read_link(session, path),
            SftpRequest::Remove { path } => self.remove(session, path)?,
            SftpRequest::MakeDirectory { path, mode } => self.make_directory(session, path, *mode)?,
            SftpRequest::RemoveDirectory { path } => self.remove_directory(session, path)?,
            SftpRequest::List { path } => return self.list(session, path),
        }
        Ok(StepOutcome::Done)
    }

    /// Tells whether a request is skipped: its handle doesn't exist, or its result isn't defined.
    fn is_skipped(&self, channel: usize, request: &SftpRequest) -> bool {
        let handles = &self.handles[channel];
        let session = session_of(channel);
        match request {
            SftpRequest::Read { .. }
            | SftpRequest::Close { .. }
            | SftpRequest::HandleStat { .. }
            | SftpRequest::Sync { .. } => handles.is_empty(),
            SftpRequest::Write { handle, offset, .. } => match handles.get(handle_index(*handle, handles.len())) {
                Some(handle) => self.leaves_gap(handle, *offset),
                None => true,
            },
            SftpRequest::HandleSetStat { handle, change } => match handles.get(handle_index(*handle, handles.len())) {
                Some(handle) => {
                    self.extends(handle.file, change.size) || self.denies_owner_access(handle.file, change.mode)
                }
                None => true,
            },
            SftpRequest::SetStat { path, change } | SftpRequest::LinkSetStat { path, change } => {
                let follow = matches!(request, SftpRequest::SetStat { .. });
                let file = self.locate(Some(session), path, follow).ok().and_then(|location| location.entry);
                file.is_some_and(|file| self.extends(file, change.size) || self.denies_owner_access(file, change.mode))
            }
            SftpRequest::CopyData { from, offset, length, to, to_offset } => {
                let at = |number: &usize| handles.get(handle_index(*number, handles.len()));
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

    fn leaves_gap(&self, handle: &ModelHandle, offset: u64) -> bool {
        let appends = handle.flags.has(OpenFlags::APPEND);
        self.setting.text && !appends && offset > self.files.size(handle.file)
    }

    fn extends(&self, file: InodeNumber, size: Option<u64>) -> bool {
        self.setting.text && size.is_some_and(|size| size > self.files.size(file))
    }

    /// Tells whether a mode would lock the owner out of a directory.
    fn denies_owner_access(&self, file: InodeNumber, mode: Option<u32>) -> bool {
        self.files.is_directory(file) && mode.is_some_and(|mode| mode & 0o700 != 0o700)
    }

    /// Finds where a path leads for a viewer.
    pub(crate) fn locate(&self, viewer: SessionViewer, path: &str, follow: bool) -> Result<PathLocation> {
        self.files.locate(path, follow, |directory, name| self.visible_entry(viewer, directory, name))
    }

    /// Tells whether the server may change the content of a file that is opened by its name.
    pub(crate) fn may_write(&self, file: InodeNumber) -> bool {
        self.setting.superuser || self.files.inode(file).mode & 0o200 != 0
    }

    pub(crate) fn attributes(&self, number: InodeNumber) -> ExpectedAttributes {
        let inode = self.files.inode(number);
        let kind = match inode.content {
            InodeContent::File(_) => '-',
            InodeContent::Directory { .. } => 'd',
            InodeContent::Link(_) => 'l',
        };
        let mode = if kind == 'l' { 0o777 } else { inode.mode };
        let modified = if kind == 'd' { ModificationTime::Unknown } else { inode.modified };
        ExpectedAttributes { kind, size: self.files.size(number), mode, modified }
    }

    pub(crate) fn stat(&self, session: usize, path: &str, follow: bool) -> Result<StepOutcome> {
        let entry = self.locate(Some(session), path, follow)?.existing()?;
        Ok(StepOutcome::Attributes(self.attributes(entry)))
    }

    fn read_link(&self, session: usize, path: &str) -> Result<StepOutcome> {
        let entry = self.locate(Some(session), path, false)?.existing()?;
        match &self.files.inode(entry).content {
            InodeContent::Link(target) => Ok(StepOutcome::Target(target.clone())),
            InodeContent::File(_) | InodeContent::Directory { .. } => Err(OperationRefused),
        }
    }

    fn list(&self, session: usize, path: &str) -> Result<StepOutcome> {
        let directory = self.locate(Some(session), path, true)?.existing()?;
        if !self.files.is_directory(directory) {
            return Err(OperationRefused);
        }
        let names = self.visible_names(Some(session), directory);
        let visible = |name: String| Some((self.visible_entry(Some(session), directory, &name)?, name));
        let entries = names.into_iter().filter_map(visible).map(|(number, name)| (name, self.attributes(number)));
        Ok(StepOutcome::Entries(entries.collect()))
    }

    /// Ends a channel whose connection breaks: uploads are discarded, what was written in place stays.
    fn lose_connection(&mut self, channel: usize) {
        for handle in std::mem::take(&mut self.handles[channel]) {
            match handle.upload {
                Some(upload) => self.discard(upload),
                None => self.close_in_place(&handle),
            }
        }
    }
}
