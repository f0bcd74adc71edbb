//! Fingerprints of the members of sync journals, kept in memory between the reports of a client, so that the next one
//! compares a directory without reading the journal from the store.
//!
//! Each member is two hashes under a random key of the process: of its path, and of the state that the journal has of it.
//! A report looks at every member again; only those whose hashes differ are looked up in the journal. Where there are no
//! fingerprints, as after a restart, they are made of the journal, which is read once for that.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Entry, EntryKind, Timestamp};
use crate::domain::{Login, UnixMillis, UserQuotaLimits};
use crate::store::{self, Store};

/// Maximum size of the fingerprints, in bytes. At a bound those that were used least recently are dropped, and those
/// of a directory that exceeds it by itself are made anew for each report.
const FINGERPRINT_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 64 << 20, total: 256 << 20 };
/// Time without a report after which fingerprints are dropped.
const FINGERPRINT_IDLE_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Size of a slot of the hash map: two hashes and a byte of its own, with the slots that stay free.
const FINGERPRINT_BYTES: u64 = 20;

/// Hashes of the members of a directory: that of the state by that of the path.
#[derive(Default)]
pub(super) struct SyncFingerprints(HashMap<u64, u64, BuildHasherDefault<PathHashHasher>>);

/// Hash of a path, which is a hash already.
#[derive(Default)]
struct PathHashHasher(u64);

impl Hasher for PathHashHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for hashes of paths, but a hasher has to take any bytes.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl SyncFingerprints {
    /// Creates an empty set with room for a number of members.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(count, BuildHasherDefault::default()))
    }

    /// Returns the hash of the state of the member whose path has a hash.
    pub(super) fn state_of(&self, path: u64) -> Option<u64> {
        self.0.get(&path).copied()
    }

    /// Adds a member; returns false, and keeps its first state, where it is there already.
    pub(super) fn insert(&mut self, path: u64, state: u64) -> bool {
        match self.0.entry(path) {
            Slot::Vacant(slot) => {
                slot.insert(state);
                true
            }
            Slot::Occupied(_) => false,
        }
    }

    /// Sets the state of a member, or removes it where it has none.
    fn set(&mut self, path: u64, state: Option<u64>) {
        match state {
            Some(state) => drop(self.0.insert(path, state)),
            None => drop(self.0.remove(&path)),
        }
    }

    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> u64 {
        self.0.capacity() as u64 * FINGERPRINT_BYTES
    }
}

/// Fingerprints of the journals of all users.
#[derive(Default)]
pub(super) struct SyncFingerprintCache {
    key: RandomState,
    by_journal: Mutex<HashMap<i64, CachedFingerprints>>,
}

struct CachedFingerprints {
    login: Login,
    used: UnixMillis,
    fingerprints: SyncFingerprints,
}

impl SyncFingerprintCache {
    /// Returns the hash of a path.
    pub(super) fn hash_path(&self, path: &[u8]) -> u64 {
        self.key.hash_one(path)
    }

    /// Returns the hash of the state of a member.
    pub(super) fn hash_state(&self, entry: &Entry) -> u64 {
        match entry.etag {
            // As `member_state`, without an allocation.
            Some(etag) => self.key.hash_one(etag.to_bytes().as_slice()),
            None => self.key.hash_one(member_state(entry).as_slice()),
        }
    }

    /// Returns the fingerprints of the members that a journal has: those that were kept, or those of the journal in the
    /// store. They are taken out, so that a comparison that fails leaves none. The caller holds the lock of the journal.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn take_or_read(&self, journal: i64, store: &Store) -> store::Result<SyncFingerprints> {
        if let Some(known) = self.take(journal) {
            return Ok(known);
        }
        let mut known = SyncFingerprints::default();
        store.visit_sync_members(journal, |path, content_tag| {
            known.set(self.hash_path(path), content_tag.map(|tag| self.key.hash_one(tag)));
        })?;
        Ok(known)
    }

    /// Takes the fingerprints of a journal that were kept.
    pub(super) fn take(&self, journal: i64) -> Option<SyncFingerprints> {
        self.by_journal.lock().remove(&journal).map(|cached| cached.fingerprints)
    }

    /// Keeps the fingerprints of a journal, which belongs to a token of a user.
    pub(super) fn put(&self, journal: i64, login: &Login, fingerprints: SyncFingerprints, now: UnixMillis) {
        let UserQuotaLimits { per_user, total } = FINGERPRINT_LIMITS;
        let bytes = fingerprints.bytes();
        let mut by_journal = self.by_journal.lock();
        let idle_since = now.saturating_sub(FINGERPRINT_IDLE_LIFETIME);
        by_journal.retain(|id, cached| *id != journal && cached.used > idle_since);
        if bytes > per_user {
            return;
        }
        while user_bytes(&by_journal, Some(login)) + bytes > per_user {
            remove_oldest(&mut by_journal, Some(login));
        }
        while user_bytes(&by_journal, None) + bytes > total {
            remove_oldest(&mut by_journal, None);
        }
        by_journal.insert(journal, CachedFingerprints { login: login.clone(), used: now, fingerprints });
    }
}

/// Returns bytes that differ between two states of a member: of a file the entity tag, or kind, times and size where it
/// can't be read; of a directory its birth time. The forms have different lengths.
pub(super) fn member_state(entry: &Entry) -> Vec<u8> {
    let time = |time: Timestamp| [&time.seconds.to_be_bytes()[..], &time.nanos.to_be_bytes()].concat();
    // Not the times of a directory: they change with its members, which are reported themselves.
    match (entry.etag, entry.kind) {
        (Some(etag), _) => etag.to_bytes().to_vec(),
        (None, EntryKind::Directory) => entry.created.map_or_else(|| vec![0], time),
        (None, EntryKind::File | EntryKind::Symlink) => {
            let created = time(entry.created.unwrap_or_default());
            [&[1][..], &created, &time(entry.modified), &entry.size.to_be_bytes()].concat()
        }
    }
}

/// Returns the size of the fingerprints of a user, or of all.
fn user_bytes(by_journal: &HashMap<i64, CachedFingerprints>, login: Option<&Login>) -> u64 {
    let of_user = by_journal.values().filter(|cached| login.is_none_or(|login| cached.login == *login));
    of_user.map(|cached| cached.fingerprints.bytes()).sum()
}

/// Removes the fingerprints of a user, or of all, that were used least recently.
fn remove_oldest(by_journal: &mut HashMap<i64, CachedFingerprints>, login: Option<&Login>) {
    let of_user = by_journal.iter().filter(|(_, cached)| login.is_none_or(|login| cached.login == *login));
    let oldest = of_user.min_by_key(|(_, cached)| cached.used).map(|(journal, _)| *journal);
    if let Some(oldest) = oldest {
        by_journal.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{login, now};

    fn fingerprints(count: usize) -> SyncFingerprints {
        SyncFingerprints::with_capacity(count)
    }

    #[test]
    fn fingerprints_are_bounded_by_user_and_in_all_and_dropped_when_idle() {
        let cache = SyncFingerprintCache::default();
        let is_kept = |journal: i64| cache.by_journal.lock().contains_key(&journal);
        let later = |seconds: u64| now().saturating_add(Duration::from_secs(seconds));
        // Each takes more than half of what a user may have.
        for (journal, seconds) in [(1, 2), (2, 1), (3, 3), (4, 4)] {
            cache.put(journal, &login("alice"), fingerprints(1_000_000), later(seconds));
        }
        assert_eq!([1, 2, 3, 4].map(is_kept), [false, false, false, true]);
        cache.put(5, &login("alice"), fingerprints(4_000_000), later(5));
        assert_eq!([4, 5].map(is_kept), [true, false], "too large by itself");
        for (journal, name) in (10..).zip(["bob", "carol", "dave", "erin", "frank", "grace", "heidi"]) {
            cache.put(journal, &login(name), fingerprints(1_000_000), later(10));
        }
        assert!(!is_kept(4), "the oldest of all");
        assert!(user_bytes(&cache.by_journal.lock(), None) <= FINGERPRINT_LIMITS.total);
        cache.put(20, &login("alice"), fingerprints(1), later(10 + 15 * 60));
        assert_eq!(cache.by_journal.lock().len(), 1, "the others were not used");
        assert!(cache.take(20).is_some() && cache.take(20).is_none());
    }
}
