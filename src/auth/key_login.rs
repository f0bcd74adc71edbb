//! Logins by an SSH key or certificate. SSH verifies the signature; here the token is found that it proves, and judged as for a
//! secret.

use std::sync::Arc;

use super::rejection_reason::RejectionReason;
use super::token_state::{CachedToken, SessionProof};
use super::verified_secrets::PhcDigest;
use super::{AuthCore, AuthError, AuthFailure, Authenticator, Session, rejected_for_token};
use crate::domain::{Peer, SshPublicKey, TokenId, UnixMillis};

/// Maximum number of tokens of one certificate that are looked at.
const MAX_CERTIFIED_TOKENS: usize = 16;

impl Authenticator {
    /// Tells whether a key proves a live token of a user, so that a signature is worth asking for. Who may use the token is
    /// judged once it was signed for; a key that proves none is not recorded, since agents offer all that they hold.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub fn accepts_ssh_key(&self, login: &str, key: &SshPublicKey) -> Result<bool, AuthError> {
        match self.core.find_token_of_key(login, key, None) {
            Ok(_) => Ok(true),
            Err(AuthFailure::Rejected(_)) => Ok(false),
            Err(AuthFailure::Error(error)) => Err(error),
        }
    }

    /// Tells whether any token is proven by an SSH key, so that clients may be asked for theirs.
    pub fn has_ssh_keys(&self) -> bool {
        self.core.store.has_key_tokens().unwrap_or(false)
    }

    /// Opens a session for a caller whose signature with a key was verified.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub fn authenticate_ssh_key(&self, login: &str, key: &SshPublicKey, peer: Peer) -> Result<Session, AuthError> {
        let found = self.core.find_token_of_key(login, key, Some(&peer));
        self.conclude(found, peer)
    }

    /// Opens a session for a caller with a certificate that an authority has signed, for the first of the tokens that is live
    /// and belongs to the login. It ends with the certificate.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub fn authenticate_certified(
        &self,
        login: &str,
        tokens: &[TokenId],
        valid_until: UnixMillis,
        peer: Peer,
    ) -> Result<Session, AuthError> {
        let found = self.core.find_certified_token(login, tokens, &peer);
        self.conclude(found.map(|(cached_token, digest)| (cached_token, SessionProof { digest, valid_until })), peer)
    }
}

impl AuthCore {
    fn find_certified_token(
        &self,
        login: &str,
        tokens: &[TokenId],
        peer: &Peer,
    ) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        let mut rejected = RejectionReason::UnknownKey.into();
        for token in tokens.iter().take(MAX_CERTIFIED_TOKENS) {
            match self.judge_certified_token(*token, login, peer) {
                Err(failure @ AuthFailure::Rejected(_)) => rejected = failure,
                judged => return judged,
            }
        }
        Err(rejected)
    }

    fn judge_certified_token(
        &self,
        token: TokenId,
        login: &str,
        peer: &Peer,
    ) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        let now = self.clock.now();
        let row = self.store.credential_row(token)?.ok_or(RejectionReason::UnknownKey)?;
        if row.login.as_str() != login {
            return Err(rejected_for_token(RejectionReason::WrongLogin, token, row.login));
        }
        let owner = row.login.clone();
        let cached_token = self
            .token_cache
            .get_at_epoch(token, row.epoch, self.clock.boottime_ms(), &self.store, &self.last_used)?
            .ok_or_else(|| rejected_for_token(RejectionReason::Revoked, token, owner))?;
        let digest = cached_token.snapshot().credentials.accepted_proofs(now).next().map(|proof| proof.digest);
        let digest = digest.ok_or(RejectionReason::UnknownKey)?;
        self.check_token(&cached_token, Some(peer), now)?;
        Ok((cached_token, digest))
    }

    /// Returns the live token that a key proves, and the digest of that proof.
    fn find_token_of_key(
        &self,
        login: &str,
        key: &SshPublicKey,
        peer: Option<&Peer>,
    ) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        let mut rejected = RejectionReason::UnknownKey.into();
        for token in self.store.tokens_of_key(login, key, self.clock.now())? {
            match self.judge_token_of_key(token, key, peer) {
                // Another one that the key has proven may be live.
                Err(failure @ AuthFailure::Rejected(_)) => rejected = failure,
                judged => return judged,
            }
        }
        Err(rejected)
    }

    fn judge_token_of_key(
        &self,
        token: TokenId,
        key: &SshPublicKey,
        peer: Option<&Peer>,
    ) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        let now = self.clock.now();
        let row = self.store.credential_row(token)?.ok_or(RejectionReason::UnknownKey)?;
        let cached_token = self
            .token_cache
            .get_at_epoch(token, row.epoch, self.clock.boottime_ms(), &self.store, &self.last_used)?
            .ok_or(RejectionReason::UnknownKey)?;
        // In the snapshot: a rotation may have come since the look-up by the key.
        let digest = cached_token
            .snapshot()
            .credentials
            .accepted_proofs(now)
            .find(|proof| proof.proof.ssh_key() == Some(key))
            .map(|proof| proof.digest)
            .ok_or(RejectionReason::UnknownKey)?;
        self.check_token(&cached_token, peer, now)?;
        Ok((cached_token, digest))
    }
}
