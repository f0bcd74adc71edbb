//! File attributes: their encoding (draft-ietf-secsh-filexfer-02 section 5), changes that clients request, and the long
//! names of NAME replies in the format of `ls -l`.

use jiff::tz::TimeZone;

use crate::domain::{Login, UnixMillis};
use crate::tree::{AttributeChanges, Entry, EntryKind, Timestamp};

use super::error::{Error, Result};

/// User and group id of every entry: a session has one user, and the host's ids are not disclosed.
pub(super) const SHOWN_OWNER_ID: u32 = 1000;

/// Attributes that a client sends; absent ones stay unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SftpAttributes {
    /// Size in bytes.
    pub(super) size: Option<u64>,
    /// User and group id.
    pub(super) owner: Option<(u32, u32)>,
    /// Permission bits; clients may send file type bits with them.
    pub(super) mode: Option<u32>,
    /// Access and modification time, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
}

impl SftpAttributes {
    pub(super) const SIZE: u32 = 0x01;
    pub(super) const UIDGID: u32 = 0x02;
    pub(super) const PERMISSIONS: u32 = 0x04;
    pub(super) const ACMODTIME: u32 = 0x08;
    pub(super) const EXTENDED: u32 = 0x8000_0000;

    /// Sets the attributes one by one, continuing after an error, and returns the last error: as OpenSSH's server does,
    /// for clients that send owner, mode and times in one request.
    ///
    /// # Errors
    /// The last error of `set`; [`Error::OwnerChange`] when the owner would change.
    pub(super) fn apply(&self, mut set: impl FnMut(&AttributeChanges) -> Result<()>) -> Result<()> {
        let unchanged = AttributeChanges::default();
        let timestamp = |seconds: u32| Timestamp { seconds: i64::from(seconds), nanos: 0 };
        // Type bits are dropped, and so are set-user-ID, set-group-ID and sticky: never set by a client.
        let mode = self.mode.map(|mode| mode & 0o777);
        let times = self.times.map(|(accessed, modified)| (timestamp(accessed), timestamp(modified)));
        // The size first and the times last: truncating a file changes its modification time.
        let changes = [
            self.size.map(|size| AttributeChanges { size: Some(size), ..unchanged }),
            mode.map(|mode| AttributeChanges { mode: Some(mode), ..unchanged }),
            times.map(|(accessed, modified)| AttributeChanges {
                accessed: Some(accessed),
                modified: Some(modified),
                ..unchanged
            }),
        ];
        let mut result = Ok(());
        if changes.iter().all(Option::is_none) {
            // An empty request still reports whether the entry exists and may be changed.
            result = set(&unchanged);
        }
        for change in changes.iter().flatten() {
            if let Err(error) = set(change) {
                result = Err(error);
            }
        }
        // Only now: clients send owner, mode and times in one request (`cp -p`), and a foreign owner must not lose the
        // rest.
        if self.changes_owner() { Err(Error::OwnerChange) } else { result }
    }

    /// Returns whether user or group id differ from those shown; all ones means unchanged, as in chown(2).
    fn changes_owner(&self) -> bool {
        let differs = |id: u32| id != SHOWN_OWNER_ID && id != u32::MAX;
        self.owner.is_some_and(|(user, group)| differs(user) || differs(group))
    }

    /// Returns the permission bits for a file or directory that is created.
    pub(super) fn creation_mode(&self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o777)
    }
}

/// Appends the encoded attributes of an entry.
pub(super) fn encode_attributes(entry: &Entry, out: &mut Vec<u8>) {
    // Version 3 has 32 bits of whole seconds: earlier and later times are clamped.
    let seconds = |time: Timestamp| u32::try_from(time.seconds.max(0)).unwrap_or(u32::MAX);
    let fields = [SHOWN_OWNER_ID, SHOWN_OWNER_ID, type_bits(entry.kind) | entry.mode & 0o7777];
    out.extend_from_slice(
        &(SftpAttributes::SIZE | SftpAttributes::UIDGID | SftpAttributes::PERMISSIONS | SftpAttributes::ACMODTIME)
            .to_be_bytes(),
    );
    out.extend_from_slice(&entry.size.to_be_bytes());
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    out.extend_from_slice(&seconds(entry.accessed).to_be_bytes());
    out.extend_from_slice(&seconds(entry.modified).to_be_bytes());
}

fn type_bits(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::File => 0o100_000,
        EntryKind::Directory => 0o040_000,
        EntryKind::Symlink => 0o120_000,
    }
}

/// Appends an entry in the format of `ls -l`, in UTC: with the time if it is recent, else with the year.
pub(super) fn write_longname(entry: &Entry, name: &[u8], login: &Login, now: UnixMillis, out: &mut Vec<u8>) {
    use std::io::Write;
    out.push(match entry.kind {
        EntryKind::File => b'-',
        EntryKind::Directory => b'd',
        EntryKind::Symlink => b'l',
    });
    // Some clients parse these columns instead of the attributes: keep to the format of `ls -l`.
    for bit in (0..9).rev() {
        let set = entry.mode >> bit & 1 == 1;
        out.push(if set { b"xwr"[bit % 3] } else { b'-' });
    }
    let login = login.as_str();
    let date = format_ls_date(entry.modified.seconds, now.as_millis() / 1000);
    // Writing into a `Vec` does not fail.
    let _ = write!(out, " {:>3} {login:<8} {login:<8} {:>8} {date} ", entry.link_count, entry.size);
    out.extend_from_slice(name);
}

fn format_ls_date(seconds: i64, now: i64) -> String {
    const HALF_A_YEAR: i64 = 365 * 86_400 / 2;
    let Ok(time) = jiff::Timestamp::from_second(seconds) else { return "Jan  1  1970".to_owned() };
    let time = time.to_zoned(TimeZone::UTC);
    // As `ls`: a time in the future is not recent.
    let recent = (now - HALF_A_YEAR..=now).contains(&seconds);
    time.strftime(if recent { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Permission;

    fn entry(kind: EntryKind, mode: u32, seconds: i64) -> Entry {
        Entry {
            name: b"x".to_vec(),
            kind,
            size: 4096,
            modified: Timestamp { seconds, nanos: 5 },
            accessed: Timestamp { seconds: -1, nanos: 0 },
            created: None,
            mode,
            link_count: 2,
            etag: None,
            permission: Permission::RW,
        }
    }

    fn longname(entry: &Entry, name: &[u8]) -> String {
        let mut out = Vec::new();
        let now = UnixMillis::from_millis(1_777_968_000_000);
        write_longname(entry, name, &"al".parse().expect("login"), now, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn longname_matches_ls_output() {
        let recent = entry(EntryKind::Directory, 0o755, 1_777_968_000 - 3600);
        assert_eq!(longname(&recent, b"a b"), "drwxr-xr-x   2 al       al           4096 May  5 07:00 a b");
        let old = entry(EntryKind::File, 0o640, 981_173_106);
        assert_eq!(longname(&old, b"\xff"), "-rw-r-----   2 al       al           4096 Feb  3  2001 \u{fffd}");
        let future = entry(EntryKind::Symlink, 0o777, 1_777_968_000 + 86_400);
        assert_eq!(longname(&future, b"l"), "lrwxrwxrwx   2 al       al           4096 May  6  2026 l");
    }

    #[test]
    fn attributes_contain_type_bits_and_whole_seconds() {
        let mut out = Vec::new();
        encode_attributes(&entry(EntryKind::Directory, 0o750, 1_000_000_000), &mut out);
        let expected = [
            &0x0fu32.to_be_bytes()[..],
            &4096u64.to_be_bytes(),
            &SHOWN_OWNER_ID.to_be_bytes(),
            &SHOWN_OWNER_ID.to_be_bytes(),
            &0o040_750u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &1_000_000_000u32.to_be_bytes(),
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn unchanged_owner_is_accepted_and_other_attributes_are_set() {
        let outcome = |owner, times| {
            let change =
                SftpAttributes { owner: Some(owner), mode: Some(0o106_644), times, ..SftpAttributes::default() };
            let mut set = Vec::new();
            let result = change.apply(|attributes| {
                set.push((attributes.mode, attributes.modified.map(|time| time.seconds)));
                Ok(())
            });
            (result.is_ok(), set)
        };
        for owner in [
            (SHOWN_OWNER_ID, SHOWN_OWNER_ID),
            (u32::MAX, SHOWN_OWNER_ID),
            (SHOWN_OWNER_ID, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(outcome(owner, None), (true, vec![(Some(0o644), None)]));
        }
        let all = vec![(Some(0o644), None), (None, Some(7))];
        assert_eq!(outcome((0, SHOWN_OWNER_ID), Some((5, 7))), (false, all));
        assert_eq!(SftpAttributes { mode: Some(0o100_666), ..SftpAttributes::default() }.creation_mode(), Some(0o666));
    }

    #[test]
    fn last_refused_attribute_determines_status() {
        let change = SftpAttributes { size: Some(1), mode: Some(0o600), ..SftpAttributes::default() };
        let refused =
            change.apply(|attributes| if attributes.size.is_some() { Err(Error::WrongHandleKind) } else { Ok(()) });
        assert!(matches!(refused, Err(Error::WrongHandleKind)));
    }
}
