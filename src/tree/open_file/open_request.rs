//! Parameters of an OPEN request.

use crate::tree::EditMode;

/// Parameters of an OPEN request: its `pflags` and attributes (draft-ietf-secsh-filexfer-02 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenRequest {
    /// Allow reading. A handle without `write` always allows reading.
    pub read: bool,
    /// Allow writing.
    pub write: bool,
    /// Append: every write goes to the end of the file, whatever its offset.
    pub append: bool,
    /// Create the file when it is missing.
    pub create: bool,
    /// Truncate the file to zero bytes.
    pub truncate: bool,
    /// With `create`: fail if the file exists.
    pub exclusive: bool,
    /// Permission bits for a file that is created.
    pub mode: Option<u32>,
    /// Length in bytes that the client announces, if any.
    pub size: Option<u64>,
}

impl OpenRequest {
    /// Tells whether the file is written as a whole, so that it can be staged until CLOSE.
    pub(super) fn replaces_whole_file(&self) -> bool {
        self.write && self.create && self.truncate && !self.exclusive && !self.append
    }

    /// Returns how the file is edited if it is not replaced as a whole.
    pub(super) fn edit_mode(&self) -> EditMode {
        EditMode {
            read: self.read || !self.write,
            create: self.create,
            exclusive: self.create && self.exclusive,
            truncate: self.truncate,
            append: self.append && self.write,
            mode: self.mode,
        }
    }
}
