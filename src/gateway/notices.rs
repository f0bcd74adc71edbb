//! Notices for administrators, by webhook and mail. The store holds the queue; here are its receivers, the attempts to
//! deliver, and the look-out for what no other module records: expirations, disks, and the served directory.
//!
//! ```text
//! audit event, or watcher -> row for each receiver -> attempt -> row deleted, or due again later
//! ```

mod body;
mod delivery;
mod error;
mod mail;
mod mail_text;
mod receivers;
mod recorder;
mod retries;
mod secret;
mod settings;
mod watcher;
mod webhook;
mod webhook_resolver;
mod webhook_signature;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::Store;

use delivery::DeliveryQueue;

pub use error::NoticeError;
pub use receivers::{NoticeReceivers, TestOutcome};
pub(super) use recorder::NoticeRecorder;
pub use secret::NoticeSecret;
pub use settings::{MailSettings, NoticeSettings, NoticeTimings, SmtpTls};
pub(super) use watcher::{NoticeSources, NoticeWatcher};

/// Delivery of notices of a gateway.
pub(super) struct NoticeService {
    receivers: NoticeReceivers,
    settings: NoticeSettings,
}

impl NoticeService {
    /// Reads the secrets.
    ///
    /// # Errors
    /// [`NoticeError`] for settings that can't be used.
    pub(super) fn open(settings: &NoticeSettings) -> Result<Self, NoticeError> {
        Ok(Self { receivers: NoticeReceivers::open(settings)?, settings: settings.clone() })
    }

    /// Records in the store who is to get which notices.
    pub(super) fn record_receivers(&self, store: &Store) {
        match store.configure_notices(&self.receivers.names(), &self.settings.kinds) {
            Ok(0) => {}
            Ok(dropped) => tracing::warn!("{dropped} notices were dropped: their receivers are no longer configured"),
            // To serve matters more: on a full disk the settings of the last start stay in force.
            Err(error) => tracing::warn!(%error, "the receivers of notices can't be recorded"),
        }
    }

    /// Starts a task for each receiver, and the look-out; they end once `stop` is cancelled. Without a receiver there is
    /// nothing to do.
    pub(super) fn spawn(self, tasks: &TaskTracker, sources: NoticeSources, stop: &CancellationToken) {
        let Self { receivers, settings } = self;
        if receivers.names().is_empty() {
            return;
        }
        let (store, clock) = (sources.store.clone(), sources.auth.clock().clone());
        for receiver in receivers.into_receivers() {
            let (store, clock) = (store.clone(), clock.clone());
            let queue = DeliveryQueue { receiver, store, clock, timings: settings.timings, is_failing: false };
            tasks.spawn(queue.run(stop.clone()));
        }
        tasks.spawn(NoticeWatcher::new(sources, settings).run(stop.clone()));
    }
}
