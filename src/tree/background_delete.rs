//! What was removed waits in staging and goes from the disk in the background.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::fs::StagedEntry;

/// The removals under way; clones share them.
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
    /// Removes what waits in staging, soon.
    pub(super) fn enqueue(&self, staged: StagedEntry) {
        let mut work = self.0.state.lock();
        work.pending.push_back(staged);
        if work.running {
            return;
        }
        let removals = self.clone();
        work.running = true;
        drop(work);
        if thread::Builder::new().name("removals".into()).spawn(move || removals.run()).is_err() {
            self.run();
        }
    }

    /// Waits until nothing is left to remove.
    pub(super) fn wait_until_idle(&self) {
        let mut work = self.0.state.lock();
        while work.running {
            self.0.idle.wait(&mut work);
        }
    }

    fn run(&self) {
        loop {
            let mut work = self.0.state.lock();
            let Some(staged) = work.pending.pop_front() else {
                work.running = false;
                self.0.idle.notify_all();
                return;
            };
            drop(work);
            if let Err(error) = staged.discard() {
                tracing::warn!(%error, "something removed stays in staging until the next start");
            }
        }
    }
}
