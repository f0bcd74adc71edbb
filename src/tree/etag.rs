//! Entity tags, and the clock that gives every version of a content its own.
//!
//! The version of a content is kept where every file system has room for it: in the nanoseconds of the
//! file's modification time. A *mark* is those nanoseconds shifted by a hash of the seconds. A commit sets a
//! time whose mark no other commit had; setting a time through the gateway chooses the nanoseconds so that the
//! mark stays. So an ETag changes with the content, also within one tick of the kernel's clock, and with nothing
//! else; a change beside the gateway, which sets an arbitrary time, changes it too. If a file system truncates
//! nanoseconds, the store keeps them ([`super::fine_times`]).
//!
//! While a file is open for writing in place, its ETag includes the number of the last write. When a handle that writes
//! is closed, and when the file is locked, the content gets a new mark ([`EditGuard::settle`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use super::fine_times::FineTimes;
use super::fs::{FileFd, Stat};
use super::{Error, Etag, Result, Timestamp};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Computes the ETags of one tree.
pub(super) struct EtagTracker {
    key: [u8; 32],
    fine_times: Option<FineTimes>,
    last_nanos: AtomicI64,
    write_counter: AtomicU64,
    edited_count: AtomicUsize,
    edited_files: RwLock<HashMap<InodeKey, (usize, Arc<EditedFile>)>>,
}

/// Device and inode of a file.
type InodeKey = (u64, u64);

/// A file that is open for writing in place, by any number of handles.
struct EditedFile {
    file: Arc<FileFd>,
    /// Number of the last write since the content got a new mark; zero for none.
    last_write: AtomicU64,
    /// Held shared while content is changed, and exclusively while its mark is settled.
    settle_lock: RwLock<()>,
    /// Whether an upload has replaced its last name, so that further writes would be lost.
    replaced: AtomicBool,
}

impl EtagTracker {
    /// Creates the tracker with the secret key of a tree; `fine_times` has the nanoseconds that its file systems
    /// truncate.
    pub(super) fn new(key: [u8; 32], fine_times: Option<FineTimes>) -> Arc<Self> {
        let (last_nanos, edited_count) = (AtomicI64::new(0), AtomicUsize::new(0));
        // Starts at the current time, so that no write number that a client has seen in an ETag recurs after a restart.
        let write_counter = AtomicU64::new(now().max(0).cast_unsigned());
        Arc::new(Self { key, fine_times, last_nanos, write_counter, edited_count, edited_files: RwLock::default() })
    }

    /// Returns the ETag of the current content of a file.
    pub(super) fn etag_of(&self, stat: &Stat) -> Etag {
        let mut input = [0; 48];
        // If the store fails, the content gets a one-time ETag: reading it twice is better than confusing two contents.
        let (modified, unknown) = match self.modified_time(stat) {
            Ok(modified) => (modified, 0),
            Err(_) => (stat.modified, self.write_counter.fetch_add(1, Ordering::AcqRel).saturating_add(1)),
        };
        let birth_time = stat.birth_time().unwrap_or(0).cast_unsigned();
        let values = [stat.inode, birth_time, stat.size, mark_of(modified), self.last_write(stat), unknown];
        for (bytes, value) in input.chunks_exact_mut(8).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        // The one-time number is hashed only if set: the other 40 bytes are those of older releases, whose ETags stay.
        let hash = blake3::keyed_hash(&self.key, if unknown == 0 { &input[..40] } else { &input });
        let (high, low) = hash.as_bytes()[..16].split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Etag(number(high), number(low))
    }

    /// Returns a time with a new mark: the current time, or one in the requested second.
    pub(super) fn fresh_time(&self, requested: Option<Timestamp>) -> Timestamp {
        let now = now();
        let bump = |last_nanos: i64| Some(now.max(last_nanos.saturating_add(1)));
        // Strictly increasing, also when two commits fall into one tick or the clock is set back.
        let last_nanos = self.last_nanos.fetch_update(Ordering::AcqRel, Ordering::Acquire, bump).unwrap_or_default();
        let time = timestamp_from_nanos(now.max(last_nanos.saturating_add(1)));
        requested.map_or(time, |requested| keep_mark(time, requested))
    }

    /// Returns the modification time of a file with all nanoseconds that were set.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn modified_time(&self, stat: &Stat) -> Result<Timestamp> {
        Ok(self.fine_times.as_ref().map_or(Ok(stat.modified), |fine_times| fine_times.modified_time(stat))?)
    }

    /// Sets times of a file, and records the nanoseconds of the modification time if the file system truncates them.
    ///
    /// # Errors
    /// Errors of the file system; [`Error::Store`].
    pub(super) fn set_times(
        &self,
        file: &FileFd,
        modified: Option<Timestamp>,
        accessed: Option<Timestamp>,
    ) -> Result<()> {
        file.set_times(modified, accessed)?;
        self.record_time(file, modified)
    }

    /// Records the modification time that was just set on a file.
    ///
    /// # Errors
    /// Errors of the file system; [`Error::Store`].
    pub(super) fn record_time(&self, file: &FileFd, modified: Option<Timestamp>) -> Result<()> {
        match (&self.fine_times, modified) {
            (Some(fine_times), Some(modified)) => Ok(fine_times.record(&file.stat()?, modified)?),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// Sets times of a file as [`EtagTracker::set_times`] does, and returns its metadata afterwards.
    ///
    /// # Errors
    /// As [`EtagTracker::set_times`].
    pub(super) fn set_times_and_stat(
        &self,
        file: &FileFd,
        modified: Timestamp,
        accessed: Option<Timestamp>,
    ) -> Result<Stat> {
        file.set_times(Some(modified), accessed)?;
        let stat = file.stat()?;
        if let Some(fine_times) = &self.fine_times {
            fine_times.record(&stat, modified)?;
        }
        Ok(stat)
    }

    /// Finds the file systems that are known to keep only coarse times.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn detect_coarse_times(&self) -> Result<()> {
        Ok(self.fine_times.as_ref().map_or(Ok(()), FineTimes::detect_coarse)?)
    }

    /// Begins an edit in place of a file that is open to write.
    pub(super) fn begin_edit(self: &Arc<Self>, file: &Arc<FileFd>, stat: &Stat) -> EditGuard {
        let inode_key = (stat.device, stat.inode);
        let mut edited_files = self.edited_files.write();
        let (editors, edited_file) = edited_files.entry(inode_key).or_insert_with(|| {
            let (file, settle_lock) = (Arc::clone(file), RwLock::default());
            (
                0,
                Arc::new(EditedFile {
                    file,
                    last_write: AtomicU64::new(0),
                    settle_lock,
                    replaced: AtomicBool::new(false),
                }),
            )
        });
        *editors += 1;
        let edited_file = Arc::clone(edited_file);
        self.edited_count.store(edited_files.len(), Ordering::Release);
        EditGuard { tracker: Arc::clone(self), inode_key, edited_file }
    }

    /// Settles every file that is being edited, so that the ETag of content that is not written any more stays the same
    /// when its handles are closed.
    pub(super) fn settle_all(&self) {
        if self.edited_count.load(Ordering::Acquire) == 0 {
            return;
        }
        // Copied, since settling waits for writers and for the disk.
        let files: Vec<_> = self.edited_files.read().values().map(|(_, edited_file)| Arc::clone(edited_file)).collect();
        for edited_file in files {
            if let Err(error) = self.settle_file(&edited_file) {
                tracing::warn!(%error, "the ETag of an edited file will change again when it is closed");
            }
        }
    }

    /// Runs `put`, which replaces a file under the commit lock of its path, while no handle writes into that file. If
    /// the file then has no more than `kept_names` names (those in staging), the next write through a handle is
    /// refused.
    ///
    /// # Errors
    /// Errors of `put`.
    pub(super) fn while_replacing<T>(
        &self,
        old: Option<&Stat>,
        kept_names: u32,
        put: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let edited_file = old.and_then(|old| self.edited_file(old));
        let _exclusive = edited_file.as_ref().map(|edited_file| edited_file.settle_lock.write());
        let done = put()?;
        // With other hard links left, writes of open handles still reach a name.
        if let Some(edited_file) = &edited_file
            && edited_file.file.stat().is_ok_and(|stat| stat.link_count <= kept_names)
        {
            edited_file.replaced.store(true, Ordering::Release);
        }
        Ok(done)
    }

    /// Records that a replaced file was restored to its name.
    pub(super) fn clear_replaced(&self, old: &Stat) {
        if let Some(edited_file) = self.edited_file(old) {
            edited_file.replaced.store(false, Ordering::Release);
        }
    }

    fn edited_file(&self, stat: &Stat) -> Option<Arc<EditedFile>> {
        if self.edited_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.edited_files.read().get(&(stat.device, stat.inode)).map(|(_, edited_file)| Arc::clone(edited_file))
    }

    /// Runs a change of the times of a file while no edit of it is being settled.
    pub(super) fn with_settle_lock<T>(&self, stat: &Stat, set: impl FnOnce() -> T) -> T {
        let edited_file = self.edited_file(stat);
        let _exclusive = edited_file.as_ref().map(|edited_file| edited_file.settle_lock.write());
        set()
    }

    fn settle_file(&self, edited_file: &EditedFile) -> Result<()> {
        let _exclusive = edited_file.settle_lock.write();
        if edited_file.last_write.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        // Keeps the second of the last write, or of a time that was set since: only the mark is new.
        let modified = edited_file.file.stat()?.modified;
        self.set_times(&edited_file.file, Some(self.fresh_time_at(modified)), None)?;
        edited_file.last_write.store(0, Ordering::Release);
        Ok(())
    }

    /// Renews the mark of content that is about to be changed in place, if the file system has coarse times and so
    /// might not change it.
    fn unsettle(&self, edited_file: &EditedFile) -> Result<()> {
        match &self.fine_times {
            Some(fine_times) => Ok(fine_times.renew(&edited_file.file.stat()?, self.fresh_time(None).nanos)?),
            None => Ok(()),
        }
    }

    /// Returns a time in the same second with a new mark.
    pub(super) fn fresh_time_at(&self, time: Timestamp) -> Timestamp {
        let now = self.fresh_time(None);
        if now.seconds == time.seconds { now } else { keep_mark(now, time) }
    }

    fn last_write(&self, stat: &Stat) -> u64 {
        if self.edited_count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let edited_files = self.edited_files.read();
        edited_files
            .get(&(stat.device, stat.inode))
            .map_or(0, |(_, edited_file)| edited_file.last_write.load(Ordering::Acquire))
    }
}

/// An edit in place that is under way; it ends when dropped.
pub(super) struct EditGuard {
    tracker: Arc<EtagTracker>,
    inode_key: InodeKey,
    edited_file: Arc<EditedFile>,
}

impl EditGuard {
    /// Changes content if `allowed` succeeds. The ETag changes both before and after the content: one that was
    /// read with the old content is never valid for the new.
    ///
    /// # Errors
    /// [`Error::Replaced`] when an upload has replaced the file; the errors of `allowed` and `write`.
    pub(super) fn write_content(
        &self,
        allowed: impl FnOnce() -> Result<()>,
        write: impl FnOnce() -> super::fs::Result<()>,
    ) -> Result<()> {
        // Taken first: a LOCK that is granted after `allowed` waits in `settle_all` for this write.
        let _shared = self.edited_file.settle_lock.read();
        allowed()?;
        if self.edited_file.replaced.load(Ordering::Acquire) {
            return Err(Error::Replaced);
        }
        // Before the write: new content must never be executable with the old set-user-ID bit.
        self.edited_file.file.clear_special_bits()?;
        // A kill loses the number of the last write: the times in the file and the store alone must change the ETag.
        if self.edited_file.last_write.load(Ordering::Acquire) == 0 {
            self.tracker.unsettle(&self.edited_file)?;
        }
        // Counted before and after: a GET during the write gets an ETag that is no longer valid when the write is done.
        self.count_write();
        let result = write();
        self.count_write();
        Ok(result?)
    }

    /// Sets times of the file that is edited, and keeps its ETag.
    ///
    /// # Errors
    /// Errors of the file system; [`Error::Store`].
    pub(super) fn set_times(
        &self,
        file: &FileFd,
        modified: Option<Timestamp>,
        accessed: Option<Timestamp>,
    ) -> Result<()> {
        self.with_settle_lock(|| {
            let now = self.tracker.modified_time(&file.stat()?)?;
            self.tracker.set_times(file, modified.map(|requested| keep_mark(now, requested)), accessed)
        })
    }

    /// Changes times while no other handle settles the mark.
    pub(super) fn with_settle_lock(&self, set: impl FnOnce() -> Result<()>) -> Result<()> {
        let _exclusive = self.edited_file.settle_lock.write();
        set()
    }

    /// Gives the content that was written so far a new mark.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(super) fn settle(&self) -> Result<()> {
        self.tracker.settle_file(&self.edited_file)
    }

    fn count_write(&self) {
        let number = self.tracker.write_counter.fetch_add(1, Ordering::AcqRel);
        self.edited_file.last_write.store(number.saturating_add(1), Ordering::Release);
    }
}

impl Drop for EditGuard {
    fn drop(&mut self) {
        let mut edited_files = self.tracker.edited_files.write();
        if let Some((editors, _)) = edited_files.get_mut(&self.inode_key) {
            *editors -= 1;
            if *editors == 0 {
                edited_files.remove(&self.inode_key);
            }
        }
        self.tracker.edited_count.store(edited_files.len(), Ordering::Release);
    }
}

/// Returns the current time in nanoseconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns the time in the second of `requested` that has the mark of `now`.
pub(super) fn keep_mark(now: Timestamp, requested: Timestamp) -> Timestamp {
    let second = NANOS_PER_SECOND.cast_unsigned();
    let nanos = (mark_of(now) + second - second_shift(requested.seconds)) % second;
    Timestamp { seconds: requested.seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

fn mark_of(time: Timestamp) -> u64 {
    (u64::from(time.nanos) + second_shift(time.seconds)) % NANOS_PER_SECOND.cast_unsigned()
}

/// Hashes seconds to a number of nanoseconds (the finalizer of SplitMix64).
fn second_shift(seconds: i64) -> u64 {
    let mut z = seconds.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % NANOS_PER_SECOND.cast_unsigned()
}

fn timestamp_from_nanos(nanos: i64) -> Timestamp {
    Timestamp {
        seconds: nanos.div_euclid(NANOS_PER_SECOND),
        nanos: u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_modified_at(modified: Timestamp) -> Stat {
        Stat {
            kind: Some(crate::tree::EntryKind::File),
            inode: 7,
            device: 1,
            mount_id: 1,
            created: None,
            changed: modified,
            modified,
            accessed: Timestamp::default(),
            size: 3,
            mode: 0o644,
            link_count: 1,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn fresh_times_give_distinct_etags_within_one_second() {
        let tracker = EtagTracker::new([1; 32], None);
        let requested = Timestamp { seconds: -5, nanos: 0 };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(tracker.etag_of(&stat_modified_at(tracker.fresh_time(None)))));
            let time = tracker.fresh_time(Some(requested));
            assert_eq!(time.seconds, -5);
            assert!(seen.insert(tracker.etag_of(&stat_modified_at(time))));
        }
    }

    #[test]
    fn time_set_through_gateway_keeps_etag() {
        let tracker = EtagTracker::new([1; 32], None);
        let time = tracker.fresh_time(None);
        for seconds in [0, -1, 1, 1_000_000_000, i64::MIN, i64::MAX] {
            let set = keep_mark(time, Timestamp { seconds, nanos: 5 });
            assert_eq!(
                (set.seconds, tracker.etag_of(&stat_modified_at(set))),
                (seconds, tracker.etag_of(&stat_modified_at(time)))
            );
        }
        let touched = Timestamp { seconds: time.seconds + 1, ..time };
        assert_ne!(tracker.etag_of(&stat_modified_at(touched)), tracker.etag_of(&stat_modified_at(time)));
    }

    #[test]
    fn in_place_writes_change_etag_until_it_is_settled() {
        let tracker = EtagTracker::new([1; 32], None);
        let directory = tempfile::tempdir().expect("a folder");
        let fs = super::super::fs::ServedFs::open(directory.path(), None).expect("opened");
        let name = crate::domain::EntryName::new(b"file").expect("a name");
        let file = Arc::new(fs.root().expect("there").create_file(&name, 0o600).expect("made"));
        let stat = || file.stat().expect("stat");
        let before = tracker.etag_of(&stat());
        let (first_edit, second_edit) = (tracker.begin_edit(&file, &stat()), tracker.begin_edit(&file, &stat()));
        assert_eq!(tracker.etag_of(&stat()), before);
        first_edit.write_content(|| Ok(()), || file.write_at(b"1", 0)).expect("written");
        let first = tracker.etag_of(&stat());
        second_edit.write_content(|| Ok(()), || file.write_at(b"2", 0)).expect("written");
        let second = tracker.etag_of(&stat());
        assert!(first != before && second != first);
        first_edit.settle().expect("settled");
        let settled = tracker.etag_of(&stat());
        assert!(settled != second && settled != before);
        second_edit.settle().expect("nothing to settle");
        drop((first_edit, second_edit));
        assert_eq!(tracker.etag_of(&stat()), settled, "the end of an edit moves nothing");
    }
    #[test]
    fn edit_interrupted_by_kill_changes_etag_on_one_second_timestamps() {
        let (_state, store) = crate::store::testing::open_temp_store();
        let directory = tempfile::tempdir().expect("a folder");
        let fs = Arc::new(super::super::fs::ServedFs::open(directory.path(), None).expect("opened"));
        let name = crate::domain::EntryName::new(b"file").expect("a name");
        let file = Arc::new(fs.root().expect("there").create_file(&name, 0o600).expect("made"));
        let stat = || file.stat().expect("there");
        let whole_second = || file.set_times(Some(Timestamp { seconds: 1_000_000_000, nanos: 0 }), None).expect("set");
        let started = || {
            let fine_times = FineTimes::new(Arc::clone(&fs), store.clone());
            fine_times.assume_coarse(stat().device);
            EtagTracker::new([1; 32], Some(fine_times))
        };
        let tracker = started();
        file.write_at(b"old", 0).expect("written");
        whole_second();
        tracker.record_time(&file, Some(Timestamp { seconds: 1_000_000_000, nanos: 123 })).expect("noted");
        let before = tracker.etag_of(&stat());
        assert_eq!(started().etag_of(&stat()), before, "a restart alone moves no tag");
        let edit = tracker.begin_edit(&file, &stat());
        edit.write_content(|| Ok(()), || file.write_at(b"new", 0)).expect("written");
        // All that such a file system tells of a write in the same second.
        whole_second();
        assert_ne!(tracker.etag_of(&stat()), before);
        assert_ne!(started().etag_of(&stat()), before, "after the kill");
    }
}
