//! Encoding of replies (draft-ietf-secsh-filexfer-02 section 7), collected into batches.

use bytes::Bytes;

use crate::domain::{Login, UnixMillis};
use crate::tree::{Entry, FilesystemSpace};

use super::attributes;
use super::error::{Error, Result, SftpStatus};
use super::request::{EXTENSIONS, HandleId};

/// Size from which a batch is sent.
pub(super) const REPLY_BATCH_BYTES: usize = 256 * 1024;
/// Maximum size of a NAME reply.
const NAME_REPLY_MAX_BYTES: usize = 64 * 1024;

const SSH_FXP_VERSION: u8 = 2;
const SSH_FXP_STATUS: u8 = 101;
const SSH_FXP_HANDLE: u8 = 102;
const SSH_FXP_DATA: u8 = 103;
const SSH_FXP_NAME: u8 = 104;
const SSH_FXP_ATTRS: u8 = 105;
const SSH_FXP_EXTENDED_REPLY: u8 = 201;

/// Number of bytes of a DATA reply in front of its data: packet length, type, id and data length.
pub(super) const DATA_HEADER_BYTES: usize = 13;

/// Encoded replies, in the order of their requests.
#[derive(Debug, Default)]
pub(super) struct ReplyBatch(Vec<u8>);

impl ReplyBatch {
    /// Returns whether the batch is large enough to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= REPLY_BATCH_BYTES
    }

    /// Returns whether a DATA reply of `data` bytes fits into the batch; into an empty batch it always does.
    pub(super) fn fits_data(&self, data: usize) -> bool {
        self.0.is_empty() || self.0.len() + data + DATA_HEADER_BYTES <= REPLY_BATCH_BYTES
    }

    /// Returns the number of bytes of the encoded replies.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the encoded replies.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// Adds SSH_FXP_VERSION: version 3 and the extensions.
    pub(super) fn version(&mut self) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, SSH_FXP_VERSION]);
        // Version 3 for every client: those of a later version fall back to it, as OpenSSH offers no other.
        self.put_u32(3);
        for (name, version) in EXTENSIONS {
            self.put_string(name.as_bytes());
            self.put_string(version.as_bytes());
        }
        self.finish_reply(start);
    }

    /// Adds a STATUS of success.
    pub(super) fn ok(&mut self, id: u32) {
        self.status(id, SftpStatus::Ok, "");
    }

    /// Adds the STATUS of an error, and returns it.
    pub(super) fn error(&mut self, id: u32, error: &Error) -> SftpStatus {
        let (status, message) = error.status();
        self.status(id, status, &message);
        status
    }

    fn status(&mut self, id: u32, status: SftpStatus, message: &str) {
        let start = self.begin_reply(SSH_FXP_STATUS, id);
        self.put_u32(status.code());
        self.put_string(message.as_bytes());
        // The language tag, which the draft requires.
        self.put_string(b"");
        self.finish_reply(start);
    }

    /// Adds a HANDLE.
    pub(super) fn handle(&mut self, id: u32, handle: HandleId) {
        let start = self.begin_reply(SSH_FXP_HANDLE, id);
        self.put_string(&handle.0.to_be_bytes());
        self.finish_reply(start);
    }

    /// Adds a DATA reply with what `read` puts into a buffer of `length` bytes, without a copy in between.
    ///
    /// # Errors
    /// Those of `read`, and [`Error::Eof`] when it reads nothing; nothing is added then.
    pub(super) fn data(&mut self, id: u32, length: usize, read: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<()> {
        let start = self.begin_reply(SSH_FXP_DATA, id);
        let data = start + DATA_HEADER_BYTES;
        // The file is read right into the batch; the length field is patched when it is known.
        self.0.resize(data + length, 0);
        let result = match read(self.0.get_mut(data..).unwrap_or_default()) {
            Ok(0) => Err(Error::Eof),
            other => other,
        };
        match result {
            Ok(count) => {
                self.0.truncate(data + count);
                self.patch_u32(data - 4, count);
                self.finish_reply(start);
                Ok(())
            }
            Err(error) => {
                // With the header of a reply left behind, the client would lose its place in the stream.
                self.0.truncate(start);
                Err(error)
            }
        }
    }

    /// Adds an ATTRS reply.
    pub(super) fn attributes(&mut self, id: u32, entry: &Entry) {
        let start = self.begin_reply(SSH_FXP_ATTRS, id);
        attributes::encode_attributes(entry, &mut self.0);
        self.finish_reply(start);
    }

    /// Adds a NAME reply with one name and no attributes.
    pub(super) fn name(&mut self, id: u32, name: &[u8]) {
        let start = self.begin_reply(SSH_FXP_NAME, id);
        self.put_u32(1);
        // Name and long name; the attributes are empty, since clients ignore them here.
        self.put_string(name);
        self.put_string(name);
        self.put_u32(0);
        self.finish_reply(start);
    }

    /// Begins a NAME reply with attributes; the caller adds entries and finishes it.
    pub(super) fn names<'a>(&'a mut self, id: u32, login: &'a Login, now: UnixMillis) -> NameReply<'a> {
        let start = self.begin_reply(SSH_FXP_NAME, id);
        self.put_u32(0);
        NameReply { replies: self, start, count: 0, login, now }
    }

    /// Adds the reply to `statvfs@openssh.com` and `fstatvfs@openssh.com`.
    pub(super) fn statvfs(&mut self, id: u32, space: &FilesystemSpace) {
        // ST_NOSUID: the server never sets a set-user-ID bit.
        const NO_SET_ID: u64 = 2;
        let block = space.block_size.max(1);
        let start = self.begin_reply(SSH_FXP_EXTENDED_REPLY, id);
        // In the order of OpenSSH's PROTOCOL. The zero is the file system id, which would disclose the host's.
        let fields = [
            block,
            block,
            space.total / block,
            space.free / block,
            space.available / block,
            space.inodes,
            space.inodes_free,
            space.inodes_free,
            0,
            NO_SET_ID,
            space.name_max_bytes,
        ];
        self.put_u64s(&fields);
        self.finish_reply(start);
    }

    /// Adds the reply to `limits@openssh.com`: packet, read and write sizes in bytes, number of handles.
    pub(super) fn limits(&mut self, id: u32, limits: [u64; 4]) {
        let start = self.begin_reply(SSH_FXP_EXTENDED_REPLY, id);
        self.put_u64s(&limits);
        self.finish_reply(start);
    }

    /// Adds the reply to `check-file-name` and `check-file-handle`.
    pub(super) fn check_file(&mut self, id: u32, algorithm: &str, hashes: &[u8]) {
        let start = self.begin_reply(SSH_FXP_EXTENDED_REPLY, id);
        self.put_string(b"check-file");
        self.put_string(algorithm.as_bytes());
        self.0.extend_from_slice(hashes);
        self.finish_reply(start);
    }

    /// Adds the reply to `users-groups-by-id@openssh.com`: a name for each id, empty for unknown ids.
    pub(super) fn users_groups_by_id(&mut self, id: u32, users: &[u8], groups: &[u8], login: &Login) {
        let start = self.begin_reply(SSH_FXP_EXTENDED_REPLY, id);
        for numbers in [users, groups] {
            let list = self.0.len();
            self.put_u32(0);
            // All entries show the one user of the session; the names of the host's users are not disclosed.
            for number in numbers.chunks_exact(4) {
                let shown = number == attributes::SHOWN_OWNER_ID.to_be_bytes();
                self.put_string(if shown { login.as_str().as_bytes() } else { b"" });
            }
            self.patch_u32(list, self.0.len() - list - 4);
        }
        self.finish_reply(start);
    }

    fn begin_reply(&mut self, kind: u8, id: u32) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, kind]);
        self.put_u32(id);
        start
    }

    fn finish_reply(&mut self, start: usize) {
        self.patch_u32(start, self.0.len() - start - 4);
    }

    fn patch_u32(&mut self, at: usize, value: usize) {
        // Every reply is far below 4 GiB, so that the conversion never fails.
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    fn put_u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn put_u64s(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_be_bytes()));
    }

    fn put_string(&mut self, text: &[u8]) {
        let at = self.0.len();
        self.put_u32(0);
        self.0.extend_from_slice(text);
        self.patch_u32(at, text.len());
    }
}

/// A NAME reply to which entries are being added.
pub(super) struct NameReply<'a> {
    replies: &'a mut ReplyBatch,
    start: usize,
    count: usize,
    login: &'a Login,
    now: UnixMillis,
}

impl NameReply<'_> {
    /// Returns whether another entry might exceed the maximum size.
    pub(super) fn is_full(&self) -> bool {
        // A name of at most 255 bytes appears twice; lengths, attributes and the columns of `ls -l` take less than 256.
        const MAX_ENTRY_BYTES: usize = 2 * 255 + 256;
        self.replies.0.len() - self.start + MAX_ENTRY_BYTES > NAME_REPLY_MAX_BYTES
    }

    /// Returns whether no entry was added.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry under `name`, which differs from the entry's own for `.` and `..`.
    pub(super) fn push(&mut self, name: &[u8], entry: &Entry) {
        let replies = &mut *self.replies;
        replies.put_string(name);
        let longname = replies.0.len();
        replies.put_u32(0);
        attributes::write_longname(entry, name, self.login, self.now, &mut replies.0);
        replies.patch_u32(longname, replies.0.len() - longname - 4);
        attributes::encode_attributes(entry, &mut replies.0);
        self.count += 1;
    }

    /// Completes the reply.
    ///
    /// # Errors
    /// [`Error::Eof`] when it has no entries; nothing is added to the batch then.
    pub(super) fn finish(self) -> Result<()> {
        if self.count == 0 {
            // The end of a listing is a STATUS: clients would take a NAME without entries for more to come.
            self.replies.0.truncate(self.start);
            return Err(Error::Eof);
        }
        self.replies.patch_u32(self.start + 9, self.count);
        self.replies.finish_reply(self.start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Permission;
    use crate::tree::{EntryKind, Timestamp};

    fn entry() -> Entry {
        Entry {
            name: b"n".to_vec(),
            kind: EntryKind::File,
            size: 3,
            modified: Timestamp::default(),
            accessed: Timestamp::default(),
            created: None,
            mode: 0o644,
            link_count: 1,
            etag: None,
            permission: Permission::R,
        }
    }

    #[test]
    fn short_read_replies_with_bytes_read() {
        let mut replies = ReplyBatch::default();
        replies
            .data(7, 10, |buffer| {
                buffer[..3].copy_from_slice(b"abc");
                Ok(3)
            })
            .expect("data");
        assert_eq!(&replies.0, b"\0\0\0\x0c\x67\0\0\0\x07\0\0\0\x03abc");
    }

    #[test]
    fn failed_read_leaves_no_partial_reply() {
        let mut replies = ReplyBatch::default();
        replies.ok(1);
        let before = replies.0.clone();
        assert!(matches!(replies.data(2, 10, |_| Ok(0)), Err(Error::Eof)));
        assert!(matches!(replies.data(2, 10, |_| Err(Error::InvalidHandle)), Err(Error::InvalidHandle)));
        let login = "al".parse().expect("login");
        assert!(matches!(replies.names(3, &login, UnixMillis::from_millis(0)).finish(), Err(Error::Eof)));
        assert_eq!(replies.0, before);
    }

    #[test]
    fn name_reply_stays_below_64_kib_and_counts_entries() {
        let mut replies = ReplyBatch::default();
        let login = "al".parse().expect("login");
        let mut names = replies.names(3, &login, UnixMillis::from_millis(0));
        let mut pushed = 0u32;
        while !names.is_full() {
            names.push(&[b'x'; 255], &entry());
            pushed += 1;
        }
        names.finish().expect("names");
        assert!(replies.0.len() <= NAME_REPLY_MAX_BYTES, "{}", replies.0.len());
        assert_eq!(replies.0[..4], u32::try_from(replies.0.len() - 4).expect("length").to_be_bytes());
        assert_eq!(replies.0[9..13], pushed.to_be_bytes());
    }

    #[test]
    fn unknown_owners_have_empty_names() {
        let mut replies = ReplyBatch::default();
        let numbers = [attributes::SHOWN_OWNER_ID.to_be_bytes(), 0u32.to_be_bytes()].concat();
        replies.users_groups_by_id(1, &numbers, &[], &"al".parse().expect("login"));
        assert_eq!(&replies.0[9..], b"\0\0\0\x0a\0\0\0\x02al\0\0\0\0\0\0\0\0");
    }
}
