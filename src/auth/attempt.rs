//! The attempt to authenticate with a token's secret.

use std::cell::OnceCell;

use subtle::ConstantTimeEq;

use super::secret_hash::SecretHasher;
use super::token_state::DigestedProof;
use super::verified_secrets::{PhcDigest, SecretFingerprint};
use crate::domain::{Peer, TokenText};
use crate::store::TokenProof;

/// Token text under verification, the login and peer to check it against, and the cached result for its secret.
pub(super) struct AuthAttempt<'a> {
    pub(super) text: &'a TokenText,
    pub(super) login: Option<&'a str>,
    pub(super) peer: Option<&'a Peer>,
    pub(super) fingerprint: SecretFingerprint,
    /// Digest of the hash that the secret is known to match.
    pub(super) verified_digest: Option<PhcDigest>,
    hasher: &'a SecretHasher,
    prefilter: OnceCell<[u8; 8]>,
}

impl<'a> AuthAttempt<'a> {
    pub(super) fn new(
        text: &'a TokenText,
        login: Option<&'a str>,
        peer: Option<&'a Peer>,
        fingerprint: SecretFingerprint,
        verified_digest: Option<PhcDigest>,
        hasher: &'a SecretHasher,
    ) -> Self {
        Self { text, login, peer, fingerprint, verified_digest, hasher, prefilter: OnceCell::new() }
    }

    pub(super) fn prefilter(&self) -> &[u8; 8] {
        self.prefilter.get_or_init(|| self.hasher.prefilter(self.text.secret()))
    }

    /// Tells whether the secret may match a proof: it is known to, or the prefilter agrees.
    pub(super) fn may_match(&self, proof: &DigestedProof) -> bool {
        match &proof.proof {
            // In constant time: the response time must not tell how many bytes of the prefilter a guess has right.
            TokenProof::Secret(hash) => {
                self.verified_digest == Some(proof.digest) || hash.prefilter.ct_eq(self.prefilter()).into()
            }
            TokenProof::SshKey(_) => false,
        }
    }
}
