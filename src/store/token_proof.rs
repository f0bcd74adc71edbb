//! The stored form of what the caller of a token proves itself by: hashes of a secret that `auth` makes, never the secret
//! itself, or an SSH public key.

use std::fmt;

use super::{Result, StoreError};
use crate::domain::{SshPublicKey, UnixMillis};

/// The stored form of a token's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    /// The argon2id hash, as a PHC string.
    pub phc: String,
    /// A short keyed hash that rejects a wrong secret without argon2.
    pub prefilter: [u8; 8],
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

/// What a token is proven by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenProof {
    /// A secret.
    Secret(SecretHash),
    /// A signature with this key.
    SshKey(SshPublicKey),
}

impl TokenProof {
    /// Returns the text that identifies the proof: a PHC string, or a public key, which no PHC string is.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            TokenProof::Secret(hash) => &hash.phc,
            TokenProof::SshKey(key) => key.as_str(),
        }
    }

    /// Returns the key, if it is one.
    pub fn ssh_key(&self) -> Option<&SshPublicKey> {
        match self {
            TokenProof::SshKey(key) => Some(key),
            TokenProof::Secret(_) => None,
        }
    }

    /// Returns the bytes that are stored as prefilter. Those of a key are public, so that no secret is compared with them.
    pub(super) fn prefilter(&self) -> [u8; 8] {
        match self {
            TokenProof::Secret(hash) => hash.prefilter,
            TokenProof::SshKey(key) => {
                let [a, b, c, d, e, f, g, h, ..] = *key.digest();
                [a, b, c, d, e, f, g, h]
            }
        }
    }

    /// Returns the digest by which a key is found.
    pub(super) fn key_digest(&self) -> Option<&[u8; 32]> {
        self.ssh_key().map(SshPublicKey::digest)
    }

    /// Returns the proof of a row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a key that can't be read.
    pub(super) fn from_columns(text: String, prefilter: [u8; 8], has_key: bool) -> Result<Self> {
        if !has_key {
            return Ok(TokenProof::Secret(SecretHash { phc: text, prefilter }));
        }
        let key = text.parse().map_err(|error| StoreError::Corrupt(format!("the SSH key of a token: {error}")))?;
        Ok(TokenProof::SshKey(key))
    }
}

/// A proof that a rotation replaced and that is still accepted for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreviousProof {
    /// The replaced proof.
    pub(crate) proof: TokenProof,
    /// Time from which on it is not accepted any more.
    pub(crate) valid_until: UnixMillis,
}
