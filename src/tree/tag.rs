//! Entity tags, and the clock that gives every change of content its own.
//!
//! What tells two contents of one file apart is kept where every file system keeps something: in the
//! nanoseconds of the file's modification time. A *mark* is those nanoseconds shifted by a hash of the
//! seconds. A commit sets a time whose mark no other commit had; setting a time through the gateway
//! chooses the nanoseconds so that the mark stays. So a tag changes with the content, also within one
//! tick of the host's clock, and with nothing else; and a change behind the gateway's back, which
//! moves the time as it likes, changes it too.
//!
//! While a file is open to be written in place, the writes so far are counted in; when it is closed
//! it gets a mark of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use super::host::Stat;
use super::{Etag, Timestamp};

const SECOND: i64 = 1_000_000_000;

/// Makes the tags of one tree.
pub(super) struct Tags {
    key: [u8; 32],
    last: AtomicI64,
    writes: AtomicU64,
    open: AtomicUsize,
    edited: RwLock<HashMap<Place, Edited>>,
}

/// A file of the host, by device and inode.
type Place = (u64, u64);

struct Edited {
    editors: usize,
    writes: Arc<AtomicU64>,
}

impl Tags {
    /// Makes the tags of a tree by its secret key.
    pub(super) fn new(key: [u8; 32]) -> Arc<Self> {
        let (last, writes, open) = (AtomicI64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { key, last, writes, open, edited: RwLock::default() })
    }

    /// Returns the tag of a file's content as it is now.
    pub(super) fn of(&self, stat: &Stat) -> Etag {
        let mut facts = [0; 40];
        let parts =
            [stat.inode, stat.born().unwrap_or(0).cast_unsigned(), stat.size, mark(stat.modified), self.writes(stat)];
        for (place, part) in facts.chunks_exact_mut(8).zip(parts) {
            place.copy_from_slice(&part.to_le_bytes());
        }
        let hash = blake3::keyed_hash(&self.key, &facts);
        let (high, low) = hash.as_bytes()[..16].split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Etag(number(high), number(low))
    }

    /// Returns a time with a mark of its own: the present, or at the seconds of one that was asked for.
    pub(super) fn fresh(&self, wanted: Option<Timestamp>) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let bump = |last: i64| Some(now.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, bump).unwrap_or_default();
        let time = at(now.max(last.saturating_add(1)));
        wanted.map_or(time, |wanted| keep(time, wanted))
    }

    /// Begins an edit in place of a file.
    pub(super) fn edit(self: &Arc<Self>, stat: &Stat) -> Edit {
        let place = (stat.device, stat.inode);
        let mut edited = self.edited.write();
        let file = edited.entry(place).or_insert_with(|| Edited { editors: 0, writes: Arc::default() });
        file.editors += 1;
        self.open.store(edited.len(), Ordering::Release);
        let writes = edited.get(&place).map(|file| Arc::clone(&file.writes)).unwrap_or_default();
        Edit { tags: Arc::clone(self), place, writes }
    }

    fn writes(&self, stat: &Stat) -> u64 {
        if self.open.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let edited = self.edited.read();
        edited.get(&(stat.device, stat.inode)).map_or(0, |file| file.writes.load(Ordering::Acquire))
    }
}

/// An edit in place that is under way; ends when it is dropped.
pub(super) struct Edit {
    tags: Arc<Tags>,
    place: Place,
    writes: Arc<AtomicU64>,
}

impl Edit {
    /// Notes that the content changed.
    pub(super) fn wrote(&self) {
        let number = self.tags.writes.fetch_add(1, Ordering::AcqRel);
        self.writes.store(number.saturating_add(1), Ordering::Release);
    }
}

impl Drop for Edit {
    fn drop(&mut self) {
        let mut edited = self.tags.edited.write();
        if let Some(file) = edited.get_mut(&self.place) {
            file.editors -= 1;
            if file.editors == 0 {
                edited.remove(&self.place);
            }
        }
        self.tags.open.store(edited.len(), Ordering::Release);
    }
}

/// Returns the time at the seconds of `wanted` that has the mark of `now`.
pub(super) fn keep(now: Timestamp, wanted: Timestamp) -> Timestamp {
    let second = SECOND.cast_unsigned();
    let nanos = (mark(now) + second - shift(wanted.seconds)) % second;
    Timestamp { seconds: wanted.seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

fn mark(time: Timestamp) -> u64 {
    (u64::from(time.nanos) + shift(time.seconds)) % SECOND.cast_unsigned()
}

/// Spreads seconds over a second (the finaliser of SplitMix64).
fn shift(seconds: i64) -> u64 {
    let mut z = seconds.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % SECOND.cast_unsigned()
}

fn at(nanos: i64) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(SECOND), nanos: u32::try_from(nanos.rem_euclid(SECOND)).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(modified: Timestamp) -> Stat {
        Stat {
            kind: Some(crate::tree::Kind::File),
            inode: 7,
            device: 1,
            mount: 1,
            created: None,
            changed: modified,
            modified,
            accessed: Timestamp::default(),
            size: 3,
            mode: 0o644,
            links: 1,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn every_fresh_time_makes_another_tag_also_at_the_same_second() {
        let tags = Tags::new([1; 32]);
        let asked = Timestamp { seconds: -5, nanos: 0 };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(tags.of(&stat(tags.fresh(None)))));
            let kept = tags.fresh(Some(asked));
            assert_eq!(kept.seconds, -5);
            assert!(seen.insert(tags.of(&stat(kept))));
        }
    }

    #[test]
    fn a_time_that_is_set_keeps_the_tag_and_one_that_moves_by_itself_does_not() {
        let tags = Tags::new([1; 32]);
        let time = tags.fresh(None);
        for seconds in [0, -1, 1, 1_000_000_000, i64::MIN, i64::MAX] {
            let set = keep(time, Timestamp { seconds, nanos: 5 });
            assert_eq!((set.seconds, tags.of(&stat(set))), (seconds, tags.of(&stat(time))));
        }
        let touched = Timestamp { seconds: time.seconds + 1, ..time };
        assert_ne!(tags.of(&stat(touched)), tags.of(&stat(time)));
    }

    #[test]
    fn writes_in_place_change_the_tag_until_the_last_editor_ends() {
        let tags = Tags::new([1; 32]);
        let file = stat(Timestamp::default());
        let before = tags.of(&file);
        let (one, two) = (tags.edit(&file), tags.edit(&file));
        assert_eq!(tags.of(&file), before);
        one.wrote();
        let first = tags.of(&file);
        two.wrote();
        assert!(first != before && tags.of(&file) != first);
        drop(one);
        assert_ne!(tags.of(&file), before);
        drop(two);
        assert_eq!(tags.of(&file), before);
    }
}
