//! The pepper: 32 random bytes in a file beside the database, without which its prefilters reveal nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::random::fill_random;
use crate::store::{PEPPER_FILE_NAME, Store, StoreError};

/// Message whose MAC under the pepper identifies the pepper; no secret has this text.
const CHECK_VALUE_INPUT: &[u8] = b"patgate: the pepper of this database";

/// Keyed hash without input.
pub(super) type KeyedHash = Hmac<Sha256>;

/// Keyed hash under the pepper.
#[derive(Clone)]
pub(super) struct Pepper(Arc<KeyedHash>);

impl Pepper {
    /// Reads the pepper of the store's state directory; creates it (mode 0600) when neither it nor any token exists.
    pub(super) fn open(store: &Store) -> Result<Self, StoreError> {
        let path = store.state_dir().join(PEPPER_FILE_NAME);
        let unusable = |source| StoreError::StateDirectory { path: path.clone(), source };
        let key = match read_key(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A new pepper would reject every token that exists, with no hint why. The administrator has to restore
                // the old one.
                if store.has_tokens()? {
                    return Err(StoreError::PepperMissing(path));
                }
                create_key_file(store.state_dir())?;
                // Read back: where another process was faster, its file counts and not the key that was generated here.
                read_key(&path).map_err(unusable)?
            }
            Err(error) => return Err(unusable(error)),
        };
        // Exactly 32 bytes: a file that was cut short must not pass as a key.
        let key = <&[u8; 32]>::try_from(&key[..]).map_err(|_| StoreError::PepperCorrupt(path.clone()))?;
        let pepper = Self(Arc::new(keyed_hash(key)));
        pepper.check_store(store, path)?;
        Ok(pepper)
    }

    /// Refuses a pepper other than that of the store's tokens; records one that the store does not know yet.
    fn check_store(&self, store: &Store, path: PathBuf) -> Result<(), StoreError> {
        let mut mac = self.mac();
        mac.update(CHECK_VALUE_INPUT);
        let tag = mac.finalize().into_bytes();
        let check_value: [u8; 16] = std::array::from_fn(|i| tag[i]);
        match store.pepper_check_value()? {
            Some(known) if known == check_value => Ok(()),
            Some(_) if store.has_tokens()? => Err(StoreError::PepperMismatch(path)),
            // Without tokens another pepper does no harm, and replaces the recorded one. A full disk must not keep the
            // server from starting: the value is recorded at the next start.
            _ => match store.set_pepper_check_value(&check_value) {
                Err(StoreError::DiskFull | StoreError::Busy) => Ok(()),
                stored => stored,
            },
        }
    }

    /// Returns a fresh keyed hash.
    pub(super) fn mac(&self) -> KeyedHash {
        (*self.0).clone()
    }
}

/// Creates a keyed hash. A key shorter than a block of SHA-256 is padded with zeros (RFC 2104).
fn keyed_hash(key: &[u8; 32]) -> KeyedHash {
    // Padded here and not by hmac's constructor for slices, so that the copy of the key is wiped.
    let mut block = Zeroizing::new([0u8; 64]);
    block[..32].copy_from_slice(key);
    KeyedHash::new((&*block).into())
}

fn read_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Larger than a key: a file that is too long is noticed, and no grown buffer leaves a copy behind.
    let mut key = Zeroizing::new(Vec::with_capacity(64));
    fs::File::open(path)?.take(64).read_to_end(&mut key)?;
    Ok(key)
}

/// Creates the pepper file, whole or not at all; one that another process created meanwhile stays.
fn create_key_file(state: &Path) -> Result<(), StoreError> {
    let mut key = Zeroizing::new([0u8; 32]);
    fill_random(&mut key[..])?;
    let mut name = [0u8; 8];
    fill_random(&mut name)?;
    let temporary = state.join(format!("{PEPPER_FILE_NAME}.{:016x}", u64::from_ne_bytes(name)));
    let path = state.join(PEPPER_FILE_NAME);
    // Written under a temporary name and synced before it is linked: the final name never has a part of a key, and
    // `hard_link` replaces no file.
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&key[..]).and_then(|()| file.sync_all()))
        .and_then(|()| match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let removed = fs::remove_file(&temporary);
    // The directory entry has to be on disk before the first token is: without the pepper the token is lost.
    let synced = fs::File::open(state).and_then(|folder| folder.sync_all());
    written.and(removed).and(synced).map_err(|source| StoreError::StateDirectory { path, source })
}
