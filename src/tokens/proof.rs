//! What a new or rotated token is proven by: an SSH key, or a new secret. Secrets are hashed after the request was validated:
//! on the calling thread, or in a server when it is the turn of the caller's user. Argon2 is the most expensive step of a
//! request, and waiting for it blocks no thread.

use super::{Error, Result, TokenService};
use crate::auth::{SecretHasher, WorkPermit, generate_secret};
use crate::domain::{Login, Secret, SshPublicKey, TokenId, TokenText};
use crate::store::{SecretHash, TokenProof};

/// What a token is to be proven by.
pub(super) enum NewProof {
    /// A secret, and its hash.
    Secret(Secret, SecretHash),
    /// An SSH key.
    SshKey(SshPublicKey),
}

impl NewProof {
    /// Returns what is stored of it.
    pub(super) fn to_stored(&self) -> TokenProof {
        match self {
            NewProof::Secret(_, hash) => TokenProof::Secret(hash.clone()),
            NewProof::SshKey(key) => TokenProof::SshKey(key.clone()),
        }
    }

    /// Returns the text of a token with this secret; `None` where no secret exists.
    pub(super) fn token_text(&self, id: TokenId) -> Option<TokenText> {
        match self {
            NewProof::Secret(secret, _) => Some(TokenText::new(id, secret.clone())),
            NewProof::SshKey(_) => None,
        }
    }
}

impl TokenService {
    /// Draws a secret and hashes it on this thread.
    pub(super) fn hash_new_secret(&self) -> Result<NewProof> {
        let secret = generate_secret()?;
        let secret_hash = SecretHasher::open(&self.store)?.hash(&secret)?;
        Ok(NewProof::Secret(secret, secret_hash))
    }

    /// Draws a secret and hashes it when it is the user's turn.
    pub(super) async fn hash_new_secret_queued(&self, user: &Login) -> Result<NewProof> {
        let Some(auth) = &self.auth else { return self.run_blocking(None, |service| service.hash_new_secret()).await };
        let secret = generate_secret()?;
        let secret_hash = auth.hash_secret(user, &secret).await?;
        Ok(NewProof::Secret(secret, secret_hash))
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
