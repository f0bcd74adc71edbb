//! Checkpoints of the clock, by which the next server notices that the clock jumped while none ran.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::UnixMillis;

/// A jump of the wall clock that is not trusted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockJump {
    /// Distance in milliseconds; negative where the clock was set back.
    pub by_ms: i64,
    /// Running time of the machine until the jump is trusted, in milliseconds.
    pub left_ms: u64,
}

/// The state of the clock as a server last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockCheckpoint {
    /// Last time of the wall clock.
    pub wall_time: UnixMillis,
    /// `CLOCK_BOOTTIME` at that moment, in milliseconds.
    pub boottime_ms: u64,
    /// Boot id of the machine at that moment; empty where it is not known.
    pub boot_id: String,
    /// Time that retention has been suspended without interruption, in milliseconds of running time.
    pub retention_wait_ms: u64,
    /// The jumps that are not trusted yet, the oldest first.
    pub jumps: Vec<ClockJump>,
}

impl ClockCheckpoint {
    /// Returns a checkpoint of which only the wall time is known.
    pub(crate) fn from_wall_time(seen_at: UnixMillis) -> Self {
        Self { wall_time: seen_at, boottime_ms: 0, boot_id: String::new(), retention_wait_ms: 0, jumps: Vec::new() }
    }
}

impl Store {
    /// Returns the checkpoint of the last server. For a store that no server of this version has used yet, that is the
    /// time of its last event; `None` for one without events.
    pub fn clock_checkpoint(&self) -> Result<Option<ClockCheckpoint>> {
        self.snapshot(|c| {
            let row = c
                .query_row("SELECT wall_time, retention_wait_ms, jumps, boottime_ms, boot_id FROM clock", [], |row| {
                    let millis = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                    let checkpoint = ClockCheckpoint {
                        wall_time: row.get(0)?,
                        boottime_ms: millis(3)?,
                        boot_id: row.get(4)?,
                        retention_wait_ms: millis(1)?,
                        jumps: Vec::new(),
                    };
                    Ok((checkpoint, row.get::<_, String>(2)?))
                })
                .optional()?;
            let Some((checkpoint, jumps)) = row else {
                // No server of this version has run yet: the last event is the latest time that is known.
                let last: Option<UnixMillis> = c.query_row("SELECT max(at) FROM events", [], |row| row.get(0))?;
                return Ok(last.map(ClockCheckpoint::from_wall_time));
            };
            let jumps = serde_json::from_str(&jumps).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            Ok(Some(ClockCheckpoint { jumps, ..checkpoint }))
        })
    }

    /// Stores the checkpoint of the clock. A power cut may lose it.
    pub(crate) fn save_clock_checkpoint(&self, checkpoint: &ClockCheckpoint) -> Result<()> {
        let jumps = serde_json::to_string(&checkpoint.jumps).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let millis = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let (retention_wait_ms, boottime_ms) = (millis(checkpoint.retention_wait_ms), millis(checkpoint.boottime_ms));
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let sql = "INSERT INTO clock (\"only\", wall_time, retention_wait_ms, jumps, boottime_ms, boot_id)
                VALUES (1, ?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (\"only\") DO UPDATE SET wall_time = excluded.wall_time,
                    retention_wait_ms = excluded.retention_wait_ms, jumps = excluded.jumps,
                    boottime_ms = excluded.boottime_ms, boot_id = excluded.boot_id";
            Ok(t.prepare_cached(sql)?
                .execute(params![checkpoint.wall_time, retention_wait_ms, jumps, boottime_ms, checkpoint.boot_id])
                .map(drop)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::{now, open_temp_store};

    #[test]
    fn clock_checkpoint_persists_and_defaults_to_last_event() {
        let (temp_dir, store) = open_temp_store();
        assert_eq!(store.clock_checkpoint().expect("read"), None);
        store.record_events(&[AuditEvent::new(now(), EventKind::AttemptRefused)]).expect("recorded");
        assert_eq!(store.clock_checkpoint().expect("read"), Some(ClockCheckpoint::from_wall_time(now())));
        let checkpoint = ClockCheckpoint {
            boottime_ms: 3,
            boot_id: "boot".to_owned(),
            retention_wait_ms: 7,
            jumps: vec![ClockJump { by_ms: -5, left_ms: 9 }],
            ..ClockCheckpoint::from_wall_time(now())
        };
        store.save_clock_checkpoint(&checkpoint).expect("written");
        let state = store.state_dir().to_owned();
        drop(store);
        let store = Store::open(&state).expect("opens");
        assert_eq!(store.clock_checkpoint().expect("read"), Some(checkpoint));
        drop(temp_dir);
    }
}
