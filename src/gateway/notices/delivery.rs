//! The queue of one receiver: what is due is sent, one notice after the other, so that a slow receiver delays no other and
//! is never asked twice at once. A notice leaves the store only once its receiver has it; a kill in between sends it again,
//! with the same id.

use tokio_util::sync::CancellationToken;

use super::error::DeliveryFailure;
use super::receivers::NoticeReceiver;
use super::retries::{MAX_ATTEMPTS, draw_jitter, max_retry_delay, retry_delay};
use super::settings::NoticeTimings;
use crate::auth::Clock;
use crate::store::{QueuedNotice, Result, Store};

/// Queue of one receiver.
pub(super) struct DeliveryQueue {
    pub(super) receiver: NoticeReceiver,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) timings: NoticeTimings,
    /// Whether the last attempt has failed, or the last look at the queue.
    pub(super) is_failing: bool,
}

impl DeliveryQueue {
    /// Sends what is due until `stop` is cancelled. An attempt under way is abandoned then: the next start repeats it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while let Some(result) = stop.run_until_cancelled(self.deliver_next()).await {
            // After a delivery the next one follows at once.
            if !result && stop.run_until_cancelled(tokio::time::sleep(self.timings.poll_interval)).await.is_none() {
                return;
            }
        }
    }

    /// Sends the notice that has been due for longest; returns whether one was delivered.
    async fn deliver_next(&mut self) -> bool {
        let now = self.clock.now();
        let latest = now.saturating_add(max_retry_delay(self.timings.first_retry));
        let name = self.receiver.name().to_owned();
        let queued = match self.use_store(move |store| store.due_notice(&name, now, latest)).await {
            Ok(Some(queued)) => queued,
            Ok(None) => return false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!("the queue of notices can't be read: {error}");
                }
                return false;
            }
        };
        match self.receiver.send(&queued.notice).await {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(receiver = self.receiver.name(), "it takes notices again");
                }
                self.record(move |store, now| store.record_delivered_notice(queued.id, now)).await;
                true
            }
            Err(failure) => {
                self.record_failure(&queued, failure).await;
                false
            }
        }
    }

    async fn record_failure(&mut self, queued: &QueuedNotice, DeliveryFailure { reason, is_final }: DeliveryFailure) {
        let delay = retry_delay(self.timings.first_retry, queued.attempts, draw_jitter()).filter(|_| !is_final);
        let (receiver, id, attempts) = (self.receiver.name(), &queued.notice.message_id, queued.attempts + 1);
        match delay {
            None => tracing::error!(receiver, id, attempts, "a notice was not delivered and is dropped: {reason}"),
            Some(delay) if !self.is_failing => {
                let seconds = delay.as_secs();
                tracing::warn!(
                    receiver,
                    id,
                    "a notice was not delivered, tried again in {seconds} s, {MAX_ATTEMPTS} times in all: {reason}"
                );
            }
            Some(_) => tracing::debug!(receiver, id, attempts, "a notice was not delivered: {reason}"),
        }
        self.is_failing = true;
        let id = queued.id;
        self.record(move |store, now| {
            let retry_at = delay.map(|delay| now.saturating_add(delay));
            store.record_failed_notice(id, &reason, now, retry_at)
        })
        .await;
    }

    /// Records an outcome, however often that takes: the notice would be sent again and again otherwise.
    async fn record(&self, change: impl Fn(&Store, crate::domain::UnixMillis) -> Result<()> + Clone + Send + 'static) {
        loop {
            let (change, now) = (change.clone(), self.clock.now());
            match self.use_store(move |store| change(store, now)).await {
                Ok(()) => return,
                Err(error) => tracing::warn!("the outcome of a notice can't be recorded yet: {error}"),
            }
            tokio::time::sleep(self.timings.poll_interval).await;
        }
    }

    async fn use_store<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, String> {
        let store = self.store.clone();
        let result = tokio::task::spawn_blocking(move || query(&store)).await;
        result.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
