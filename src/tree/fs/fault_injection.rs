//! Fault injection for tests: `kill -9` at a chosen point, one system call that fails, and a file system without
//! RENAME_EXCHANGE. It also counts the system calls of a thread.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fd::AsFd;
use rustix::process::{Signal, getpid, kill_process};

use super::{Errno, Result, Stat};

/// Device, inode and birth time of a file or directory.
type Identity = (u64, u64, Option<i64>);

/// Files and directories that were synced, by any thread: a copy has several.
static SYNCED: LazyLock<Mutex<HashSet<Identity>>> = LazyLock::new(Mutex::default);

/// Number of system calls by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyscallCounts {
    /// Opens of entries, and creations of files.
    pub(crate) opens: u32,
    /// Reads of metadata: of entries, permissions and free space.
    pub(crate) stats: u32,
    /// Writes of content.
    pub(crate) writes: u32,
    /// Changes of mode, owner or times.
    pub(crate) attribute_changes: u32,
    /// Changes of names.
    pub(crate) name_changes: u32,
    /// Syncs to disk.
    pub(crate) syncs: u32,
}

thread_local! {
    static SYSCALL_COUNTS: Cell<SyscallCounts> = Cell::default();
    static SLOT_RECHECK_GRACE: Cell<Option<Duration>> = const { Cell::new(None) };
    static STEPS_UNTIL_KILL: Cell<Option<u32>> = const { Cell::new(None) };
    static STEPS_UNTIL_FAILURE: Cell<Option<u32>> = const { Cell::new(None) };
    static READS_UNTIL_FAILURE: Cell<Option<u32>> = const { Cell::new(None) };
    static READ_COUNT: Cell<u32> = const { Cell::new(0) };
    static EXCHANGE_SUPPORTED: Cell<bool> = const { Cell::new(true) };
}

/// Returns the system calls of this thread since the last call.
pub(crate) fn take_syscall_counts() -> SyscallCounts {
    SYSCALL_COUNTS.take()
}

/// Counts a system call of this thread.
pub(super) fn count_syscall(select: impl FnOnce(&mut SyscallCounts) -> &mut u32) {
    let mut counts = SYSCALL_COUNTS.get();
    *select(&mut counts) += 1;
    SYSCALL_COUNTS.set(counts);
}

/// Sets the time for which this thread doesn't look up the directory of a slot again.
pub(crate) fn set_slot_recheck_grace(grace: Duration) {
    SLOT_RECHECK_GRACE.set(Some(grace));
}

/// Returns the time that [`set_slot_recheck_grace`] has set on this thread.
pub(crate) fn slot_recheck_grace() -> Option<Duration> {
    SLOT_RECHECK_GRACE.get()
}

/// Makes one step of this thread fail after `steps` more. Returns whether a step has failed since the last call.
pub(crate) fn fail_after(steps: Option<u32>) -> bool {
    STEPS_UNTIL_FAILURE.replace(steps).is_none()
}

/// Runs before each step, and fails where the step is to fail.
pub(crate) fn before_step() -> Result<()> {
    count_syscall(|counts| &mut counts.name_changes);
    crash_point();
    // Counted down past zero to `None`: one step fails, and its undo may succeed.
    let allowed = STEPS_UNTIL_FAILURE.get();
    STEPS_UNTIL_FAILURE.set(allowed.and_then(|steps| steps.checked_sub(1)));
    if allowed == Some(0) { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Makes one read of a directory or of an entry's metadata on this thread fail, as on a bad disk, after `reads` more.
/// Returns whether a read has failed since the last call.
pub(crate) fn fail_read_after(reads: Option<u32>) -> bool {
    READS_UNTIL_FAILURE.replace(reads).is_none()
}

/// Runs before each read of a directory or of an entry's metadata, and fails where it is to fail.
pub(crate) fn before_read() -> Result<()> {
    READ_COUNT.set(READ_COUNT.get() + 1);
    // Counted down past zero to `None`, as for steps: a read that is repeated succeeds.
    let allowed = READS_UNTIL_FAILURE.get();
    READS_UNTIL_FAILURE.set(allowed.and_then(|reads| reads.checked_sub(1)));
    if allowed == Some(0) { Err(Errno::IO) } else { Ok(()) }
}

/// Returns the number of reads of directories and of metadata of this thread since the last call.
pub(crate) fn take_read_count() -> u32 {
    READ_COUNT.take()
}

/// Makes every exchange of this thread fail, as on a file system without RENAME_EXCHANGE.
pub(crate) fn disable_exchange() {
    EXCHANGE_SUPPORTED.set(false);
}

/// Fails where [`disable_exchange`] was called on this thread.
pub(crate) fn check_exchange_supported() -> Result<()> {
    if EXCHANGE_SUPPORTED.get() { Ok(()) } else { Err(Errno::INVAL) }
}

/// Kills this process, as `kill -9` does, once this thread has passed `steps` more crash points.
pub(crate) fn kill_after(steps: u32) {
    STEPS_UNTIL_KILL.set(Some(steps));
}

/// Marks a point at which the process may be killed.
pub(crate) fn crash_point() {
    match STEPS_UNTIL_KILL.get() {
        None => {}
        Some(0) => {
            kill_process(getpid(), Signal::KILL).expect("killed");
            // The signal is delivered asynchronously: nothing may run until then.
            loop {
                std::thread::park();
            }
        }
        Some(steps) => STEPS_UNTIL_KILL.set(Some(steps - 1)),
    }
}

/// Records that a file or directory was synced.
pub(super) fn note_sync(fd: impl AsFd) -> Result<()> {
    let counts = SYSCALL_COUNTS.get();
    let stat = Stat::stat_at(fd, b"")?;
    // Read for tests alone, and so not counted.
    SYSCALL_COUNTS.set(counts);
    SYNCED.lock().insert((stat.device, stat.inode, stat.birth_time()));
    Ok(())
}

/// Tells whether a file or directory was synced since the last call for it.
pub(crate) fn take_sync(stat: &Stat) -> bool {
    SYNCED.lock().remove(&(stat.device, stat.inode, stat.birth_time()))
}
