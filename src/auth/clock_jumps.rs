//! Jumps of the wall clock against running time, and what may be deleted by age meanwhile.
//!
//! A clock that was wrong and is corrected can't be told from one that was right and is set wrong. So a jump is
//! *trusted* only after a day of running time, in which an administrator can correct the clock:
//!
//! * requests are checked against the wall clock at once;
//! * an expiration becomes final (is recorded in the token's row) by [`ClockJumps::steady_time`], which excludes jumps
//!   that are not trusted yet and is never ahead of the wall clock;
//! * last uses that are ahead of the clock are corrected once every jump is trusted;
//! * rows are deleted by age according to [`ClockJumps::retention_time`], which waits while any jump is not trusted. A
//!   machine that is off every night jumps at every start: after a week of running time in which retention had to wait
//!   without a break, it uses the steady time rather than waiting for ever.

use std::time::Duration;

use crate::domain::UnixMillis;
use crate::store::{ClockCheckpoint, ClockJump};

/// Smallest difference between wall clock and running time that counts as a jump.
const MIN_CLOCK_JUMP: Duration = Duration::from_secs(3600);
/// Running time after which a jump is trusted.
const JUMP_TRUST_DELAY: Duration = Duration::from_secs(24 * 3600);
/// Running time after which retention no longer waits for a clock that keeps jumping.
const MAX_RETENTION_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Maximum number of pending jumps; older ones are merged into one.
const MAX_PENDING_JUMPS: usize = 32;

/// Jumps that were observed of a clock.
#[derive(Debug, Default)]
pub(super) struct ClockJumps {
    last: Option<ClockReading>,
    /// Jumps that are not trusted yet, the oldest first.
    pending: Vec<ClockJump>,
    /// Milliseconds of running time for which there has been one without a break.
    retention_wait_ms: u64,
    /// Whether the checkpoint of the last server process is included.
    restored: bool,
}

#[derive(Clone, Copy, Debug)]
struct ClockReading {
    wall: UnixMillis,
    boottime_ms: i64,
    /// Wall clock minus running time, as of the first observation or the last jump.
    offset_ms: i64,
}

impl ClockJumps {
    /// Observes both clocks; returns a jump since the last observation.
    pub(super) fn observe(&mut self, wall: UnixMillis, boottime: Duration) -> Option<ClockJump> {
        let boottime_ms = millis(boottime);
        let offset_ms = wall.as_millis().saturating_sub(boottime_ms);
        let Some(last) = self.last else {
            self.last = Some(ClockReading { wall, boottime_ms, offset_ms });
            return None;
        };
        // Before a new jump is added: time that passed before it earns it no trust.
        self.elapse(boottime_ms.saturating_sub(last.boottime_ms).unsigned_abs());
        let by_ms = offset_ms.saturating_sub(last.offset_ms);
        let jumped = by_ms.unsigned_abs() > MIN_CLOCK_JUMP.as_millis() as u64;
        // Small differences don't move the reference: steps of some minutes that add up to an hour are a jump, too.
        let offset_ms = if jumped { offset_ms } else { last.offset_ms };
        self.last = Some(ClockReading { wall, boottime_ms, offset_ms });
        jumped.then(|| self.push_jump(by_ms))
    }

    /// Takes over the checkpoint of the last server process; returns the jump since. The clock must have been observed
    /// before. Where the machine was off in between, all that time counts as a jump: no clock measured it.
    pub(super) fn restore(&mut self, checkpoint: ClockCheckpoint, boot_id: &str) -> Option<ClockJump> {
        let last = self.last?;
        // Once for each clock: a gateway that is opened again in this process has these jumps already.
        if !std::mem::replace(&mut self.restored, true) {
            // They are older than anything observed here, and the oldest come first.
            self.pending.splice(0..0, checkpoint.jumps);
            self.retention_wait_ms = self.retention_wait_ms.max(checkpoint.retention_wait_ms);
        }
        let elapsed_ms = last.boottime_ms.saturating_sub(i64::try_from(checkpoint.boottime_ms).unwrap_or(i64::MAX));
        // Running time counts from the boot. Without the same boot id the two values can't be compared.
        let elapsed_ms = if !boot_id.is_empty() && checkpoint.boot_id == boot_id { elapsed_ms.max(0) } else { 0 };
        let by_ms = last.wall.as_millis().saturating_sub(checkpoint.wall_time.as_millis()).saturating_sub(elapsed_ms);
        (by_ms.unsigned_abs() > MIN_CLOCK_JUMP.as_millis() as u64).then(|| self.push_jump(by_ms))
    }

    /// Returns the checkpoint for the next server process; `None` before the first observation.
    pub(super) fn checkpoint(&self, boot_id: &str) -> Option<ClockCheckpoint> {
        let last = self.last?;
        Some(ClockCheckpoint {
            wall_time: last.wall,
            boottime_ms: last.boottime_ms.unsigned_abs(),
            boot_id: boot_id.to_owned(),
            retention_wait_ms: self.retention_wait_ms,
            jumps: self.pending.clone(),
        })
    }

    /// Returns the time of the last observation without the jumps that are not trusted yet, never ahead of the wall
    /// clock.
    pub(super) fn steady_time(&self) -> UnixMillis {
        let Some(ClockReading { wall, .. }) = self.last else { return UnixMillis::EARLIEST };
        let untrusted_ms = self.pending.iter().fold(0i64, |sum, jump| sum.saturating_add(jump.by_ms));
        // Jumps back are negative, and leaving them out would put the time ahead of the wall clock.
        wall.min(UnixMillis::from_millis(wall.as_millis().saturating_sub(untrusted_ms)))
    }

    /// Tells whether every jump is trusted.
    pub(super) fn is_trusted(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the time by which rows are old enough to be deleted: the earliest instant while retention waits.
    pub(super) fn retention_time(&self) -> UnixMillis {
        let must_wait = !self.pending.is_empty() && self.retention_wait_ms < MAX_RETENTION_WAIT.as_millis() as u64;
        if must_wait { UnixMillis::EARLIEST } else { self.steady_time() }
    }

    /// Counts running time towards the trust in pending jumps.
    fn elapse(&mut self, elapsed_ms: u64) {
        if self.pending.is_empty() {
            return;
        }
        self.retention_wait_ms = self.retention_wait_ms.saturating_add(elapsed_ms);
        for jump in &mut self.pending {
            jump.left_ms = jump.left_ms.saturating_sub(elapsed_ms);
        }
        // From here on these jumps are trusted: the wall clock is right, as far as anybody knows.
        self.pending.retain(|jump| jump.left_ms > 0);
        if self.pending.is_empty() {
            // The week of waiting has to be without a break.
            self.retention_wait_ms = 0;
        }
    }

    fn push_jump(&mut self, by_ms: i64) -> ClockJump {
        let jump = ClockJump { by_ms, left_ms: JUMP_TRUST_DELAY.as_millis() as u64 };
        self.pending.push(jump);
        if self.pending.len() > MAX_PENDING_JUMPS {
            // The two oldest become one that waits as long as the younger: the steady time stays the same, and nothing
            // is trusted early.
            let oldest = self.pending.remove(0);
            let next = &mut self.pending[0];
            *next = ClockJump { by_ms: next.by_ms.saturating_add(oldest.by_ms), ..*next };
        }
        jump
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    const YEAR_MS: i64 = 365 * DAY_MS;
    const START_MS: i64 = 1_777_968_000_000;

    /// Wall clock and running time, and the jumps that are observed of them.
    struct TestClocks {
        wall: i64,
        boottime: i64,
        jumps: ClockJumps,
    }

    impl TestClocks {
        fn new() -> Self {
            let mut clocks = Self { wall: START_MS, boottime: 5_000, jumps: ClockJumps::default() };
            assert!(!clocks.observe());
            clocks
        }

        fn observe(&mut self) -> bool {
            let boottime = Duration::from_millis(self.boottime.unsigned_abs());
            self.jumps.observe(UnixMillis::from_millis(self.wall), boottime).is_some()
        }

        fn advance(&mut self, by: i64) -> bool {
            (self.wall, self.boottime) = (self.wall + by, self.boottime + by);
            self.observe()
        }

        fn shift_wall_clock(&mut self, by: i64) -> bool {
            self.wall += by;
            self.observe()
        }

        fn retention_waits(&self) -> bool {
            self.jumps.retention_time() == UnixMillis::EARLIEST
        }

        fn steady_time(&self) -> i64 {
            self.jumps.steady_time().as_millis()
        }

        fn restart(self, off: i64) -> Self {
            let checkpoint = self.jumps.checkpoint("a boot").expect("observed");
            let mut next = Self { wall: self.wall + off, boottime: 1_000, jumps: ClockJumps::default() };
            next.observe();
            next.jumps.restore(checkpoint, "another");
            next
        }
    }

    #[test]
    fn retention_runs_while_clock_is_steady() {
        let mut clocks = TestClocks::new();
        for _ in 0..100 {
            assert!(!clocks.advance(40 * DAY_MS) && !clocks.retention_waits());
            assert_eq!(clocks.steady_time(), clocks.wall);
        }
        assert!(!clocks.shift_wall_clock(59 * 60_000), "less than an hour is no jump");
        assert!(!clocks.retention_waits());
        assert!(clocks.shift_wall_clock(2 * 60_000), "small steps add up to one");
    }

    #[test]
    fn retention_waits_one_day_of_boottime_after_jump() {
        for by in [YEAR_MS, -YEAR_MS, 2 * HOUR_MS, -2 * HOUR_MS] {
            let mut clocks = TestClocks::new();
            assert!(clocks.shift_wall_clock(by) && clocks.retention_waits());
            assert!(!clocks.advance(DAY_MS - 1) && clocks.retention_waits(), "it is reported once");
            assert!(!clocks.advance(1) && !clocks.retention_waits());
            assert_eq!(clocks.jumps.retention_time().as_millis(), clocks.wall);
        }
    }

    #[test]
    fn steady_time_ignores_untrusted_jumps_and_never_exceeds_wall_clock() {
        let mut clocks = TestClocks::new();
        clocks.shift_wall_clock(YEAR_MS);
        clocks.advance(HOUR_MS);
        assert_eq!(clocks.steady_time(), START_MS + HOUR_MS);
        assert!(clocks.shift_wall_clock(-YEAR_MS), "corrected");
        assert_eq!(clocks.steady_time(), clocks.wall);
        clocks.shift_wall_clock(-YEAR_MS);
        assert_eq!(clocks.steady_time(), clocks.wall, "not ahead of what the clock shows");
        clocks.advance(2 * DAY_MS);
        assert_eq!(clocks.steady_time(), clocks.wall);
    }

    #[test]
    fn machine_downtime_is_a_jump_and_pending_wait_resumes() {
        let clocks = TestClocks::new().restart(60_000);
        assert!(!clocks.retention_waits(), "a restart is no jump");
        let mut clocks = clocks.restart(90 * DAY_MS);
        assert!(clocks.retention_waits());
        clocks.advance(DAY_MS - HOUR_MS);
        let mut clocks = clocks.restart(1_000);
        assert!(clocks.retention_waits());
        clocks.advance(HOUR_MS);
        assert!(!clocks.retention_waits(), "a day of running time, no more");
        assert!(clocks.restart(-YEAR_MS).retention_waits());
    }

    #[test]
    fn server_downtime_on_running_machine_is_not_a_jump() {
        for (set, waits) in [(0, false), (YEAR_MS, true), (-YEAR_MS, true)] {
            let clocks = TestClocks::new();
            let checkpoint = clocks.jumps.checkpoint("boot").expect("observed");
            let (wall, boottime) = (clocks.wall + 90 * DAY_MS + set, clocks.boottime + 90 * DAY_MS);
            let mut next = TestClocks { wall, boottime, jumps: ClockJumps::default() };
            next.observe();
            assert_eq!(next.jumps.restore(checkpoint, "boot").is_some(), waits);
            assert_eq!(next.retention_waits(), waits);
        }
    }

    #[test]
    fn retention_resumes_on_machine_powered_off_every_night() {
        let mut clocks = TestClocks::new();
        for _ in 0..40 {
            clocks = clocks.restart(16 * HOUR_MS);
            clocks.advance(8 * HOUR_MS);
        }
        assert!(!clocks.retention_waits());
        let lag = clocks.wall - clocks.jumps.retention_time().as_millis();
        assert!(lag > 0 && lag < 4 * DAY_MS, "by the steady time: {lag}");
        clocks.shift_wall_clock(10 * YEAR_MS);
        let lag = clocks.wall - clocks.jumps.retention_time().as_millis();
        assert!(lag >= 10 * YEAR_MS, "a jump still deletes nothing");
    }

    #[test]
    fn many_jumps_are_merged_within_bound() {
        let mut clocks = TestClocks::new();
        for _ in 0..1000 {
            clocks.shift_wall_clock(2 * HOUR_MS);
        }
        assert_eq!(clocks.jumps.pending.len(), MAX_PENDING_JUMPS);
        assert_eq!(clocks.steady_time(), START_MS);
    }
}
