//! The stored form of a token's secret: hashes that `auth` makes, and never the secret itself.

use std::fmt;

use crate::domain::UnixMillis;

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

/// A secret that a rotation replaced and that is still accepted for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreviousSecret {
    /// Hash of the replaced secret.
    pub(crate) secret_hash: SecretHash,
    /// Time from which on it is not accepted any more.
    pub(crate) valid_until: UnixMillis,
}
