//! Recording of notices by other modules of the gateway.

use crate::auth::Clock;
use crate::domain::{Notice, NoticeContent};
use crate::store::Store;

/// Handle that queues notices. Where no receiver wants them it does nothing.
#[derive(Clone)]
pub(in crate::gateway) struct NoticeRecorder {
    store: Store,
    clock: Clock,
}

impl NoticeRecorder {
    /// Creates a handle over a store.
    pub(in crate::gateway) fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Queues a notice. May block. A failure is logged: what the notice is about must not fail for it.
    pub(in crate::gateway) fn record(&self, content: NoticeContent) {
        if let Err(error) = self.store.queue_notice(&Notice::new(self.clock.now(), content)) {
            tracing::warn!(%error, "a notice was not queued");
        }
    }
}
