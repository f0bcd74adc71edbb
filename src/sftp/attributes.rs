//! Attributes as bytes (draft-ietf-secsh-filexfer-02 section 5) and as the line that `ls -l` prints.

use jiff::tz::TimeZone;

use crate::domain::{Login, Time};
use crate::tree::{Attributes, Entry, Kind, Timestamp};

use super::error::{Error, Result};

/// The owner and group that everything shows: sessions have one user, and hosts' numbers are nobody's business.
pub(super) const OWNER: u32 = 1000;

/// What a client wants attributes to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Owner and group.
    pub(super) owner: Option<(u32, u32)>,
    /// Mode, perhaps with type bits.
    pub(super) mode: Option<u32>,
    /// The last read and the last change, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
}

impl Change {
    pub(super) const SIZE: u32 = 0x01;
    pub(super) const OWNER: u32 = 0x02;
    pub(super) const MODE: u32 = 0x04;
    pub(super) const TIMES: u32 = 0x08;
    pub(super) const EXTENDED: u32 = 0x8000_0000;

    /// Returns what the tree is to set.
    ///
    /// # Errors
    /// [`Error::Owner`] when it wants another owner than is shown.
    pub(super) fn attributes(&self) -> Result<Attributes> {
        if self.owner.is_some_and(|owner| owner != (OWNER, OWNER)) {
            return Err(Error::Owner);
        }
        let at = |seconds: u32| Timestamp { seconds: i64::from(seconds), nanos: 0 };
        Ok(Attributes {
            mode: self.mode.map(|mode| mode & 0o777),
            modified: self.times.map(|(_, modified)| at(modified)),
            accessed: self.times.map(|(accessed, _)| at(accessed)),
            size: self.size,
        })
    }

    /// Returns the permission bits for something that is made.
    pub(super) fn new_mode(&self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o777)
    }
}

/// Writes the attributes of an entry.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let seconds = |time: Timestamp| u32::try_from(time.seconds.max(0)).unwrap_or(u32::MAX);
    let fields = [OWNER, OWNER, type_bits(entry.kind) | entry.mode & 0o7777];
    out.extend_from_slice(&(Change::SIZE | Change::OWNER | Change::MODE | Change::TIMES).to_be_bytes());
    out.extend_from_slice(&entry.size.to_be_bytes());
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    out.extend_from_slice(&seconds(entry.accessed).to_be_bytes());
    out.extend_from_slice(&seconds(entry.modified).to_be_bytes());
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Folder => 0o040_000,
        Kind::Link => 0o120_000,
    }
}

/// Writes an entry as `ls -l` does, in UTC; recent times with the hour, others with the year.
pub(super) fn long_name(entry: &Entry, name: &[u8], login: &Login, now: Time, out: &mut Vec<u8>) {
    use std::io::Write;
    out.push(match entry.kind {
        Kind::File => b'-',
        Kind::Folder => b'd',
        Kind::Link => b'l',
    });
    for bit in (0..9).rev() {
        let set = entry.mode >> bit & 1 == 1;
        out.push(if set { b"xwr"[bit % 3] } else { b'-' });
    }
    let login = login.as_str();
    let date = date(entry.modified.seconds, now.as_millis() / 1000);
    // Writing into memory does not fail.
    let _ = write!(out, " {:>3} {login:<8} {login:<8} {:>8} {date} ", entry.links, entry.size);
    out.extend_from_slice(name);
}

fn date(seconds: i64, now: i64) -> String {
    const HALF_A_YEAR: i64 = 365 * 86_400 / 2;
    let Ok(time) = jiff::Timestamp::from_second(seconds) else { return "Jan  1  1970".to_owned() };
    let time = time.to_zoned(TimeZone::UTC);
    let recent = (now - HALF_A_YEAR..=now).contains(&seconds);
    time.strftime(if recent { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Permission;

    fn entry(kind: Kind, mode: u32, seconds: i64) -> Entry {
        Entry {
            name: b"x".to_vec(),
            kind,
            size: 4096,
            modified: Timestamp { seconds, nanos: 5 },
            accessed: Timestamp { seconds: -1, nanos: 0 },
            created: None,
            mode,
            links: 2,
            etag: None,
            permission: Permission::RW,
        }
    }

    fn line(entry: &Entry, name: &[u8]) -> String {
        let mut out = Vec::new();
        let now = Time::from_millis(1_777_968_000_000);
        long_name(entry, name, &"al".parse().expect("login"), now, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_long_name_reads_as_ls_prints_it() {
        let recent = entry(Kind::Folder, 0o755, 1_777_968_000 - 3600);
        assert_eq!(line(&recent, b"a b"), "drwxr-xr-x   2 al       al           4096 May  5 07:00 a b");
        let old = entry(Kind::File, 0o640, 981_173_106);
        assert_eq!(line(&old, b"\xff"), "-rw-r-----   2 al       al           4096 Feb  3  2001 \u{fffd}");
        let future = entry(Kind::Link, 0o777, 1_777_968_000 + 86_400);
        assert_eq!(line(&future, b"l"), "lrwxrwxrwx   2 al       al           4096 May  6  2026 l");
    }

    #[test]
    fn attributes_carry_type_bits_and_whole_seconds() {
        let mut out = Vec::new();
        encode(&entry(Kind::Folder, 0o750, 1_000_000_000), &mut out);
        let wanted = [
            &0x0fu32.to_be_bytes()[..],
            &4096u64.to_be_bytes(),
            &OWNER.to_be_bytes(),
            &OWNER.to_be_bytes(),
            &0o040_750u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &1_000_000_000u32.to_be_bytes(),
        ];
        assert_eq!(out, wanted.concat());
    }

    #[test]
    fn owners_can_be_confirmed_but_not_changed() {
        let same = Change { owner: Some((OWNER, OWNER)), mode: Some(0o106_644), ..Change::default() };
        assert_eq!(same.attributes().expect("same").mode, Some(0o644));
        let other = Change { owner: Some((0, OWNER)), ..Change::default() };
        assert!(matches!(other.attributes(), Err(Error::Owner)));
        assert_eq!(Change { mode: Some(0o100_666), ..Change::default() }.new_mode(), Some(0o666));
    }
}
