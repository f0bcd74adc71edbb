//! Hashing of new secrets, after the request was validated: on the calling thread, or in a server when it is the turn
//! of the caller's user. Argon2 is the most expensive step of a request, and waiting for it blocks no thread.

use super::{Error, Result, TokenService};
use crate::auth::{SecretHasher, WorkPermit, generate_secret};
use crate::domain::{Login, Secret};
use crate::store::SecretHash;

impl TokenService {
    /// Draws a secret and hashes it on this thread.
    pub(super) fn hash_new_secret(&self) -> Result<(Secret, SecretHash)> {
        let secret = generate_secret()?;
        let secret_hash = SecretHasher::open(&self.store)?.hash(&secret)?;
        Ok((secret, secret_hash))
    }

    /// Draws a secret and hashes it when it is the user's turn.
    pub(super) async fn hash_new_secret_queued(&self, user: &Login) -> Result<(Secret, SecretHash)> {
        let Some(auth) = &self.auth else { return self.run_blocking(None, |service| service.hash_new_secret()).await };
        let secret = generate_secret()?;
        let secret_hash = auth.hash_secret(user, &secret).await?;
        Ok((secret, secret_hash))
    }

    /// Runs blocking work on a blocking thread, which holds the caller's permit.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        permit: Option<WorkPermit>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let service = self.clone();
        let work = move || {
            // The permit is held until the work has ended, also when its future was dropped: else a caller that
            // disconnects again and again could fill the blocking threads.
            let _permit = permit;
            work(&service)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::TaskPanicked))
    }
}
