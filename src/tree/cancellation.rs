//! Cancellation of work on a blocking thread whose client has disconnected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Result;
use crate::auth::SessionEnded;

/// A flag that cancels the work of a request whose client has disconnected. Every loop over entries or blocks checks
/// it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CancellationFlag(Arc<AtomicBool>);

/// A guard that cancels the work when it is dropped, unless it was disarmed.
#[derive(Debug)]
pub struct CancelOnDrop(Option<CancellationFlag>);

impl CancellationFlag {
    /// Cancels the work.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns a guard that cancels the work when it is dropped, as the future of a request is when its connection
    /// closes.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }

    /// Checks that the work was not cancelled.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`] once it was.
    pub fn check(&self) -> Result<()> {
        // Relaxed: no data is published with the flag, and a late look costs one more block.
        if self.0.load(Ordering::Relaxed) { Err(SessionEnded.into()) } else { Ok(()) }
    }
}

impl CancelOnDrop {
    /// Disarms the guard, since the work is complete.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancellation) = &self.0 {
            cancellation.cancel();
        }
    }
}
