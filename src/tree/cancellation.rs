//! How work on a blocking thread learns that nobody waits for its answer any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Result;
use crate::auth::SessionEnded;

/// A flag that ends the work of a request whose caller is gone: every loop over entries or blocks looks at it. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub struct CancellationFlag(Arc<AtomicBool>);

/// Cancels when it is dropped before it was told that the work is done.
#[derive(Debug)]
pub struct CancelOnDrop(Option<CancellationFlag>);

impl CancellationFlag {
    /// Cancels the work.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns a guard that cancels the work when it is dropped, as the future of a request is whose connection goes.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }

    /// Lets the work go on, unless it was cancelled.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`].
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(SessionEnded.into()) } else { Ok(()) }
    }
}

impl CancelOnDrop {
    /// Lets what the work has made stand: it is done.
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
