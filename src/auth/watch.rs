//! Keeps open sessions honest while nothing asks for them, and writes uses down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::Core;
use super::uses::Uses;
use crate::domain::{AuditEvent, UsageCount};
use crate::store::{StoreError, TokenUse};

/// How often other processes' writes are looked for; this one's are told.
const POLL: Duration = Duration::from_millis(250);
/// How often in a row the store may fail until sessions end, because nobody can vouch for them.
const FAILURES: u32 = 4;
/// How often it is logged that something can't be written down.
const WARNED_AGAIN: Duration = Duration::from_secs(60);
/// How long to wait for somebody else who writes uses down, behind another process perhaps.
const WRITING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the watch knows of the store.
#[derive(Default)]
pub(super) struct Watched {
    version: Option<(u64, i64)>,
    failures: u32,
}

impl Core {
    /// Watches the store until told to stop; writes all uses down then.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut watched = Watched::default();
        let mut writing: Option<JoinHandle<()>> = None;
        loop {
            let changed = self.store.changed();
            let core = self.clone();
            let look = self.watcher.run(move || {
                core.look(&mut watched);
                watched
            });
            watched = look.await.unwrap_or_default();
            // Not waited for: a writer may have to queue behind another process.
            if writing.as_ref().is_none_or(JoinHandle::is_finished) {
                let core = self.clone();
                writing = Some(spawn_blocking(move || core.write_due()));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        let core = self.clone();
        if spawn_blocking(move || core.flush()).await.is_err() {
            tracing::error!("the last uses of tokens were not written down");
        }
    }

    /// Looks once, and ends or narrows what the store says.
    pub(super) fn look(&self, watched: &mut Watched) {
        match self.review(watched) {
            Ok(()) => watched.failures = 0,
            Err(error) => {
                watched.failures += 1;
                tracing::error!(%error, "the store can't tell which tokens live");
            }
        }
        if watched.failures >= FAILURES {
            self.lives.all().iter().for_each(|life| life.end());
        }
        self.lives.sweep(self.clock.now());
    }

    /// Writes down the uses and events that are due.
    pub(super) fn write_due(&self) {
        if let Err(error) = self.store.republish_epoch() {
            tracing::warn!(%error, "the store's changes are not announced: every request reads it");
        }
        let now = self.clock.now();
        self.record_uses(|uses| uses.due(now), false);
        self.record_expired();
        self.write_down(self.trail.due(now), &self.tally.due(now));
    }

    /// Writes all uses and events down.
    pub(super) fn flush(&self) {
        self.record_uses(Uses::all, true);
        self.record_expired();
        self.write_down(self.trail.all(self.clock.now()), &self.tally.all());
    }

    /// Writes all uses down; tells whether that was done.
    pub(super) fn write_uses(&self) -> bool {
        self.record_uses(Uses::all, false)
    }

    /// Writes down the uses that are taken from memory; tells whether that was done.
    fn record_uses(&self, take: impl FnOnce(&Uses) -> Vec<TokenUse>, last: bool) -> bool {
        let Some(_writing) = self.writing_uses.try_lock_for(WRITING_TIMEOUT) else { return false };
        let uses = take(&self.uses);
        let recorded = if uses.is_empty() { Ok(()) } else { self.store.record_uses(&uses, last) };
        if let Err(error) = &recorded {
            self.uses.unwritten(&uses);
            self.not_written("uses of tokens", error);
        }
        recorded.is_ok()
    }

    /// Writes down which tokens have expired for good, as was found by requests that they were refused for.
    fn record_expired(&self) {
        let expired = self.uses.expired();
        if !expired.is_empty()
            && let Err(error) = self.store.mark_tokens_expired(&expired, self.clock.now())
        {
            self.uses.expiry_unwritten(&expired);
            self.not_written("expirations of tokens", &error);
        }
    }

    /// Logs what was not written down, once in a while: a full disk lasts, and this is tried several times a second.
    fn not_written(&self, what: &str, error: &StoreError) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARNED_AGAIN) {
            *warned_at = Some(Instant::now());
            tracing::warn!(%error, "{what} were not written down: they are kept in memory, and tried again");
        }
    }

    fn review(&self, watched: &mut Watched) -> Result<(), StoreError> {
        let version = self.store.data_version()?;
        if watched.version == Some(version) {
            return Ok(());
        }
        let epoch = self.store.epoch()?;
        let lives = self.lives.awaited();
        let reviews = lives.iter().map(|life| life.review(epoch, &self.store, &self.uses));
        reviews.fold(Ok(()), Result::and)?;
        watched.version = Some(version);
        Ok(())
    }

    fn write_down(&self, events: Vec<AuditEvent>, counts: &[UsageCount]) {
        let sightings = self.uses.sightings();
        if !sightings.is_empty()
            && let Err(error) = self.store.record_addresses(&sightings)
        {
            self.not_written("places that tokens are used from", &error);
        }
        if !counts.is_empty()
            && let Err(error) = self.store.add_usage_counts(counts)
        {
            self.tally.take_back(counts);
            self.not_written("counts of uses", &error);
        }
        if let Err(error) = self.store.record_events(&events) {
            self.trail.untold(events);
            self.not_written("events", &error);
        }
    }
}
