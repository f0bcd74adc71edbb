//! Work that blocks, run off the asynchronous threads and under the caller's work permits.

use super::error::{ConsoleError, Result};
use crate::auth::{TooMuchWork, WorkPermit};
use crate::tree::View;

/// Runs work on a blocking thread, without a permit: for the blocks of a file, one at a time for each connection.
///
/// # Errors
/// The error of the work; [`ConsoleError::Internal`] when it panicked.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConsoleError::Internal))
}

/// Runs work on a blocking thread under a work permit of the caller. Work whose caller has disconnected while it waited
/// for the permit is not started.
///
/// # Errors
/// As [`run_blocking`]; [`ConsoleError::TooMuchWork`].
pub(super) async fn run_with_permit<T: Send + 'static>(
    permit: impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = permit.await?;
    run_blocking(move || {
        // Held until the work has ended, even if the caller has disconnected: the limit is on running work.
        let _permit = permit;
        work()
    })
    .await
}

/// Runs long work on the tree under a work permit of the caller; it is cancelled when the connection closes.
///
/// # Errors
/// As [`run_with_permit`].
pub(super) async fn run_on_tree<T: Send + 'static>(
    view: View,
    work: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    let session = view.session().clone();
    let cancel_guard = view.cancellation().cancel_on_drop();
    let result = run_with_permit(async move { session.acquire_heavy_permit().await }, move || work(&view)).await;
    cancel_guard.disarm();
    result
}
