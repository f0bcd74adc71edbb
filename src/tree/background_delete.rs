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
        let mut state = self.0.state.lock();
        state.pending.push_back(staged);
        if state.running {
            return;
        }
        let deletes = self.clone();
        state.running = true;
        drop(state);
        if thread::Builder::new().name("removals".into()).spawn(move || deletes.run()).is_err() {
            self.run();
        }
    }

    /// Waits until nothing is left to remove.
    pub(super) fn wait_until_idle(&self) {
        let mut state = self.0.state.lock();
        while state.running {
            self.0.idle.wait(&mut state);
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.0.state.lock();
            let Some(staged) = state.pending.pop_front() else {
                state.running = false;
                self.0.idle.notify_all();
                return;
            };
            drop(state);
            if let Err(error) = staged.discard() {
                tracing::warn!(%error, "something removed stays in staging until the next start");
            }
        }
    }
}
