//! `kill -9` at a chosen point, for tests of what it leaves.

use std::cell::Cell;

use rustix::process::{Signal, getpid, kill_process};

thread_local! {
    static STEPS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Lets this process be killed, as by `kill -9`, when this thread has passed `steps` more points at which it may be.
pub(crate) fn doom(steps: u32) {
    STEPS.set(Some(steps));
}

/// Passes a point at which the process may be killed.
pub(crate) fn mortal() {
    match STEPS.get() {
        None => {}
        Some(0) => {
            kill_process(getpid(), Signal::KILL).expect("killed");
            loop {
                std::thread::park();
            }
        }
        Some(steps) => STEPS.set(Some(steps - 1)),
    }
}
