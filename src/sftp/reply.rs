//! Answers as bytes (draft-ietf-secsh-filexfer-02 section 7), gathered into batches.

use bytes::Bytes;

use crate::domain::{Login, Time};
use crate::tree::{Entry, Space};

use super::attributes;
use super::error::{Error, Result, Status};
use super::request::{EXTENSIONS, HandleId};

/// How many bytes are gathered before they are sent.
pub(super) const BATCH: usize = 256 * 1024;
/// The longest NAME that is answered.
const MAX_NAMES: usize = 64 * 1024;

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// Answers, one after the other.
#[derive(Debug, Default)]
pub(super) struct Replies(Vec<u8>);

impl Replies {
    /// Tells whether enough is gathered to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= BATCH
    }

    /// Tells whether that much data still fits into the batch; into an empty one it always does.
    pub(super) fn has_room(&self, data: usize) -> bool {
        self.0.is_empty() || self.0.len() + data + 13 <= BATCH
    }

    /// Returns what was gathered.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// Answers the greeting: version 3 and the extensions.
    pub(super) fn version(&mut self) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, VERSION]);
        self.number(3);
        for (name, version) in EXTENSIONS {
            self.string(name.as_bytes());
            self.string(version.as_bytes());
        }
        self.finish(start);
    }

    /// Answers that all went well.
    pub(super) fn ok(&mut self, id: u32) {
        self.status(id, Status::Ok, "");
    }

    /// Answers a refusal.
    pub(super) fn refuse(&mut self, id: u32, error: &Error) {
        let (status, message) = error.status();
        self.status(id, status, &message);
    }

    fn status(&mut self, id: u32, status: Status, message: &str) {
        let start = self.begin(STATUS, id);
        self.number(status.code());
        self.string(message.as_bytes());
        self.string(b"");
        self.finish(start);
    }

    /// Answers an open file or folder.
    pub(super) fn handle(&mut self, id: u32, handle: HandleId) {
        let start = self.begin(HANDLE, id);
        self.string(&handle.0.to_be_bytes());
        self.finish(start);
    }

    /// Answers what `read` puts into a buffer of `length` bytes, without a copy in between.
    ///
    /// # Errors
    /// What `read` says, and [`Error::Eof`] when it reads nothing; nothing is answered then.
    pub(super) fn data(&mut self, id: u32, length: usize, read: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<()> {
        let start = self.begin(DATA, id);
        let data = start + 13;
        self.0.resize(data + length, 0);
        let found = match read(self.0.get_mut(data..).unwrap_or_default()) {
            Ok(0) => Err(Error::Eof),
            other => other,
        };
        match found {
            Ok(found) => {
                self.0.truncate(data + found);
                self.patch(data - 4, found);
                self.finish(start);
                Ok(())
            }
            Err(error) => {
                self.0.truncate(start);
                Err(error)
            }
        }
    }

    /// Answers attributes.
    pub(super) fn attributes(&mut self, id: u32, entry: &Entry) {
        let start = self.begin(ATTRS, id);
        attributes::encode(entry, &mut self.0);
        self.finish(start);
    }

    /// Answers one name without attributes.
    pub(super) fn name(&mut self, id: u32, name: &[u8]) {
        let start = self.begin(NAME, id);
        self.number(1);
        self.string(name);
        self.string(name);
        self.number(0);
        self.finish(start);
    }

    /// Begins an answer of names with attributes.
    pub(super) fn names<'a>(&'a mut self, id: u32, login: &'a Login, now: Time) -> Names<'a> {
        let start = self.begin(NAME, id);
        self.number(0);
        Names { replies: self, start, count: 0, login, now }
    }

    /// Answers `statvfs@openssh.com`.
    pub(super) fn space(&mut self, id: u32, space: &Space) {
        const NO_SET_ID: u64 = 2;
        let block = space.block.max(1);
        let start = self.begin(EXTENDED_REPLY, id);
        let fields = [
            block,
            block,
            space.total / block,
            space.free / block,
            space.available / block,
            space.files,
            space.files_free,
            space.files_free,
            0,
            NO_SET_ID,
            space.name_max,
        ];
        self.longs(&fields);
        self.finish(start);
    }

    /// Answers `limits@openssh.com`.
    pub(super) fn limits(&mut self, id: u32, limits: [u64; 4]) {
        let start = self.begin(EXTENDED_REPLY, id);
        self.longs(&limits);
        self.finish(start);
    }

    /// Answers `check-file-name` and `check-file-handle`.
    pub(super) fn hashes(&mut self, id: u32, algorithm: &str, hashes: &[u8]) {
        let start = self.begin(EXTENDED_REPLY, id);
        self.string(b"check-file");
        self.string(algorithm.as_bytes());
        self.0.extend_from_slice(hashes);
        self.finish(start);
    }

    /// Answers `users-groups-by-id@openssh.com`: a name for each number, empty where there is none.
    pub(super) fn owners(&mut self, id: u32, users: &[u8], groups: &[u8], login: &Login) {
        let start = self.begin(EXTENDED_REPLY, id);
        for numbers in [users, groups] {
            let list = self.0.len();
            self.number(0);
            for number in numbers.chunks_exact(4) {
                let shown = number == attributes::OWNER.to_be_bytes();
                self.string(if shown { login.as_str().as_bytes() } else { b"" });
            }
            self.patch(list, self.0.len() - list - 4);
        }
        self.finish(start);
    }

    fn begin(&mut self, kind: u8, id: u32) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, kind]);
        self.number(id);
        start
    }

    fn finish(&mut self, start: usize) {
        self.patch(start, self.0.len() - start - 4);
    }

    fn patch(&mut self, at: usize, value: usize) {
        // Every answer is far below 4 GiB.
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn longs(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_be_bytes()));
    }

    fn string(&mut self, text: &[u8]) {
        let at = self.0.len();
        self.number(0);
        self.0.extend_from_slice(text);
        self.patch(at, text.len());
    }
}

/// An answer of names under way.
pub(super) struct Names<'a> {
    replies: &'a mut Replies,
    start: usize,
    count: usize,
    login: &'a Login,
    now: Time,
}

impl Names<'_> {
    /// Tells whether another name might make it too long.
    pub(super) fn is_full(&self) -> bool {
        const LONGEST: usize = 2 * 255 + 256;
        self.replies.0.len() - self.start + LONGEST > MAX_NAMES
    }

    /// Adds an entry under a name.
    pub(super) fn push(&mut self, name: &[u8], entry: &Entry) {
        let replies = &mut *self.replies;
        replies.string(name);
        let long = replies.0.len();
        replies.number(0);
        attributes::long_name(entry, name, self.login, self.now, &mut replies.0);
        replies.patch(long, replies.0.len() - long - 4);
        attributes::encode(entry, &mut replies.0);
        self.count += 1;
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// [`Error::Eof`] when it has no names; nothing is answered then.
    pub(super) fn finish(self) -> Result<()> {
        if self.count == 0 {
            self.replies.0.truncate(self.start);
            return Err(Error::Eof);
        }
        self.replies.patch(self.start + 9, self.count);
        self.replies.finish(self.start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Permission;
    use crate::tree::{Kind, Timestamp};

    fn entry() -> Entry {
        Entry {
            name: b"n".to_vec(),
            kind: Kind::File,
            size: 3,
            modified: Timestamp::default(),
            accessed: Timestamp::default(),
            created: None,
            mode: 0o644,
            links: 1,
            etag: None,
            permission: Permission::R,
        }
    }

    #[test]
    fn a_short_read_answers_only_what_was_read() {
        let mut replies = Replies::default();
        replies
            .data(7, 10, |buffer| {
                buffer[..3].copy_from_slice(b"abc");
                Ok(3)
            })
            .expect("data");
        assert_eq!(&replies.0, b"\0\0\0\x0c\x67\0\0\0\x07\0\0\0\x03abc");
    }

    #[test]
    fn a_failed_read_leaves_nothing_behind() {
        let mut replies = Replies::default();
        replies.ok(1);
        let before = replies.0.clone();
        assert!(matches!(replies.data(2, 10, |_| Ok(0)), Err(Error::Eof)));
        assert!(matches!(replies.data(2, 10, |_| Err(Error::NoHandle)), Err(Error::NoHandle)));
        let login = "al".parse().expect("login");
        assert!(matches!(replies.names(3, &login, Time::from_millis(0)).finish(), Err(Error::Eof)));
        assert_eq!(replies.0, before);
    }

    #[test]
    fn names_stay_below_64_kib_and_are_counted() {
        let mut replies = Replies::default();
        let login = "al".parse().expect("login");
        let mut names = replies.names(3, &login, Time::from_millis(0));
        let mut pushed = 0u32;
        while !names.is_full() {
            names.push(&[b'x'; 255], &entry());
            pushed += 1;
        }
        names.finish().expect("names");
        assert!(replies.0.len() <= MAX_NAMES, "{}", replies.0.len());
        assert_eq!(replies.0[..4], u32::try_from(replies.0.len() - 4).expect("length").to_be_bytes());
        assert_eq!(replies.0[9..13], pushed.to_be_bytes());
    }

    #[test]
    fn unknown_owners_have_empty_names() {
        let mut replies = Replies::default();
        let numbers = [attributes::OWNER.to_be_bytes(), 0u32.to_be_bytes()].concat();
        replies.owners(1, &numbers, &[], &"al".parse().expect("login"));
        assert_eq!(&replies.0[9..], b"\0\0\0\x0a\0\0\0\x02al\0\0\0\0\0\0\0\0");
    }
}
