//! Wall clock, which may jump, and running time of the machine, which does not. Tests hand in a clock that they set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use super::clock_jumps::ClockJumps;
use crate::domain::UnixMillis;
use crate::store::{ClockCheckpoint, ClockJump};

/// Clock of the system, or one that a test sets. Clones share it, and the jumps that were observed.
#[derive(Clone, Debug)]
pub struct Clock {
    manual_clock: Option<Arc<ManualClock>>,
    jumps: Arc<Mutex<ClockJumps>>,
}

#[derive(Debug)]
struct ManualClock {
    wall_ms: AtomicI64,
    boottime_ms: AtomicU64,
    changed: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self::new_observed(None)
    }

    /// Returns a clock that shows `start` until a test advances or sets it.
    pub fn manual(start: UnixMillis) -> Self {
        let wall_ms = AtomicI64::new(start.as_millis());
        let manual_clock = ManualClock { wall_ms, boottime_ms: AtomicU64::new(0), changed: Notify::new() };
        Self::new_observed(Some(Arc::new(manual_clock)))
    }

    /// Returns a clock after its first observation, which later ones are compared with.
    fn new_observed(manual_clock: Option<Arc<ManualClock>>) -> Self {
        let clock = Self { manual_clock, jumps: Arc::default() };
        drop(clock.observe());
        clock
    }

    /// Advances a manual clock, as time passes, and wakes all that wait for it; has no effect on the system clock.
    pub fn advance(&self, by: Duration) {
        if let Some(manual_clock) = &self.manual_clock {
            // Locked, so that no observation comes between the two and takes the first for a jump.
            let _jumps = self.jumps.lock();
            manual_clock.wall_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            manual_clock.boottime_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
            manual_clock.changed.notify_waiters();
        }
    }

    /// Sets a manual clock to another time of day, while no time passes, and wakes all that wait for it; has no effect
    /// on the system clock.
    pub fn set(&self, time: UnixMillis) {
        if let Some(manual_clock) = &self.manual_clock {
            // The running time stays as it is: the difference is a jump.
            manual_clock.wall_ms.store(time.as_millis(), Ordering::SeqCst);
            manual_clock.changed.notify_waiters();
        }
    }

    /// Returns the present instant.
    pub fn now(&self) -> UnixMillis {
        match &self.manual_clock {
            Some(manual_clock) => UnixMillis::from_millis(manual_clock.wall_ms.load(Ordering::SeqCst)),
            None => {
                // A clock before 1970 reads as 1970.
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Returns the running time of the machine, suspension included (CLOCK_BOOTTIME), which can't be set.
    pub fn boottime(&self) -> Duration {
        match &self.manual_clock {
            Some(manual_clock) => Duration::from_millis(manual_clock.boottime_ms.load(Ordering::SeqCst)),
            None => {
                // Not CLOCK_MONOTONIC, which stops during suspension: a night in suspend would look like a jump.
                let time = clock_gettime(ClockId::Boottime);
                Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
            }
        }
    }

    /// Returns [`Clock::boottime`] in milliseconds: for tables whose entries a clock that is set must neither keep nor
    /// drop.
    pub(super) fn boottime_ms(&self) -> u64 {
        u64::try_from(self.boottime().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the time by which an expiration becomes final: without jumps that are less than a day of running time
    /// old, and never ahead of [`Clock::now`].
    pub fn steady_time(&self) -> UnixMillis {
        self.observe().steady_time()
    }

    /// Returns the time by which rows are old enough to be deleted; the earliest instant while a jump is less than a
    /// day of running time old.
    pub fn retention_time(&self) -> UnixMillis {
        self.observe().retention_time()
    }

    /// Tells whether the clock has not jumped for a day of running time.
    pub(super) fn is_trusted(&self) -> bool {
        self.observe().is_trusted()
    }

    /// Takes over the checkpoint that the last server process saved.
    pub fn restore(&self, checkpoint: ClockCheckpoint) {
        if let Some(jump) = self.observe().restore(checkpoint, &self.boot_id()) {
            warn_clock_jump(jump, "since the last start of the server");
        }
    }

    /// Returns the checkpoint for the next server process.
    pub fn checkpoint(&self) -> Option<ClockCheckpoint> {
        self.observe().checkpoint(&self.boot_id())
    }

    /// Returns the id of the boot that the running time counts from; empty where it can't be read.
    fn boot_id(&self) -> String {
        let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        self.manual_clock
            .as_ref()
            .map_or_else(read, |manual_clock| format!("{:p}", Arc::as_ptr(manual_clock)))
            .trim()
            .to_owned()
    }

    fn observe(&self) -> parking_lot::MutexGuard<'_, ClockJumps> {
        let mut jumps = self.jumps.lock();
        // Both clocks are read under the lock: observations must come in the order in which they were read.
        if let Some(jump) = jumps.observe(self.now(), self.boottime()) {
            warn_clock_jump(jump, "while the server runs");
        }
        jumps
    }

    /// Waits until the clock shows `time` or later. A system clock that is set back or forward is
    /// noticed within a second.
    pub async fn sleep_until(&self, time: UnixMillis) {
        self.sleep_while_remaining(|| time.saturating_duration_since(self.now())).await;
    }

    /// Waits until [`Clock::boottime`] has reached `time`, whatever the wall clock is set to.
    pub async fn sleep_until_boottime(&self, time: Duration) {
        self.sleep_while_remaining(|| time.saturating_sub(self.boottime())).await;
    }

    /// Waits until `remaining`, which is asked every second, returns zero.
    async fn sleep_while_remaining(&self, remaining: impl Fn() -> Duration) {
        loop {
            // Registered before the time is read, or a clock that is set in between would be missed.
            let changed = self.manual_clock.as_ref().map(|manual_clock| manual_clock.changed.notified());
            let remaining = remaining();
            if remaining.is_zero() {
                return;
            }
            match changed {
                Some(changed) => changed.await,
                // In steps of a second: tokio's timers notice neither that the wall clock is set nor a suspension.
                None => tokio::time::sleep(remaining.min(Duration::from_secs(1))).await,
            }
        }
    }
}

fn warn_clock_jump(jump: ClockJump, when: &str) {
    let (direction, seconds) = (if jump.by_ms < 0 { "back" } else { "forward" }, jump.by_ms.unsigned_abs() / 1000);
    tracing::warn!(
        "the clock went {direction} by {seconds} s {when}: nothing is deleted by age for a day of running time"
    );
}
