//! Revalidates open sessions that send no request, and writes uses and events to the store.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::AuthCore;
use super::last_used::LastUsedTable;
use crate::domain::{AuditEvent, UsageCount};
use crate::store::{StoreError, TokenUse};

/// Time between two polls for writes of other processes; those of this process that advance the epoch wake the watcher.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Number of failed polls in a row after which all sessions end, because their tokens can't be checked.
const MAX_CONSECUTIVE_FAILURES: u32 = 4;
/// Minimum time between two warnings about failed writes.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Time to wait for another thread that writes uses, which may itself wait for another process.
const FLUSH_LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Version of the store that was last handled, and the number of failures since.
#[derive(Default)]
pub(super) struct StoreWatchState {
    version: Option<(u64, i64)>,
    failures: u32,
}

impl AuthCore {
    /// Watches the store until `stop` is cancelled; then writes all uses and events.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut state = StoreWatchState::default();
        let mut flush: Option<JoinHandle<()>> = None;
        loop {
            // Registered before the poll: a write that comes meanwhile starts the next round at once.
            let changed = self.store.changed();
            let (core, failures) = (self.clone(), state.failures);
            let poll = self.watcher_pool.run(move || {
                core.poll_store(&mut state);
                state
            });
            state = poll.await.unwrap_or_else(|| self.record_panicked_poll(failures));
            // Not awaited: a flush may queue behind another process, and sessions have to end within a second.
            if flush.as_ref().is_none_or(JoinHandle::is_finished) {
                if let Some(finished) = flush.take() {
                    log_panicked_flush(finished.await);
                }
                let core = self.clone();
                flush = Some(spawn_blocking(move || core.flush_due()));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
        let core = self.clone();
        if let Err(error) = spawn_blocking(move || core.flush()).await {
            tracing::error!(%error, "the last uses of tokens were not written to the store");
        }
    }

    /// Polls the store once, and ends or narrows the sessions of tokens that changed.
    pub(super) fn poll_store(&self, state: &mut StoreWatchState) {
        match self.revalidate_sessions(state) {
            Ok(()) => state.failures = 0,
            Err(error) => {
                state.failures += 1;
                tracing::error!(%error, "the tokens of open sessions can't be read from the store");
            }
        }
        self.close_sessions_after_failures(state.failures);
        match self.defender.reload(&self.store) {
            Ok(true) => self.close_refused_sessions(),
            Ok(false) => {}
            // Those in memory hold until they can be read.
            Err(error) => self.warn_store("bans can't be read from the store", &error),
        }
        self.token_cache.evict_idle(self.clock.boottime_ms());
    }

    /// Counts a poll that panicked after `failures` others had failed, and returns the state for the next one.
    fn record_panicked_poll(&self, failures: u32) -> StoreWatchState {
        // Without a version: how far the poll got is unknown, so that the next one reads everything.
        let state = StoreWatchState { version: None, failures: failures.saturating_add(1) };
        self.close_sessions_after_failures(state.failures);
        state
    }

    /// Closes all sessions once too many polls in a row have failed.
    fn close_sessions_after_failures(&self, failures: u32) {
        // Fails closed after about a second: a revocation may be among the rows that can't be read.
        if failures >= MAX_CONSECUTIVE_FAILURES {
            self.token_cache.all().iter().for_each(|cached_token| cached_token.invalidate());
        }
    }

    /// Writes the uses and events that are due.
    pub(super) fn flush_due(&self) {
        // Repairs what a killed process or another program left published: every request reads the store until then.
        if let Err(error) = self.store.republish_epoch() {
            tracing::warn!(%error, "the store's epoch can't be published: every request reads the store");
        }
        let now = self.clock.now();
        // Uses before expirations: the store computes the instant of an expiration from the last use in the row.
        self.record_uses(|uses| uses.take_due(now), false);
        self.record_expired();
        if let Err(error) = self.defender.store_bans(&self.store, now) {
            self.warn_not_written("bans", &error);
        }
        self.persist(self.audit_buffer.take_due(now), self.usage_counters.take_due(now));
    }

    /// Writes all uses and events.
    pub(super) fn flush(&self) {
        self.record_uses(LastUsedTable::take_all, true);
        self.record_expired();
        self.persist(self.audit_buffer.take_all(self.clock.now()), self.usage_counters.take_all());
    }

    /// Writes all uses; returns whether that succeeded.
    pub(super) fn flush_uses(&self) -> bool {
        self.record_uses(LastUsedTable::take_all, false)
    }

    /// Writes the uses that `take` takes from memory; returns whether that succeeded.
    fn record_uses(&self, take: impl FnOnce(&LastUsedTable) -> Vec<TokenUse>, is_last: bool) -> bool {
        // Held from taking to writing: in between, the uses are no longer pending in memory and not yet in the store.
        let Some(_flushing) = self.flush_lock.try_lock_for(FLUSH_LOCK_TIMEOUT) else { return false };
        // While a jump of the clock is not trusted yet, nobody knows which of the two times was right.
        let latest =
            self.clock.is_trusted().then(|| self.last_used.correct(self.clock.now(), self.clock.boottime_ms()));
        let uses = Unwritten::new(take(&self.last_used), |uses| self.last_used.restore(&uses));
        let result = if uses.is_empty() { Ok(()) } else { self.store.record_uses(&uses, latest, is_last) };
        match &result {
            Ok(()) => self.last_used.mark_written(&uses.into_written()),
            Err(error) => {
                drop(uses);
                self.warn_not_written("uses of tokens", error);
            }
        }
        result.is_ok()
    }

    /// Writes which tokens have expired for good, as the requests found out that were refused for it.
    fn record_expired(&self) {
        let expired = Unwritten::new(self.last_used.take_expired(), |expired| self.last_used.restore_expired(&expired));
        if expired.is_empty() {
            return;
        }
        match self.store.mark_tokens_expired(&expired, self.clock.now()) {
            Ok(_) => drop(expired.into_written()),
            Err(error) => {
                drop(expired);
                self.warn_not_written("expirations of tokens", &error);
            }
        }
    }

    /// Writes which networks tokens are used from, with the events of first uses and new addresses.
    fn record_addresses(&self) {
        let addresses = self.last_used.new_addresses();
        if addresses.is_empty() {
            return;
        }
        match self.store.record_addresses(&addresses) {
            // Only now: memory knows their networks and would not report them again, so that a failed write would lose
            // the events of first uses and new addresses for good.
            Ok(()) => self.last_used.mark_addresses_written(&addresses),
            Err(error) => self.warn_not_written("addresses that tokens are used from", &error),
        }
    }

    /// Logs a failed write, at most once in [`WARNING_INTERVAL`]: a full disk lasts, and writes are tried several times
    /// a second.
    fn warn_not_written(&self, what: &str, error: &StoreError) {
        let message = format!("{what} were not written to the store: they are kept in memory, and tried again");
        self.warn_store(&message, error);
    }

    /// Logs a fault of the store, at most once in [`WARNING_INTERVAL`].
    fn warn_store(&self, message: &str, error: &StoreError) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned_at = Some(Instant::now());
            tracing::warn!(%error, "{message}");
        }
    }

    fn revalidate_sessions(&self, state: &mut StoreWatchState) -> Result<(), StoreError> {
        // Before the epoch: a write in between differs from this version, and is handled by the next poll.
        let version = self.store.data_version()?;
        if state.version == Some(version) {
            return Ok(());
        }
        let epoch = self.store.epoch()?;
        let tokens = self.token_cache.in_use();
        // All are read, also after a failure: one damaged row must not keep the other sessions from ending.
        let results = tokens.iter().map(|cached_token| cached_token.revalidate(epoch, &self.store, &self.last_used));
        results.fold(Ok(()), Result::and)?;
        // Only after success: a round that failed is repeated.
        state.version = Some(version);
        Ok(())
    }

    fn persist(&self, events: Vec<AuditEvent>, counts: Vec<UsageCount>) {
        // Taken back where they can't be written: a full disk delays them and loses none.
        let events = Unwritten::new(events, |events| self.audit_buffer.restore(events));
        let counts = Unwritten::new(counts, |counts| self.usage_counters.restore(&counts));
        self.record_addresses();
        let counted = if counts.is_empty() { Ok(()) } else { self.store.add_usage_counts(&counts) };
        match counted {
            Ok(()) => drop(counts.into_written()),
            Err(error) => {
                drop(counts);
                self.warn_not_written("counts of uses", &error);
            }
        }
        match self.store.record_events(&events) {
            Ok(()) => drop(events.into_written()),
            Err(error) => {
                drop(events);
                self.warn_not_written("events", &error);
            }
        }
    }
}

/// Logs that a flush panicked. What it had taken from memory is back there, and is written by the next one.
fn log_panicked_flush(finished: Result<(), JoinError>) {
    if let Err(error) = finished {
        tracing::error!(%error, "writing uses and events to the store failed: they are kept in memory, and tried again");
    }
}

/// Values that were taken from memory to be written. They are taken back when this is dropped before they were written,
/// also by a panic.
struct Unwritten<T, F: FnOnce(Vec<T>)> {
    values: Vec<T>,
    restore: Option<F>,
}

impl<T, F: FnOnce(Vec<T>)> Unwritten<T, F> {
    fn new(values: Vec<T>, restore: F) -> Self {
        Self { values, restore: Some(restore) }
    }

    /// Returns the values once they are written.
    fn into_written(mut self) -> Vec<T> {
        self.restore = None;
        std::mem::take(&mut self.values)
    }
}

impl<T, F: FnOnce(Vec<T>)> Deref for Unwritten<T, F> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T, F: FnOnce(Vec<T>)> Drop for Unwritten<T, F> {
    fn drop(&mut self) {
        if let Some(restore) = self.restore.take().filter(|_| !self.values.is_empty()) {
            restore(std::mem::take(&mut self.values));
        }
    }
}
