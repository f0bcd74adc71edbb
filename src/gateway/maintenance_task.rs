//! Maintenance beside serving: copies the audit events of all processes to the log and to collectors, and deletes what retention no
//! longer keeps.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::audit_forwarder::AuditForwarder;
use super::untrusted_proxy_file::UntrustedProxyFile;
use crate::auth::{Authenticator, Clock};
use crate::domain::UnixMillis;
use crate::http;
use crate::store::{ClockJump, EventCursor, EventFilter, Store, StoreError};
use crate::telemetry::{self, OperationRecorder};
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
    audit_forwarder: AuditForwarder,
    untrusted_proxy_file: UntrustedProxyFile,
    next_cleanup: UnixMillis,
    clock: Clock,
    /// Record in which events are counted.
    recorder: Arc<OperationRecorder>,
    /// Running time of the last write of the clock's checkpoint, and the jumps that were pending then.
    last_saved_clock: Option<(Duration, Vec<ClockJump>)>,
}

/// Logs events and cleans up until `stop` is cancelled; logs events once more then.
pub(super) async fn run_maintenance(
    store: Store,
    auth: Authenticator,
    tree: Tree,
    recorder: Arc<OperationRecorder>,
    audit_forwarder: AuditForwarder,
    stop: CancellationToken,
) {
    let clock = auth.clock().clone();
    let tokens = TokenService::new(store.clone(), clock.clone()).with_authenticator(auth);
    let (last_logged_event, next_cleanup) = (store.latest_event_id().ok(), clock.now());
    let mut task = MaintenanceTask {
        last_logged_event,
        audit_forwarder,
        untrusted_proxy_file: UntrustedProxyFile::new(store.state_dir()),
        store,
        tokens,
        tree,
        next_cleanup,
        clock: clock.clone(),
        recorder,
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
            // No panic, which `run_step` catches: the runtime ends.
            Err(error) => return tracing::error!(%error, "the maintenance task has ended"),
        };
        if is_last {
            let closed = tokio::task::spawn_blocking(move || task.audit_forwarder.close()).await;
            return closed.unwrap_or_else(|error| tracing::warn!(%error, "audit events were not forwarded"));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
            () = clock.sleep_until(task.next_cleanup) => {}
        }
    }
}

impl MaintenanceTask {
    /// Runs one round. A step that panics is logged, and tried again in the next round; the others don't depend on it.
    fn run_once(&mut self, is_last: bool) {
        run_step("saving the clock's checkpoint", || self.save_clock(is_last));
        run_step("releasing the locks of removed users", || {
            if let Err(error) = self.tree.end_locks_of_removed_users() {
                tracing::warn!(%error, "locks of removed users can't be released yet");
            }
        });
        run_step("cleaning up", || self.clean_up());
        run_step("copying audit events to the log", || {
            if let Err(error) = self.log_new_events() {
                tracing::warn!(%error, "the audit trail can't be read");
            }
        });
        run_step("forwarding audit events", || {
            if let Err(error) = self.audit_forwarder.forward_new_events(&self.store) {
                tracing::warn!(%error, "the audit trail can't be read");
            }
        });
        run_step("recording an untrusted proxy", || {
            if let Err(error) = self.untrusted_proxy_file.record(http::untrusted_proxy()) {
                tracing::warn!(%error, "the address of an untrusted proxy can't be recorded");
            }
        });
    }

    /// Deletes what retention no longer keeps, when that is due.
    fn clean_up(&mut self) {
        let now = self.tokens.now();
        // The second condition holds after a clock was set back, which must not delay the clean-up.
        if self.next_cleanup > now && now.saturating_add(CLEANUP_INTERVAL) >= self.next_cleanup {
            return;
        }
        // First, so that a clean-up that panics is not tried again at once.
        self.next_cleanup = now.saturating_add(CLEANUP_INTERVAL);
        self.tree.discard_expired_uploads();
        if let Err(error) = self.store.restore_ballast() {
            tracing::warn!(%error, "the reserve on the disk of the state directory can't be allocated");
        }
        match self.tokens.apply_retention() {
            Ok(deleted) if deleted.may_have_more() => self.next_cleanup = now.saturating_add(MAINTENANCE_INTERVAL),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the store was not cleaned up"),
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
            for row in &events {
                telemetry::log_audit_event(&row.event);
                self.recorder.count_audit_event(&row.event);
            }
            last_logged_event = events.last().map_or(last_logged_event, |row| row.id);
            // After each page, so that a failure later on logs no event twice.
            self.last_logged_event = Some(last_logged_event);
            if events.len() < AUDIT_PAGE_EVENTS {
                return Ok(());
            }
        }
    }
}

/// Runs one step of a round; a panic of it is logged, and ends no other step.
fn run_step(name: &'static str, step: impl FnOnce()) {
    // What the step has changed in the task is a cursor or a time each, none of which a panic leaves invalid.
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(step)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        tracing::error!(panic = text, "{name} failed: it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::panic_after_commits;
    use crate::tree::testing::TreeFixture;

    #[test]
    fn step_that_panics_keeps_no_other_step_from_running() {
        let fixture = TreeFixture::new(&[]);
        let tokens = TokenService::new(fixture.store.clone(), fixture.clock.clone());
        let mut task = MaintenanceTask {
            store: fixture.store.clone(),
            tokens,
            tree: fixture.tree.clone(),
            last_logged_event: fixture.store.latest_event_id().ok(),
            audit_forwarder: AuditForwarder::default(),
            untrusted_proxy_file: UntrustedProxyFile::new(fixture.store.state_dir()),
            next_cleanup: fixture.clock.now(),
            clock: fixture.clock.clone(),
            recorder: Arc::default(),
            last_saved_clock: None,
        };
        let event = AuditEvent::new(fixture.clock.now(), EventKind::SessionEnded);
        fixture.store.record_events(&[event]).expect("recorded");
        panic_after_commits(Some(0));
        task.run_once(false);
        assert!(panic_after_commits(None), "the checkpoint of the clock is written first");
        assert!(task.next_cleanup > fixture.clock.now());
        assert_eq!(task.last_logged_event, fixture.store.latest_event_id().ok());
        task.run_once(false);
        assert!(fixture.store.clock_checkpoint().expect("read").is_some(), "tried again");
    }
}
