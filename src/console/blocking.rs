//! Work that blocks, run off the asynchronous threads and under the caller's work permits.

use super::error::{ConsoleError, Result};
use crate::auth::{TooMuchWork, WorkPermit};
use crate::tree::View;

/// Runs work that blocks where blocking is allowed: the blocks of a file, one at a time for each connection.
///
/// # Errors
/// What the work says; [`ConsoleError::Internal`] when it panicked.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConsoleError::Internal))
}

/// Runs work that blocks in a turn of the caller's. Nothing of it is begun for a caller who has hung up while he waited.
///
/// # Errors
/// As [`run_blocking`]; [`ConsoleError::TooMuchWork`].
pub(super) async fn run_with_permit<T: Send + 'static>(
    permit: impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = permit.await?;
    run_blocking(move || {
        // Until the work has ended, also where nobody waits for it any more.
        let _permit = permit;
        work()
    })
    .await
}

/// Runs work on the tree that keeps a processor busy for long, likewise; it is cancelled when the connection goes.
///
/// # Errors
/// As [`in_turn`].
pub(super) async fn run_on_tree<T: Send + 'static>(
    view: View,
    work: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    let session = view.session().clone();
    let cancel_guard = view.cancellation().cancel_on_drop();
    let result = run_with_permit(async move { session.acquire_work_permit().await }, move || work(&view)).await;
    cancel_guard.disarm();
    result
}
