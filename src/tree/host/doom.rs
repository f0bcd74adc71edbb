//! A host on which things go wrong: `kill -9` at a chosen point, a step that is refused, and a file system that can't
//! exchange, for tests of what that leaves.

use std::cell::Cell;

use rustix::process::{Signal, getpid, kill_process};

use super::{Errno, Result};

thread_local! {
    static STEPS: Cell<Option<u32>> = const { Cell::new(None) };
    static ALLOWED: Cell<Option<u32>> = const { Cell::new(None) };
    static EXCHANGES: Cell<bool> = const { Cell::new(true) };
}

/// Lets the host refuse this thread one step, once it has done `steps` more. Returns whether one was refused since this
/// was last asked for.
pub(crate) fn refuse_after(steps: Option<u32>) -> bool {
    ALLOWED.replace(steps).is_none()
}

/// Is asked before each step.
pub(crate) fn before() -> Result<()> {
    mortal();
    let allowed = ALLOWED.get();
    ALLOWED.set(allowed.and_then(|steps| steps.checked_sub(1)));
    if allowed == Some(0) { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Lets this thread find that no file system can exchange two entries.
pub(crate) fn no_exchange() {
    EXCHANGES.set(false);
}

/// Tells whether two entries can be exchanged.
pub(crate) fn exchanges() -> Result<()> {
    if EXCHANGES.get() { Ok(()) } else { Err(Errno::INVAL) }
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
