//! Background removal: removed entries wait in staging and are deleted from disk by a thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::fs::StagedEntry;

/// The queue of removals under way; clones share it.
#[derive(Clone, Default)]
pub(super) struct BackgroundDeletes(Arc<DeleteQueue>);

#[derive(Default)]
struct DeleteQueue {
    state: Mutex<DeleteQueueState>,
    idle: Condvar,
}

#[derive(Default)]
struct DeleteQueueState {
    pending: VecDeque<StagedEntry>,
    running: bool,
}

impl BackgroundDeletes {
    /// Queues an entry of staging for removal; starts the thread that does it, unless it runs already.
    pub(super) fn enqueue(&self, staged: StagedEntry) {
        let mut state = self.0.state.lock();
        state.pending.push_back(staged);
        if state.running {
            return;
        }
        let deletes = self.clone();
        // Set under the mutex, so that two callers don't start two threads.
        state.running = true;
        drop(state);
        // Without a thread to be had, the caller removes the entry itself: nobody else would.
        if thread::Builder::new().name("removals".into()).spawn(move || deletes.run()).is_err() {
            self.run();
        }
    }

    /// Blocks until the queue is empty.
    pub(super) fn wait_until_idle(&self) {
        let mut state = self.0.state.lock();
        while state.running {
            self.0.idle.wait(&mut state);
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.0.state.lock();
            // Checked and cleared under one lock: an entry that is queued after this starts a new thread.
            let Some(staged) = state.pending.pop_front() else {
                state.running = false;
                self.0.idle.notify_all();
                return;
            };
            drop(state);
            if let Err(error) = staged.discard() {
                tracing::warn!(%error, "a removed entry stays in staging until the next start");
            }
        }
    }
}
