//! What is kept of a secret instead of it, and where randomness comes from.

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::pepper::Pepper;
use crate::domain::{Secret, TokenId, TokenText};
use crate::store::{Sealed, Store, StoreError};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Seals new secrets: argon2id for the store's authority, and a prefilter under the pepper.
#[derive(Clone)]
pub struct Sealer {
    pepper: Pepper,
}

impl Sealer {
    /// Makes a sealer with the pepper of the store's state directory; makes the pepper for a new store.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read or made.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        Pepper::open(store).map(|pepper| Self { pepper })
    }

    /// Seals a secret: argon2id (RFC 9106) with 19 MiB, two passes and one lane. Takes some 20 ms of processor time.
    ///
    /// # Errors
    /// [`StoreError`] when there is no randomness for the salt.
    pub fn seal(&self, secret: &Secret) -> Result<Sealed, StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError::Hash(error.to_string());
        let mut salt = [0u8; 16];
        random(&mut salt)?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| failed(&e))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let phc: PasswordHash = argon2.hash_password_with_salt(secret.expose(), &salt).map_err(|e| failed(&e))?;
        Ok(Sealed { phc: phc.to_string(), prefilter: self.prefilter(secret) })
    }

    /// Returns what tells, compared in constant time, whether a secret may be the sealed one.
    pub(super) fn prefilter(&self, secret: &Secret) -> [u8; 8] {
        let mut mac = self.pepper.mac();
        mac.update(secret.expose());
        let tag = mac.finalize().into_bytes();
        std::array::from_fn(|i| tag[i])
    }
}

/// Tells whether a secret is the one that a PHC string was made of.
pub(super) fn fits(secret: &Secret, phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    Argon2::default().verify_password(secret.expose(), &hash).is_ok()
}

/// A keyed hash, ready to be fed.
pub(super) type KeyedHash = Hmac<Sha256>;

/// Makes a keyed hash. A key shorter than a block of SHA-256 is padded with zeros (RFC 2104).
pub(super) fn keyed_hash(key: &[u8; 32]) -> KeyedHash {
    let mut block = Zeroizing::new([0u8; 64]);
    block[..32].copy_from_slice(key);
    KeyedHash::new((&*block).into())
}

/// Fills a buffer with random bytes from the operating system.
///
/// # Errors
/// [`StoreError::Random`] when it gives none.
pub fn random(buffer: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(buffer).map_err(|error| StoreError::Random(error.to_string()))
}

/// Draws a new token.
///
/// # Errors
/// [`StoreError::Random`] when the operating system gives no random bytes.
pub fn mint() -> Result<TokenText, StoreError> {
    draw(|draw| TokenText::new(TokenId::mint(draw), Secret::mint(draw)))
}

/// Draws a new secret, for a token that keeps its id.
///
/// # Errors
/// As [`mint`].
pub fn mint_secret() -> Result<Secret, StoreError> {
    draw(|draw| Secret::mint(draw))
}

fn draw<T>(make: impl FnOnce(&mut dyn FnMut(&mut [u8])) -> T) -> Result<T, StoreError> {
    let mut outcome = Ok(());
    let made = make(&mut |buffer| {
        if let Err(error) = random(buffer) {
            buffer.fill(0);
            outcome = Err(error);
        }
    });
    outcome.map(|()| made)
}
