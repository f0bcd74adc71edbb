//! Syncing a copied tree to disk: each file and directory of it, and nothing else of the file system.
//!
//! The copy is written completely first. A journaling file system commits most of it with the first fsync then, and the
//! other calls find little left to do, while several of them wait for the disk together. An fsync during the copy would
//! be a commit of its own each time. Starting the writes earlier (posix_fadvise) was measured, and is not faster.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use parking_lot::Mutex;

use super::View;
use crate::domain::{EntryName, TreePath};
use crate::tree::fs::{self, DirectoryFd, Errno, OpenMode};
use crate::tree::{EntryKind, Result};

/// Number of threads that sync files of one copy, beside the one that walks it.
const SYNC_THREADS: usize = 3;
/// Maximum number of files in the queue to these threads. Each keeps the descriptor of its directory open.
const SYNC_QUEUE_FILES: usize = 16;
/// Permission bit without which the server, which owns the copy, can't open a file again.
const OWNER_READ_BIT: u32 = 0o400;

/// File that is to be synced: its directory, and its name there.
type UnsyncedFile = (DirectoryFd, EntryName);

/// Tells whether a copied file with these permission bits has to be synced while it is still open.
pub(super) fn is_synced_at_once(mode: u32) -> bool {
    mode & OWNER_READ_BIT == 0
}

impl View {
    /// Syncs a staged directory, and every file and directory below it.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::tree::Error::NoSpace), [`Error::Filesystem`](crate::tree::Error::Filesystem);
    /// [`Error::SessionEnded`](crate::tree::Error::SessionEnded) when the session or the request ends meanwhile.
    pub(super) fn sync_tree(&self, top: &DirectoryFd) -> Result<()> {
        let (sender, receiver) = sync_channel(SYNC_QUEUE_FILES);
        let receiver = Mutex::new(receiver);
        thread::scope(|scope| {
            let spawn = || {
                let thread = thread::Builder::new().name("copy-sync".into());
                thread.spawn_scoped(scope, || sync_queued(&receiver)).ok()
            };
            let workers: Vec<_> = (0..SYNC_THREADS).map_while(|_| spawn()).collect();
            let walked = self.sync_walk(top, &sender);
            // Closes the queue: workers end once it is empty.
            drop(sender);
            // Files that no worker has taken, where no thread could be started.
            let mut synced = sync_queued(&receiver);
            for worker in workers {
                // A worker that panicked may have left its files unsynced.
                synced = synced.and(worker.join().unwrap_or(Err(Errno::IO)));
            }
            walked.and_then(|()| Ok(synced?))
        })
    }

    fn sync_walk(&self, top: &DirectoryFd, queue: &SyncSender<UnsyncedFile>) -> Result<()> {
        // The copy is in staging: nobody adds names to its directories any more.
        top.sync()?;
        self.walk_subtree(top, |parent, _, name, stat| {
            self.cancellation().check()?;
            match stat.kind {
                Some(EntryKind::Directory) => Ok(parent.open_directory(&TreePath::root().child(name))?.sync()?),
                Some(EntryKind::File) if is_synced_at_once(stat.mode) => Ok(()),
                Some(EntryKind::File) => match queue.try_send((parent.clone(), name.clone())) {
                    Ok(()) => Ok(()),
                    // All workers are busy: this thread does it.
                    Err(TrySendError::Full(file) | TrySendError::Disconnected(file)) => Ok(sync_file(&file)?),
                },
                // Synced with the directory that holds it.
                Some(EntryKind::Symlink) | None => Ok(()),
            }
        })
    }
}

/// Syncs files until the queue is closed. An error does not end it: the other files are synced too.
fn sync_queued(queue: &Mutex<Receiver<UnsyncedFile>>) -> fs::Result<()> {
    let mut synced = Ok(());
    loop {
        // One worker waits at a time, and the lock is released before the sync.
        let next = queue.lock().recv();
        match next {
            Ok(file) => synced = synced.and(sync_file(&file)),
            Err(_) => return synced,
        }
    }
}

fn sync_file((directory, name): &UnsyncedFile) -> fs::Result<()> {
    directory.open(name, OpenMode::Read)?.sync()
}
