//! What a server remembers of the clock, so that the next one notices that it jumped while none ran.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Durability, Result, Store, StoreError};
use crate::domain::UnixMillis;

/// A jump of the clock that is not trusted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockJump {
    /// Distance in milliseconds; negative where the clock was set back.
    pub by_ms: i64,
    /// Running time until it is trusted, in milliseconds.
    pub left_ms: u64,
}

/// What a server remembers of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockMemory {
    /// The last time that it showed.
    pub seen_at: UnixMillis,
    /// For how long the machine had been running then, in milliseconds.
    pub running_ms: u64,
    /// Which start of the machine that was; empty where it is not known.
    pub boot: String,
    /// For how long retention has been waiting without a break, in milliseconds of running time.
    pub held_ms: u64,
    /// The jumps that are not trusted yet, the oldest first.
    pub jumps: Vec<ClockJump>,
}

impl ClockMemory {
    /// Returns what is known where all that is known is a time that the clock showed.
    pub(crate) fn of(seen_at: UnixMillis) -> Self {
        Self { seen_at, running_ms: 0, boot: String::new(), held_ms: 0, jumps: Vec::new() }
    }
}

impl Store {
    /// Returns what the last server remembered of the clock. For a store that none has served yet with this version,
    /// that is the time of its last event; `None` for one without events.
    pub fn clock_memory(&self) -> Result<Option<ClockMemory>> {
        self.snapshot(|c| {
            let row = c
                .query_row("SELECT seen_at, held_ms, jumps, running_ms, boot FROM clock", [], |row| {
                    let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                    let memory = ClockMemory {
                        seen_at: row.get(0)?,
                        running_ms: number(3)?,
                        boot: row.get(4)?,
                        held_ms: number(1)?,
                        jumps: Vec::new(),
                    };
                    Ok((memory, row.get::<_, String>(2)?))
                })
                .optional()?;
            let Some((memory, jumps)) = row else {
                let last: Option<UnixMillis> = c.query_row("SELECT max(at) FROM events", [], |row| row.get(0))?;
                return Ok(last.map(ClockMemory::of));
            };
            let jumps = serde_json::from_str(&jumps).map_err(|error| StoreError::Damaged(error.to_string()))?;
            Ok(Some(ClockMemory { jumps, ..memory }))
        })
    }

    /// Writes down what is to be remembered of the clock. A power cut may lose it.
    pub(crate) fn remember_clock(&self, memory: &ClockMemory) -> Result<()> {
        let jumps = serde_json::to_string(&memory.jumps).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let number = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let (held_ms, running_ms) = (number(memory.held_ms), number(memory.running_ms));
        self.write_freeing(Durability::Lazy, |t| {
            let sql = "INSERT OR REPLACE INTO clock (only, seen_at, held_ms, jumps, running_ms, boot)
                VALUES (1, ?1, ?2, ?3, ?4, ?5)";
            Ok(t.prepare_cached(sql)?
                .execute(params![memory.seen_at, held_ms, jumps, running_ms, memory.boot])
                .map(drop)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::{now, opened};

    #[test]
    fn clock_memory_survives_the_process_and_begins_with_the_last_event() {
        let (folder, store) = opened();
        assert_eq!(store.clock_memory().expect("read"), None);
        store.record(&[AuditEvent::new(now(), EventKind::AttemptRefused)]).expect("noted");
        assert_eq!(store.clock_memory().expect("read"), Some(ClockMemory::of(now())));
        let memory = ClockMemory {
            running_ms: 3,
            boot: "boot".to_owned(),
            held_ms: 7,
            jumps: vec![ClockJump { by_ms: -5, left_ms: 9 }],
            ..ClockMemory::of(now())
        };
        store.remember_clock(&memory).expect("written");
        let state = store.state().to_owned();
        drop(store);
        let store = Store::open(&state).expect("opens");
        assert_eq!(store.clock_memory().expect("read"), Some(memory));
        drop(folder);
    }
}
