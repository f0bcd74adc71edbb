//! Metadata of a batch of names of a directory. Of a large batch two threads read it: the caller, which goes on as if it
//! were alone, and a helper that takes whatever the caller has not come to yet.
//!
//! A listing waits for the kernel most of the time, one entry after the other, while other processors are idle. The helper
//! works under a work permit of the user, and only if there is one at once, so that nobody has more processors by it. It
//! ends with the batch: a listing whose client takes nothing holds no thread.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use super::fs::{self, DirectoryFd, Errno, Stat};
use crate::auth::Session;
use crate::domain::{EntryName, TreePath};

/// Number of names that a thread takes at once.
const CHUNK_NAMES: usize = 64;
/// Number of names from which a helper is worth its start.
const HELPER_MIN_NAMES: usize = if cfg!(test) { 1_200 } else { 4 * CHUNK_NAMES };
/// Age from which metadata that was read ahead is read again: the client has taken nothing for so long.
const READ_AHEAD_MAX_AGE: Duration = Duration::from_secs(1);

/// Name and metadata of an entry.
pub(super) type NamedStat = (EntryName, fs::Result<Stat>);

/// Names of a directory in their order, with their metadata.
pub(super) struct StatBatch {
    /// Names of which the caller reads the metadata one by one.
    names: std::vec::IntoIter<EntryName>,
    /// Metadata that was read ahead.
    chunk: std::vec::IntoIter<NamedStat>,
    shared: Option<SharedBatch>,
}

/// The caller's end of a batch that it shares with a helper.
struct SharedBatch {
    chunks: Arc<SharedChunks>,
    directory: DirectoryFd,
    started: Instant,
}

#[derive(Default)]
struct SharedChunks {
    queue: Mutex<ChunkQueue>,
    chunk_done: Condvar,
}

#[derive(Default)]
struct ChunkQueue {
    /// Chunks that no thread has taken, in their order.
    untaken: VecDeque<Vec<EntryName>>,
    /// Number of the first of them.
    first_untaken: usize,
    /// Chunks that the caller has not returned yet; `None` for those whose metadata is not read yet.
    unreturned: VecDeque<Option<Vec<NamedStat>>>,
    /// Number of the first of them.
    first_unreturned: usize,
}

impl StatBatch {
    /// Creates a batch whose metadata the caller reads alone.
    pub(super) fn new(names: Vec<EntryName>) -> Self {
        Self { names: names.into_iter(), chunk: Vec::new().into_iter(), shared: None }
    }

    /// Has a helper read the metadata too of the names that are left, if they are enough and a permit is free.
    pub(super) fn add_helper(&mut self, directory: &DirectoryFd, session: &Session) {
        if self.names.len() < HELPER_MIN_NAMES {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        // Not waited for: the future is dropped where there is none.
        let mut permit = pin!(session.acquire_heavy_permit());
        let Poll::Ready(Ok(permit)) = permit.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { return };
        let shared = SharedBatch::new(std::mem::take(&mut self.names), directory);
        let (chunks, directory) = (Arc::clone(&shared.chunks), directory.clone());
        self.shared = Some(shared);
        drop(runtime.spawn_blocking(move || {
            let _permit = permit;
            // By a descriptor of its own: each call counts uses of its descriptor, and threads that share one wait for each
            // other there.
            let reopened = directory.open_directory(&TreePath::root());
            while chunks.read_next(reopened.as_ref().unwrap_or(&directory)) {}
        }));
    }

    /// Returns the next name with its metadata; `None` at the end of the batch.
    pub(super) fn next(&mut self, directory: &DirectoryFd) -> Option<NamedStat> {
        loop {
            if let Some(named_stat) = self.chunk.next() {
                return Some(named_stat);
            }
            if let Some(name) = self.names.next() {
                let stat = directory.stat_entry(&name);
                return Some((name, stat));
            }
            let shared = self.shared.as_ref()?;
            let Some(chunk) = shared.chunks.next_chunk(&shared.directory) else {
                self.shared = None;
                return None;
            };
            match shared.started.elapsed() < READ_AHEAD_MAX_AGE {
                true => self.chunk = chunk.into_iter(),
                false => self.names = chunk.into_iter().map(|(name, _)| name).collect::<Vec<_>>().into_iter(),
            }
        }
    }
}

impl SharedBatch {
    fn new(mut names: std::vec::IntoIter<EntryName>, directory: &DirectoryFd) -> Self {
        let mut queue = ChunkQueue::default();
        while names.len() > 0 {
            queue.untaken.push_back(names.by_ref().take(CHUNK_NAMES).collect());
            queue.unreturned.push_back(None);
        }
        let chunks = Arc::new(SharedChunks { queue: Mutex::new(queue), chunk_done: Condvar::new() });
        Self { chunks, directory: directory.clone(), started: Instant::now() }
    }
}

impl Drop for SharedBatch {
    /// Ends the helper after its current chunk.
    fn drop(&mut self) {
        self.chunks.queue.lock().untaken.clear();
    }
}

impl SharedChunks {
    /// Returns the next chunk in the order of the names; `None` after the last one. The caller reads what the helper has
    /// not taken, and waits for it only when nothing is left.
    fn next_chunk(&self, directory: &DirectoryFd) -> Option<Vec<NamedStat>> {
        loop {
            let mut queue = self.queue.lock();
            let is_done = queue.unreturned.front()?.is_some();
            if is_done {
                queue.first_unreturned += 1;
                return queue.unreturned.pop_front().flatten();
            }
            if queue.untaken.is_empty() {
                self.chunk_done.wait(&mut queue);
            } else {
                drop(queue);
                self.read_next(directory);
            }
        }
    }

    /// Reads the metadata of the next chunk; returns false where none is left.
    fn read_next(&self, directory: &DirectoryFd) -> bool {
        let mut queue = self.queue.lock();
        let Some(names) = queue.untaken.pop_front() else { return false };
        let number = queue.first_untaken;
        queue.first_untaken += 1;
        drop(queue);
        // An error until it is read: the chunk is stored also if this thread panics, since the other one waits for it.
        let named_stats = names.into_iter().map(|name| (name, Err(Errno::IO))).collect();
        let mut taken = TakenChunk { chunks: self, number, named_stats };
        for (name, stat) in &mut taken.named_stats {
            *stat = directory.stat_entry(name);
        }
        true
    }
}

/// Chunk whose metadata is being read; it is stored when it is dropped.
struct TakenChunk<'a> {
    chunks: &'a SharedChunks,
    number: usize,
    named_stats: Vec<NamedStat>,
}

impl Drop for TakenChunk<'_> {
    fn drop(&mut self) {
        let mut queue = self.chunks.queue.lock();
        let place = self.number - queue.first_unreturned;
        if let Some(chunk) = queue.unreturned.get_mut(place) {
            *chunk = Some(std::mem::take(&mut self.named_stats));
        }
        self.chunks.chunk_done.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, write};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::*;
    use crate::domain::Permission;
    use crate::tree::testing::TreeFixture;

    fn names(count: usize) -> Vec<EntryName> {
        (0..count).map(|number| EntryName::new(number.to_string().as_bytes()).expect("a name")).collect()
    }

    fn directory_with_files(path: &Path, count: usize) -> DirectoryFd {
        (0..count).for_each(|number| write(path.join(number.to_string()), number.to_string()).expect("written"));
        OwnedFd::from(File::open(path).expect("a directory")).into()
    }

    fn collect(batch: &mut StatBatch, directory: &DirectoryFd) -> Vec<EntryName> {
        std::iter::from_fn(|| batch.next(directory))
            .map(|(name, stat)| {
                let size = stat.map(|stat| stat.size);
                assert!(size == Err(Errno::NOENT) || size == Ok(name.as_bytes().len() as u64), "{name}: {size:?}");
                name
            })
            .collect()
    }

    fn with_runtime<T>(check: impl FnOnce(&Session) -> T) -> T {
        let fixture = TreeFixture::new(&["/a"]);
        fixture.create_user("alice", &[("/a", Permission::R)]);
        let view = fixture.view("alice");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("runtime");
        let _entered = runtime.enter();
        check(view.session())
    }

    #[test]
    fn batch_with_a_helper_has_all_names_in_their_order() {
        let temp_dir = tempfile::tempdir().expect("directory");
        // Some names are of no file.
        let directory = directory_with_files(temp_dir.path(), 5 * HELPER_MIN_NAMES - 7);
        with_runtime(|session| {
            for count in [0, 1, HELPER_MIN_NAMES - 1, HELPER_MIN_NAMES, 5 * HELPER_MIN_NAMES] {
                let mut batch = StatBatch::new(names(count));
                // As a listing that begins before it has a permit.
                let first = batch.next(&directory).map(|(name, _)| name);
                batch.add_helper(&directory, session);
                assert_eq!(batch.shared.is_some(), count > HELPER_MIN_NAMES, "{count} names");
                let all: Vec<_> = first.into_iter().chain(collect(&mut batch, &directory)).collect();
                assert_eq!(all, names(count));
            }
        });
    }

    #[test]
    fn helper_works_under_a_permit_and_ends_with_the_batch() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let directory = directory_with_files(temp_dir.path(), 1);
        with_runtime(|session| {
            let take_permit = || {
                let mut permit = pin!(session.acquire_heavy_permit());
                permit.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            let mut permits = Vec::new();
            while let Poll::Ready(permit) = take_permit() {
                permits.push(permit.expect("a permit"));
            }
            let mut batch = StatBatch::new(names(2 * HELPER_MIN_NAMES));
            batch.add_helper(&directory, session);
            assert!(batch.shared.is_none(), "the user has no other permit");
            permits.pop();
            batch.add_helper(&directory, session);
            assert!(batch.shared.is_some() && take_permit().is_pending());
            drop(batch);
            Handle::current().block_on(session.acquire_heavy_permit()).map(drop).expect("given back");
        });
    }

    #[test]
    fn metadata_that_was_read_ahead_is_read_again_after_a_pause() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let directory = directory_with_files(temp_dir.path(), HELPER_MIN_NAMES);
        with_runtime(|session| {
            let mut batch = StatBatch::new(names(HELPER_MIN_NAMES));
            batch.add_helper(&directory, session);
            if let Some(shared) = &mut batch.shared {
                while shared.chunks.read_next(&directory) {}
                shared.started -= READ_AHEAD_MAX_AGE;
            }
            let last = (HELPER_MIN_NAMES - 1).to_string();
            write(temp_dir.path().join(&last), "another size").expect("written");
            let stats = std::iter::from_fn(|| batch.next(&directory)).last();
            let (name, stat) = stats.expect("names");
            assert_eq!((name.as_bytes(), stat.map(|stat| stat.size)), (last.as_bytes(), Ok(12)));
        });
    }
}
