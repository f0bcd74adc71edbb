//! Hashes of secrets, which are stored in their place.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use hmac::Mac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::pepper::Pepper;
use super::random::fill_random;
use crate::domain::Secret;
use crate::store::{SecretHash, Store, StoreError};

/// Unit tests of other rules create thousands of tokens, and take little memory for it; the tests that start a gateway
/// hash as it does.
const ARGON2_MEMORY_KIB: u32 = if cfg!(test) { 64 } else { 19 * 1024 };
const ARGON2_PASSES: u32 = 2;
const ARGON2_LANES: u32 = 1;

/// Hashes new secrets: with argon2id, and to a prefilter under the pepper.
#[derive(Clone)]
pub struct SecretHasher {
    pepper: Pepper,
}

impl SecretHasher {
    /// Creates a hasher with the pepper of the store's state directory; creates the pepper for a new store.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read or created.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        Pepper::open(store).map(|pepper| Self { pepper })
    }

    /// Hashes a secret on the calling thread: argon2id (RFC 9106) with 19 MiB, two passes and one lane. Takes some
    /// 20 ms of processor time.
    ///
    /// # Errors
    /// [`StoreError`] when the operating system gives no random bytes for the salt.
    pub fn hash(&self, secret: &Secret) -> Result<SecretHash, StoreError> {
        self.hash_with(secret, &mut Argon2Memory::default())
    }

    /// Hashes as [`SecretHasher::hash`] does, in memory that a thread keeps.
    pub(super) fn hash_with(&self, secret: &Secret, memory: &mut Argon2Memory) -> Result<SecretHash, StoreError> {
        let mut salt = [0u8; 16];
        fill_random(&mut salt)?;
        let phc = argon2_hash(secret, &salt, memory).map_err(|error| StoreError::Hash(error.to_string()))?;
        Ok(SecretHash { phc: phc.to_string(), prefilter: self.prefilter(secret) })
    }

    /// Returns the prefilter of a secret; to be compared in constant time.
    pub(super) fn prefilter(&self, secret: &Secret) -> [u8; 8] {
        let mut mac = self.pepper.mac();
        mac.update(secret.expose());
        let tag = mac.finalize().into_bytes();
        // 8 of 32 bytes: one guess in 2^64 reaches argon2. Without the pepper they tell nothing about a secret.
        std::array::from_fn(|i| tag[i])
    }
}

/// Working memory of argon2, which a thread keeps from one run to the next.
#[derive(Default)]
pub(super) struct Argon2Memory(Vec<Block>);

impl Argon2Memory {
    /// Number of blocks that memory is reserved for, though fewer are used and only those take memory. glibc maps a
    /// request of more than 32 MiB by itself, always, and unmaps it when it is freed. A smaller one is kept by the
    /// heap of the thread that frees it as soon as the first of its size was freed: its mmap threshold adapts.
    const RESERVED_BLOCKS: usize = 33 * 1024 * 1024 / Block::SIZE;

    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            // The old memory goes first, so that the two are never allocated together.
            self.release();
            self.0.reserve_exact(count.max(Self::RESERVED_BLOCKS));
            self.0.resize(count, Block::new());
        }
        &mut self.0[..count]
    }

    /// Tells whether memory is allocated.
    pub(super) fn is_allocated(&self) -> bool {
        self.0.capacity() > 0
    }

    /// Gives the memory back to the system.
    pub(super) fn release(&mut self) {
        self.0 = Vec::new();
    }
}

fn argon2_hash(secret: &Secret, salt: &[u8], memory: &mut Argon2Memory) -> argon2::password_hash::Result<PasswordHash> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut output = Zeroizing::new([0; Params::DEFAULT_OUTPUT_LEN]);
    argon2.hash_password_into_with_memory(secret.expose(), salt, &mut *output, memory.blocks(params.block_count()))?;
    Ok(PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(Output::new(&*output)?),
    })
}

/// Tells whether a secret matches a PHC string.
pub(super) fn verify_phc(secret: &Secret, phc: &str, memory: &mut Argon2Memory) -> bool {
    // A damaged PHC string matches nothing: the login is refused.
    PasswordHash::new(phc).is_ok_and(|hash| verify_hash(secret, &hash, memory).unwrap_or(false))
}

/// Hashes a secret with the parameters and salt of a hash, and compares the two.
fn verify_hash(secret: &Secret, hash: &PasswordHash, memory: &mut Argon2Memory) -> argon2::password_hash::Result<bool> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    // The parameters of the stored hash, not of today's constants: hashes with older parameters stay valid.
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let params = Params::try_from(hash)?;
    let blocks = memory.blocks(params.block_count());
    let mut output = Zeroizing::new(vec![0; expected.len()]);
    Argon2::new(algorithm, version, params).hash_password_into_with_memory(
        secret.expose(),
        salt.as_ref(),
        &mut output,
        blocks,
    )?;
    Ok(output.ct_eq(expected.as_ref()).into())
}
