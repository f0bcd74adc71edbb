//! Maintenance beside serving: copies the audit events of all processes to the log, and deletes what retention no
//! longer keeps.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Clock};
use crate::domain::UnixMillis;
use crate::store::{ClockJump, EventCursor, EventFilter, Store, StoreError};
use crate::telemetry;
use crate::tokens::TokenService;
use crate::tree::Tree;

/// Time between two rounds.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Time until the next clean-up once one has nothing left to delete.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two writes of the clock's checkpoint while the clock does not jump.
const CLOCK_SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of events that are read at once.
const AUDIT_PAGE_EVENTS: usize = 500;

/// State of the task between two rounds.
struct MaintenanceTask {
    store: Store,
    tokens: TokenService,
    tree: Tree,
    last_logged_event: Option<u64>,
    next_cleanup: UnixMillis,
    clock: Clock,
    /// Running time of the last write of the clock's checkpoint, and the jumps that were pending then.
    last_saved_clock: Option<(Duration, Vec<ClockJump>)>,
}

/// Logs events and cleans up until `stop` is cancelled; logs events once more then.
pub(super) async fn run_maintenance(store: Store, auth: Authenticator, tree: Tree, stop: CancellationToken) {
    let clock = auth.clock().clone();
    let tokens = TokenService::new(store.clone(), clock.clone()).with_authenticator(auth);
    let (last_logged_event, next_cleanup) = (store.latest_event_id().ok(), clock.now());
    let mut task = MaintenanceTask {
        last_logged_event,
        store,
        tokens,
        tree,
        next_cleanup,
        clock: clock.clone(),
        last_saved_clock: None,
    };
    loop {
        // Read before the round: what is written until the stop is logged by one more round.
        let is_last = stop.is_cancelled();
        let run = tokio::task::spawn_blocking(move || {
            task.run_once(is_last);
            task
        });
        task = match run.await {
            Ok(task) => task,
            Err(error) => {
                return tracing::error!(%error, "the maintenance task failed: audit events are no longer logged");
            }
        };
        if is_last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
            () = clock.sleep_until(task.next_cleanup) => {}
        }
    }
}

impl MaintenanceTask {
    fn run_once(&mut self, is_last: bool) {
        self.save_clock(is_last);
        if let Err(error) = self.tree.end_locks_of_removed_users() {
            tracing::warn!(%error, "locks of removed users can't be released yet");
        }
        let now = self.tokens.now();
        // The second condition holds after a clock was set back, which must not delay the clean-up.
        if self.next_cleanup <= now || now.saturating_add(CLEANUP_INTERVAL) < self.next_cleanup {
            self.tree.discard_expired_uploads();
            if let Err(error) = self.store.restore_ballast() {
                tracing::warn!(%error, "the reserve on the disk of the state directory can't be allocated");
            }
            match self.tokens.apply_retention() {
                Ok(deleted) => {
                    self.next_cleanup = now.saturating_add(if deleted.may_have_more() {
                        MAINTENANCE_INTERVAL
                    } else {
                        CLEANUP_INTERVAL
                    })
                }
                Err(error) => {
                    self.next_cleanup = now.saturating_add(CLEANUP_INTERVAL);
                    tracing::warn!(%error, "the store was not cleaned up");
                }
            }
        }
        if let Err(error) = self.log_new_events() {
            tracing::warn!(%error, "the audit trail can't be read");
        }
    }

    /// Saves the clock's checkpoint for the next server process: at intervals, when the clock has jumped, and at the
    /// end.
    fn save_clock(&mut self, is_last: bool) {
        let Some(checkpoint) = self.clock.checkpoint() else { return };
        let boottime = self.clock.boottime();
        let is_recent = self.last_saved_clock.as_ref().is_some_and(|(at, jumps)| {
            boottime.saturating_sub(*at) < CLOCK_SAVE_INTERVAL && jumps.len() == checkpoint.jumps.len()
        });
        if is_recent && !is_last {
            return;
        }
        if let Err(error) = self.store.save_clock_checkpoint(&checkpoint) {
            tracing::warn!(%error, "the checkpoint of the clock was not saved");
        }
        // After a failure, too: a full disk must not cause a write every second.
        self.last_saved_clock = Some((boottime, checkpoint.jumps));
    }

    fn log_new_events(&mut self) -> Result<(), StoreError> {
        let mut last_logged_event = match self.last_logged_event {
            Some(last_logged_event) => last_logged_event,
            // Unknown after a failed read at the start. Older events were logged by the process before.
            None => self.store.latest_event_id()?,
        };
        loop {
            let events = self.store.audit_events(
                &EventFilter::default(),
                EventCursor::After(last_logged_event),
                AUDIT_PAGE_EVENTS,
            )?;
            events.iter().for_each(|row| telemetry::log_audit_event(&row.event));
            last_logged_event = events.last().map_or(last_logged_event, |row| row.id);
            // After each page, so that a failure later on logs no event twice.
            self.last_logged_event = Some(last_logged_event);
            if events.len() < AUDIT_PAGE_EVENTS {
                return Ok(());
            }
        }
    }
}
