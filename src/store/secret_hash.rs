//! The stored form of a token's secret: hashes that `auth` makes, and never the secret itself.

use std::fmt;

use crate::domain::UnixMillis;

/// What is kept of a secret; `auth` makes it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    /// The argon2id hash, as a PHC string.
    pub phc: String,
    /// A short keyed hash that tells a wrong secret apart without argon2.
    pub prefilter: [u8; 8],
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(redacted)")
    }
}

/// A secret that a rotation replaced and that is still accepted for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreviousSecret {
    /// What the replaced secret was sealed to.
    pub(crate) secret_hash: SecretHash,
    /// From when on it is dead.
    pub(crate) valid_until: UnixMillis,
}
