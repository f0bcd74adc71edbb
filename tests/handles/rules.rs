//! The rules by which patgate's open files differ from those of OpenSSH's sftp-server.

/// A difference between patgate and OpenSSH, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatgateRule {
    /// A file that is opened to be replaced is staged until its CLOSE, and shown to its own session alone: other
    /// clients never read half a file, and a connection that breaks leaves the old content.
    StagedUntilClose,
    /// An operation on a name that shows the session's own upload commits the upload first: the operation needs a file
    /// that everybody sees, such as the source of a rename.
    EarlyCommit,
    /// A second upload to the same name supersedes the first: each upload is a file of its own, and the name leads to
    /// one of them.
    Superseded,
    /// A directory into which an upload is under way can't be removed: the upload would have no place to go.
    BusyDirectory,
    /// A handle to a file that an upload has replaced can't change its content any more: its writes would be lost
    /// without notice.
    ReplacedFile,
    /// An upload of which a write was refused is not committed: it would have a gap.
    WriteFailedUpload,
    /// copy-data within one file is refused by the identity of the file; OpenSSH compares the names that were opened.
    SameFileCopy,
    /// Links that are absolute or lead out of the tree are not followed: the tree is all that a session may reach.
    LinksCannotEscape,
    /// A WebDAV lock binds SFTP clients too, also through handles that were open before.
    LocksApplyToSftp,
    /// A token that is limited to media types edits copies: a file of the wrong type must not be seen half written.
    EditsAreCopies,
    /// An upload may replace a file that is read-only for the server: a rename needs no permission on the file.
    ReplacesReadOnly,
    /// OPEN of a directory is refused: a handle to it could do nothing that one of OPENDIR can't.
    OpenDirectoryRefused,
    /// A plain RENAME replaces nothing. OpenSSH asks whether the new path leads somewhere when the old is no file, and
    /// so replaces a link that leads nowhere.
    RenameNeverReplaces,
    /// A hard link of a symbolic link is one of the file to which that leads, as POSIX allows: a second name of the
    /// link itself could lead out of the tree from where it is.
    HardLinkFollows,
}

impl PatgateRule {
    /// All rules, in the order of their numbers.
    pub(crate) const ALL: [PatgateRule; 14] = [
        PatgateRule::StagedUntilClose,
        PatgateRule::EarlyCommit,
        PatgateRule::Superseded,
        PatgateRule::BusyDirectory,
        PatgateRule::ReplacedFile,
        PatgateRule::WriteFailedUpload,
        PatgateRule::SameFileCopy,
        PatgateRule::LinksCannotEscape,
        PatgateRule::LocksApplyToSftp,
        PatgateRule::EditsAreCopies,
        PatgateRule::ReplacesReadOnly,
        PatgateRule::OpenDirectoryRefused,
        PatgateRule::RenameNeverReplaces,
        PatgateRule::HardLinkFollows,
    ];
}

/// A set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleSet(u16);

impl RuleSet {
    /// No rule: OpenSSH.
    pub(crate) const NONE: RuleSet = RuleSet(0);

    /// Every rule.
    pub(crate) fn all() -> Self {
        PatgateRule::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    pub(crate) fn has(self, rule: PatgateRule) -> bool {
        self.0 & Self::bit(rule) != 0
    }

    pub(crate) fn with(self, rule: PatgateRule) -> Self {
        Self(self.0 | Self::bit(rule))
    }

    pub(crate) fn without(self, rule: PatgateRule) -> Self {
        Self(self.0 & !Self::bit(rule))
    }

    fn bit(rule: PatgateRule) -> u16 {
        1 << rule as u16
    }
}
