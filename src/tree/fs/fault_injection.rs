//! A host on which things go wrong: `kill -9` at a chosen point, a step that is refused, and a file system that can't
//! exchange, for tests of what that leaves.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};

use super::{Errno, Result, Stat};

/// A file or directory by device, inode and birth time.
type Identity = (u64, u64, Option<i64>);

/// Every file and directory that was synced: by any thread, since a copy has several.
static SYNCED: LazyLock<Mutex<HashSet<Identity>>> = LazyLock::new(Mutex::default);

thread_local! {
    static STEPS_UNTIL_KILL: Cell<Option<u32>> = const { Cell::new(None) };
    static STEPS_UNTIL_FAILURE: Cell<Option<u32>> = const { Cell::new(None) };
    static EXCHANGE_SUPPORTED: Cell<bool> = const { Cell::new(true) };
}

/// Lets the host refuse this thread one step, once it has done `steps` more. Returns whether one was refused since this
/// was last asked for.
pub(crate) fn fail_after(steps: Option<u32>) -> bool {
    STEPS_UNTIL_FAILURE.replace(steps).is_none()
}

/// Is asked before each step.
pub(crate) fn before_step() -> Result<()> {
    crash_point();
    let allowed = STEPS_UNTIL_FAILURE.get();
    STEPS_UNTIL_FAILURE.set(allowed.and_then(|steps| steps.checked_sub(1)));
    if allowed == Some(0) { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Lets this thread find that no file system can exchange two entries.
pub(crate) fn disable_exchange() {
    EXCHANGE_SUPPORTED.set(false);
}

/// Tells whether two entries can be exchanged.
pub(crate) fn check_exchange_supported() -> Result<()> {
    if EXCHANGE_SUPPORTED.get() { Ok(()) } else { Err(Errno::INVAL) }
}

/// Lets this process be killed, as by `kill -9`, when this thread has passed `steps` more points at which it may be.
pub(crate) fn kill_after(steps: u32) {
    STEPS_UNTIL_KILL.set(Some(steps));
}

/// Passes a point at which the process may be killed.
pub(crate) fn crash_point() {
    match STEPS_UNTIL_KILL.get() {
        None => {}
        Some(0) => {
            kill_process(getpid(), Signal::KILL).expect("killed");
            loop {
                std::thread::park();
            }
        }
        Some(steps) => STEPS_UNTIL_KILL.set(Some(steps - 1)),
    }
}

/// Notes that a file or directory was written to disk.
pub(super) fn note_sync(stat: &Stat) {
    SYNCED.lock().insert((stat.device, stat.inode, stat.birth_time()));
}

/// Tells whether a file or directory was written to disk since this was last asked for.
pub(crate) fn take_sync(stat: &Stat) -> bool {
    SYNCED.lock().remove(&(stat.device, stat.inode, stat.birth_time()))
}
