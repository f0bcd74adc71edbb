//! Jumps of the wall clock against running time, and what may be deleted by age meanwhile.
//!
//! Nothing tells a clock that was wrong and is set right from one that was right and is set wrong. So a jump is *trusted*
//! only after a day of running time, in which an administrator can set the clock right again:
//!
//! * requests are judged by the wall clock at once;
//! * what is made final because it has expired (the note of a token's expiration) goes by [`ClockJumps::steady`], which
//!   leaves jumps out that are not trusted yet and is never ahead of the wall clock;
//! * what is deleted by age goes by [`ClockJumps::retention`], which waits as long as any jump is not trusted. A machine
//!   that is off every night jumps at every start: after a week of running time in which retention had to wait without a
//!   break, it goes by the steady time rather than never.

use std::time::Duration;

use crate::domain::UnixMillis;
use crate::store::{ClockCheckpoint, ClockJump};

/// Smallest difference between wall clock and running time that counts as a jump.
const JUMP: Duration = Duration::from_secs(3600);
/// Running time after which a jump is trusted.
const TRUSTED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Running time after which retention waits no longer for a clock that never comes to rest.
const WAIT_AT_MOST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Maximum number of jumps that are remembered one by one; older ones count as one.
const REMEMBERED: usize = 32;

/// What was seen of a clock.
#[derive(Debug, Default)]
pub(super) struct ClockJumps {
    last: Option<Seen>,
    /// The jumps that are not trusted yet, the oldest first.
    pending: Vec<ClockJump>,
    /// For how long there has been one, in milliseconds of running time.
    held_ms: u64,
    /// Whether what the last server remembered is in here.
    resumed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    wall: UnixMillis,
    running_ms: i64,
    /// Wall clock minus running time as it was when the clock was last in step.
    offset_ms: i64,
}

impl ClockJumps {
    /// Looks at both clocks; returns a jump that was not there at the last look.
    pub(super) fn look(&mut self, wall: UnixMillis, running: Duration) -> Option<ClockJump> {
        let running_ms = millis(running);
        let offset_ms = wall.as_millis().saturating_sub(running_ms);
        let Some(last) = self.last else {
            self.last = Some(Seen { wall, running_ms, offset_ms });
            return None;
        };
        self.pass(running_ms.saturating_sub(last.running_ms).unsigned_abs());
        let by_ms = offset_ms.saturating_sub(last.offset_ms);
        let jumped = by_ms.unsigned_abs() > JUMP.as_millis() as u64;
        let offset_ms = if jumped { offset_ms } else { last.offset_ms };
        self.last = Some(Seen { wall, running_ms, offset_ms });
        jumped.then(|| self.jump(by_ms))
    }

    /// Takes over what the last server remembered; returns the jump since. The clock must have been looked at. Where the
    /// machine has been off since, any time that it was off is a jump: nothing tells how long that was.
    pub(super) fn resume(&mut self, memory: ClockCheckpoint, boot: &str) -> Option<ClockJump> {
        let last = self.last?;
        if !std::mem::replace(&mut self.resumed, true) {
            self.pending.splice(0..0, memory.jumps);
            self.held_ms = self.held_ms.max(memory.retention_wait_ms);
        }
        let ran = last.running_ms.saturating_sub(i64::try_from(memory.boottime_ms).unwrap_or(i64::MAX));
        let ran = if !boot.is_empty() && memory.boot_id == boot { ran.max(0) } else { 0 };
        let by_ms = last.wall.as_millis().saturating_sub(memory.wall_time.as_millis()).saturating_sub(ran);
        (by_ms.unsigned_abs() > JUMP.as_millis() as u64).then(|| self.jump(by_ms))
    }

    /// Returns what the next server is to know; `None` before the first look.
    pub(super) fn memory(&self, boot: &str) -> Option<ClockCheckpoint> {
        let last = self.last?;
        Some(ClockCheckpoint {
            wall_time: last.wall,
            boottime_ms: last.running_ms.unsigned_abs(),
            boot_id: boot.to_owned(),
            retention_wait_ms: self.held_ms,
            jumps: self.pending.clone(),
        })
    }

    /// Returns the time at the last look without the jumps that are not trusted yet, and never ahead of the wall clock.
    pub(super) fn steady(&self) -> UnixMillis {
        let Some(Seen { wall, .. }) = self.last else { return UnixMillis::EARLIEST };
        let ahead = self.pending.iter().fold(0i64, |sum, jump| sum.saturating_add(jump.by_ms));
        wall.min(UnixMillis::from_millis(wall.as_millis().saturating_sub(ahead)))
    }

    /// Returns the time by which things are old enough to be deleted: the beginning of time while retention waits.
    pub(super) fn retention(&self) -> UnixMillis {
        let waits = !self.pending.is_empty() && self.held_ms < WAIT_AT_MOST.as_millis() as u64;
        if waits { UnixMillis::EARLIEST } else { self.steady() }
    }

    /// Lets running time pass.
    fn pass(&mut self, elapsed_ms: u64) {
        if self.pending.is_empty() {
            return;
        }
        self.held_ms = self.held_ms.saturating_add(elapsed_ms);
        for jump in &mut self.pending {
            jump.left_ms = jump.left_ms.saturating_sub(elapsed_ms);
        }
        self.pending.retain(|jump| jump.left_ms > 0);
        if self.pending.is_empty() {
            self.held_ms = 0;
        }
    }

    fn jump(&mut self, by_ms: i64) -> ClockJump {
        let jump = ClockJump { by_ms, left_ms: TRUSTED_AFTER.as_millis() as u64 };
        self.pending.push(jump);
        if self.pending.len() > REMEMBERED {
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

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    const START: i64 = 1_777_968_000_000;

    /// A wall clock and a running time, and what is seen of them.
    struct Clocks {
        wall: i64,
        running: i64,
        jumps: ClockJumps,
    }

    impl Clocks {
        fn new() -> Self {
            let mut clocks = Self { wall: START, running: 5_000, jumps: ClockJumps::default() };
            assert!(!clocks.look());
            clocks
        }

        fn look(&mut self) -> bool {
            let running = Duration::from_millis(self.running.unsigned_abs());
            self.jumps.look(UnixMillis::from_millis(self.wall), running).is_some()
        }

        fn run(&mut self, by: i64) -> bool {
            (self.wall, self.running) = (self.wall + by, self.running + by);
            self.look()
        }

        fn set(&mut self, by: i64) -> bool {
            self.wall += by;
            self.look()
        }

        fn waits(&self) -> bool {
            self.jumps.retention() == UnixMillis::EARLIEST
        }

        fn steady(&self) -> i64 {
            self.jumps.steady().as_millis()
        }

        fn restart(self, off: i64) -> Self {
            let memory = self.jumps.memory("a boot").expect("looked at");
            let mut next = Self { wall: self.wall + off, running: 1_000, jumps: ClockJumps::default() };
            next.look();
            next.jumps.resume(memory, "another");
            next
        }
    }

    #[test]
    fn steady_clock_lets_retention_go_on_for_years() {
        let mut clocks = Clocks::new();
        for _ in 0..100 {
            assert!(!clocks.run(40 * DAY) && !clocks.waits());
            assert_eq!(clocks.steady(), clocks.wall);
        }
        assert!(!clocks.set(59 * 60_000), "less than an hour is no jump");
        assert!(!clocks.waits());
        assert!(clocks.set(2 * 60_000), "small steps add up to one");
    }

    #[test]
    fn retention_waits_a_day_of_running_time_after_a_jump() {
        for by in [YEAR, -YEAR, 2 * HOUR, -2 * HOUR] {
            let mut clocks = Clocks::new();
            assert!(clocks.set(by) && clocks.waits());
            assert!(!clocks.run(DAY - 1) && clocks.waits(), "it is told once");
            assert!(!clocks.run(1) && !clocks.waits());
            assert_eq!(clocks.jumps.retention().as_millis(), clocks.wall);
        }
    }

    #[test]
    fn steady_time_goes_on_as_if_a_jump_ahead_had_not_been_and_never_runs_ahead_of_the_clock() {
        let mut clocks = Clocks::new();
        clocks.set(YEAR);
        clocks.run(HOUR);
        assert_eq!(clocks.steady(), START + HOUR);
        assert!(clocks.set(-YEAR), "set right again");
        assert_eq!(clocks.steady(), clocks.wall);
        clocks.set(-YEAR);
        assert_eq!(clocks.steady(), clocks.wall, "not ahead of what the clock shows");
        clocks.run(2 * DAY);
        assert_eq!(clocks.steady(), clocks.wall);
    }

    #[test]
    fn time_off_is_a_jump_at_the_next_start_and_what_is_left_of_the_wait_goes_on() {
        let clocks = Clocks::new().restart(60_000);
        assert!(!clocks.waits(), "a restart is no jump");
        let mut clocks = clocks.restart(90 * DAY);
        assert!(clocks.waits());
        clocks.run(DAY - HOUR);
        let mut clocks = clocks.restart(1_000);
        assert!(clocks.waits());
        clocks.run(HOUR);
        assert!(!clocks.waits(), "a day of running time, no more");
        assert!(clocks.restart(-YEAR).waits());
    }

    #[test]
    fn server_that_was_off_while_the_machine_ran_on_sees_no_jump_but_one_of_the_clock() {
        for (set, waits) in [(0, false), (YEAR, true), (-YEAR, true)] {
            let clocks = Clocks::new();
            let memory = clocks.jumps.memory("boot").expect("looked at");
            let (wall, running) = (clocks.wall + 90 * DAY + set, clocks.running + 90 * DAY);
            let mut next = Clocks { wall, running, jumps: ClockJumps::default() };
            next.look();
            assert_eq!(next.jumps.resume(memory, "boot").is_some(), waits);
            assert_eq!(next.waits(), waits);
        }
    }

    #[test]
    fn machine_that_is_off_every_night_keeps_retention_from_waiting_for_ever() {
        let mut clocks = Clocks::new();
        for _ in 0..40 {
            clocks = clocks.restart(16 * HOUR);
            clocks.run(8 * HOUR);
        }
        assert!(!clocks.waits());
        let lag = clocks.wall - clocks.jumps.retention().as_millis();
        assert!(lag > 0 && lag < 4 * DAY, "by the steady time: {lag}");
        clocks.set(10 * YEAR);
        let lag = clocks.wall - clocks.jumps.retention().as_millis();
        assert!(lag >= 10 * YEAR, "a jump still deletes nothing");
    }

    #[test]
    fn many_jumps_take_bounded_memory_and_none_is_forgotten() {
        let mut clocks = Clocks::new();
        for _ in 0..1000 {
            clocks.set(2 * HOUR);
        }
        assert_eq!(clocks.jumps.pending.len(), REMEMBERED);
        assert_eq!(clocks.steady(), START);
    }
}
