//! New secrets, sealed once all that is asked for has been judged: on the calling thread, or in a server when the turn
//! of the caller's user comes. Argon2 is the dearest step of a request, and waiting for it blocks no thread.

use super::{Error, Result, Tokens};
use crate::auth::{Sealer, mint_secret};
use crate::domain::{Login, Secret};
use crate::store::Sealed;

impl Tokens {
    /// Draws a secret and seals it on this thread.
    pub(super) fn seal(&self) -> Result<(Secret, Sealed)> {
        let secret = mint_secret()?;
        let sealed = Sealer::open(&self.store)?.seal(&secret)?;
        Ok((secret, sealed))
    }

    /// Draws a secret and seals it when the user's turn comes.
    pub(super) async fn seal_queued(&self, user: &Login) -> Result<(Secret, Sealed)> {
        let Some(auth) = &self.auth else { return self.off_runtime(|tokens| tokens.seal()).await };
        let secret = mint_secret()?;
        let sealed = auth.seal(user, &secret).await?;
        Ok((secret, sealed))
    }

    /// Does what blocks where blocking is allowed.
    pub(super) async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let tokens = self.clone();
        tokio::task::spawn_blocking(move || work(&tokens)).await.unwrap_or(Err(Error::Lost))
    }
}
