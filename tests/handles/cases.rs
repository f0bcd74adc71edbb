//! Sequences written out by hand: one for every rule, and those that once failed.

use crate::rules::PatgateRule;
use crate::steps::{AttributeChange, ModelStep, OpenFlags, SftpRequest, WebDavRequest};

/// A sequence that is run against every server.
pub(crate) struct HandleCase {
    pub(crate) name: &'static str,
    /// The rule without which the model says something else.
    pub(crate) rule: Option<PatgateRule>,
    pub(crate) steps: fn() -> Vec<ModelStep>,
}

impl HandleCase {
    pub(crate) fn steps(&self) -> Vec<ModelStep> {
        (self.steps)()
    }
}

const READ: u32 = OpenFlags::READ;
const WRITE: u32 = OpenFlags::WRITE;
const READ_WRITE: u32 = READ | WRITE;
const UPLOAD: u32 = WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
const NEW: u32 = WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;

fn open(channel: usize, path: &str, flags: u32) -> ModelStep {
    open_with_mode(channel, path, flags, None)
}

fn open_with_mode(channel: usize, path: &str, flags: u32, mode: Option<u32>) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Open { path: path.to_owned(), flags: OpenFlags(flags), mode })
}

fn write(channel: usize, handle: usize, data: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Write { handle, offset: 0, data: data.to_owned() })
}

fn close(channel: usize, handle: usize) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Close { handle })
}

fn stat(channel: usize, path: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Stat { path: path.to_owned() })
}

fn set_handle(channel: usize, handle: usize, change: AttributeChange) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::HandleSetStat { handle, change })
}

fn handle_stat(channel: usize, handle: usize) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::HandleStat { handle })
}

fn set(channel: usize, path: &str, change: AttributeChange) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::SetStat { path: path.to_owned(), change })
}

fn rename(channel: usize, from: &str, to: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Rename { from: from.to_owned(), to: to.to_owned() })
}

fn posix_rename(channel: usize, from: &str, to: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::PosixRename { from: from.to_owned(), to: to.to_owned() })
}

fn hard_link(channel: usize, from: &str, to: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::HardLink { from: from.to_owned(), to: to.to_owned() })
}

fn symbolic_link(channel: usize, target: &str, path: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::SymbolicLink { target: target.to_owned(), path: path.to_owned() })
}

fn remove(channel: usize, path: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::Remove { path: path.to_owned() })
}

fn make_directory(channel: usize, path: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::MakeDirectory { path: path.to_owned(), mode: None })
}

fn remove_directory(channel: usize, path: &str) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::RemoveDirectory { path: path.to_owned() })
}

fn delete(path: &str) -> ModelStep {
    ModelStep::WebDav(WebDavRequest::Delete { path: path.to_owned() })
}

fn lock(path: &str) -> ModelStep {
    ModelStep::WebDav(WebDavRequest::Lock { path: path.to_owned(), deep: false })
}

const UNLOCK: ModelStep = ModelStep::WebDav(WebDavRequest::Unlock { lock: 0 });

fn size(size: u64) -> AttributeChange {
    AttributeChange { size: Some(size), ..AttributeChange::default() }
}

fn mode(mode: u32) -> AttributeChange {
    AttributeChange { mode: Some(mode), ..AttributeChange::default() }
}

fn modified(seconds: u32) -> AttributeChange {
    AttributeChange { modified: Some(seconds), ..AttributeChange::default() }
}

fn copy_data(channel: usize, from: usize, to: usize) -> ModelStep {
    ModelStep::Sftp(channel, SftpRequest::CopyData { from, offset: 0, length: 1, to, to_offset: 1 })
}

/// All cases. Channels 0 and 1 are of one session, 2 and 3 of others.
pub(crate) const CASES: &[HandleCase] = &[
    HandleCase {
        name: "an upload is shown to its own session alone",
        rule: Some(PatgateRule::StagedUntilClose),
        steps: || vec![open(0, "a", UPLOAD), stat(1, "a"), stat(2, "a"), close(0, 0), stat(2, "a")],
    },
    HandleCase {
        name: "a rename of an upload commits it",
        rule: Some(PatgateRule::EarlyCommit),
        steps: || vec![open(0, "a", UPLOAD), rename(0, "a", "b"), write(0, 0, "late"), close(0, 0)],
    },
    HandleCase {
        name: "a second upload to a name supersedes the first",
        rule: Some(PatgateRule::Superseded),
        steps: || {
            let begin = vec![open(0, "a", UPLOAD), open(1, "a", UPLOAD), write(1, 0, "second"), write(0, 0, "first")];
            [begin, vec![close(0, 0), close(1, 0)]].concat()
        },
    },
    HandleCase {
        name: "a directory with an upload in it can't be removed",
        rule: Some(PatgateRule::BusyDirectory),
        steps: || vec![make_directory(0, "d"), open(0, "d/a", UPLOAD), remove_directory(2, "d"), close(0, 0)],
    },
    HandleCase {
        name: "a file that was replaced by an upload takes no more writes",
        rule: Some(PatgateRule::ReplacedFile),
        steps: || vec![open(2, "a", NEW), open(0, "a", UPLOAD), close(0, 0), write(2, 0, "lost"), close(2, 0)],
    },
    HandleCase {
        name: "an upload with a refused write is not committed",
        rule: Some(PatgateRule::WriteFailedUpload),
        steps: || {
            let begin = vec![open(0, "a", NEW), close(0, 0), open(0, "a", UPLOAD)];
            [begin, vec![lock("a"), write(0, 0, "gone"), UNLOCK, close(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "copy-data between two names of one file is refused",
        rule: Some(PatgateRule::SameFileCopy),
        steps: || {
            let begin = vec![open(0, "a", NEW), write(0, 0, "data"), close(0, 0), hard_link(0, "a", "b")];
            [begin, vec![open(0, "a", READ), open(0, "b", READ_WRITE), copy_data(0, 1, 0)]].concat()
        },
    },
    HandleCase {
        name: "an absolute link can't be made",
        rule: Some(PatgateRule::LinksCannotEscape),
        steps: || vec![symbolic_link(0, "/absent/of/the/handles/test", "l"), remove(0, "l")],
    },
    HandleCase {
        name: "what comes with a size that a directory can't have is set",
        rule: None,
        steps: || {
            let change = AttributeChange { size: Some(0), mode: Some(0o700), modified: None };
            vec![make_directory(0, "d"), set(0, "d", change)]
        },
    },
    HandleCase {
        name: "a locked file can't be removed or written to",
        rule: Some(PatgateRule::LocksApplyToSftp),
        steps: || {
            let begin = vec![open(0, "a", NEW), lock("a"), write(0, 0, "no"), remove(0, "a")];
            [begin, vec![UNLOCK, write(0, 0, "yes"), remove(0, "a")]].concat()
        },
    },
    HandleCase {
        name: "an edit is seen by others when it is closed, where a token is limited to types",
        rule: Some(PatgateRule::EditsAreCopies),
        steps: || vec![open(0, "a", NEW), write(0, 0, "text"), stat(2, "a"), close(0, 0), stat(2, "a")],
    },
    HandleCase {
        name: "a file that is read-only for the server is replaced",
        rule: Some(PatgateRule::ReplacesReadOnly),
        steps: || vec![open_with_mode(0, "a", NEW, Some(0o444)), close(0, 0), open(0, "a", UPLOAD), close(0, 0)],
    },
    HandleCase {
        name: "a directory can't be opened as a file",
        rule: Some(PatgateRule::OpenDirectoryRefused),
        steps: || vec![make_directory(0, "d"), open(0, "d", READ)],
    },
    HandleCase {
        name: "a rename of a link replaces no link that leads nowhere",
        rule: Some(PatgateRule::RenameNeverReplaces),
        steps: || vec![symbolic_link(0, "a", "l"), symbolic_link(0, "c", "m"), rename(0, "l", "m")],
    },
    HandleCase {
        name: "a hard link of a link leads to the file",
        rule: Some(PatgateRule::HardLinkFollows),
        steps: || vec![open(0, "a", NEW), symbolic_link(0, "a", "l"), hard_link(0, "l", "b")],
    },
    HandleCase {
        name: "a time that was set after the last write stands after CLOSE",
        rule: None,
        steps: || {
            let set = set(1, "a", modified(900_000_000));
            vec![open(0, "a", NEW), set_handle(0, 0, size(0)), set, close(0, 0)]
        },
    },
    HandleCase {
        name: "an exclusive OPEN of a link that leads nowhere is refused, as of anything that exists",
        rule: None,
        steps: || vec![symbolic_link(0, "a", "l"), open(0, "l", NEW)],
    },
    HandleCase {
        name: "a handle to an upload without a name shows the mode that it had",
        rule: None,
        steps: || vec![open(0, "a", UPLOAD), open(1, "a", READ), remove(0, "a"), close(0, 0), handle_stat(1, 0)],
    },
    HandleCase {
        name: "an OPEN that creates a file and does not write leads to that file",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", OpenFlags::CREATE), handle_stat(0, 0), open(2, "a", WRITE)];
            [begin, vec![write(2, 0, "data"), close(2, 0), handle_stat(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "a refused FSETSTAT of a superseded upload does not fail its CLOSE",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", UPLOAD), open(1, "a", UPLOAD), set_handle(0, 0, modified(900_000_000))];
            [begin, vec![close(0, 0), close(1, 0)]].concat()
        },
    },
    HandleCase {
        name: "a handle whose name is gone does not write into a file that others see",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", UPLOAD), write(0, 0, "text"), hard_link(0, "a", "b"), remove(0, "a")];
            [begin, vec![write(0, 0, "more"), close(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "a handle to read shows the upload that it reads, and not a later copy",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", UPLOAD), open(0, "a", READ), rename(0, "a", "b"), write(0, 0, "text")];
            [begin, vec![handle_stat(0, 1)]].concat()
        },
    },
    HandleCase {
        name: "a handle to a copy that was closed unchanged shows the mode of the file",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", NEW), close(0, 0), open(0, "a", WRITE), open(1, "a", READ)];
            [begin, vec![close(0, 0), handle_stat(1, 0)]].concat()
        },
    },
    HandleCase {
        name: "a directory can be removed when the upload in it has lost its name",
        rule: None,
        steps: || {
            let begin = vec![make_directory(0, "d"), open(0, "d/a", UPLOAD), remove(0, "d/a")];
            [begin, vec![remove_directory(0, "d"), close(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "a copy that was made again is shown where it goes, and nowhere else",
        rule: None,
        steps: || {
            let begin = vec![make_directory(0, "d"), open(0, "a", UPLOAD), rename(0, "a", "d/a"), write(0, 0, "data")];
            [begin, vec![rename(2, "d/a", "a"), stat(0, "a"), close(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "an OPEN that creates a read-only file is let through, whoever serves",
        rule: None,
        steps: || {
            let flags = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
            vec![open_with_mode(0, "a", flags, Some(0o444)), handle_stat(0, 0), close(0, 0)]
        },
    },
    HandleCase {
        name: "a lock that has refused an upload does not bind what still reads it",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", UPLOAD), close(0, 0), open(0, "a", UPLOAD), lock("a"), open(0, "a", READ)];
            [begin, vec![close(0, 1), set_handle(0, 0, mode(0o644))]].concat()
        },
    },
    HandleCase {
        name: "a read-only file that was made is written after all of its names are gone",
        rule: None,
        steps: || {
            let flags = WRITE | OpenFlags::CREATE;
            let begin = vec![open_with_mode(0, "a", flags, Some(0o444)), hard_link(0, "a", "b")];
            [begin, vec![delete("a"), delete("b"), write(0, 0, "text"), close(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "a handle to a copy shows the mode of the file after the copy's own early commit",
        rule: None,
        steps: || {
            let begin = vec![open(0, "a", NEW), close(0, 0), open(1, "a", WRITE), open(0, "a", READ)];
            [begin, vec![posix_rename(0, "a", "b"), handle_stat(0, 0)]].concat()
        },
    },
    HandleCase {
        name: "an upload of a new name is taken back although its directory is locked",
        rule: None,
        steps: || vec![make_directory(0, "d"), open(0, "d/a", UPLOAD), lock("d"), remove(0, "d/a"), close(0, 0)],
    },
    HandleCase {
        name: "CLOSE of a superseded upload tells that a write was refused before",
        rule: None,
        steps: || {
            let begin = vec![open(2, "a", NEW), close(2, 0), open(0, "a", UPLOAD), lock("a"), write(0, 0, "text")];
            [begin, vec![UNLOCK, open(0, "a", UPLOAD), close(0, 0), close(0, 0)]].concat()
        },
    },
];
