//! Host keys: generated once, kept in the state directory, readable by their owner only.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::{LineEnding, rand_core};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use zeroize::Zeroizing;

const RSA_BITS: usize = 3072;
const HOST_KEY_FILES: [(&str, Algorithm); 3] = [
    // The file names of OpenSSH: its host keys can be copied here, so that clients see the same server.
    ("ssh_host_ed25519_key", Algorithm::Ed25519),
    ("ssh_host_ecdsa_key", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }),
    ("ssh_host_rsa_key", Algorithm::Rsa { hash: None }),
];

/// Host keys of the server.
#[derive(Clone)]
pub struct HostKeys(Vec<PrivateKey>);

impl HostKeys {
    /// Reads the keys in the state directory (ed25519, ECDSA P-256 and RSA 3072, OpenSSH PEM); generates missing ones,
    /// in files with mode 0600.
    ///
    /// # Errors
    /// Errors of reading and writing; [`io::ErrorKind::InvalidData`] for a file that is not such a key or that group or
    /// others may access. Such a file is never replaced.
    pub fn open(state: &Path) -> io::Result<Self> {
        HOST_KEY_FILES
            .into_iter()
            .map(|(name, algorithm)| open_or_generate_key(state, name, algorithm))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Reads the keys in the state directory; `None` if one is missing, which [`HostKeys::open`] would generate.
    ///
    /// # Errors
    /// As [`HostKeys::open`].
    pub fn open_existing(state: &Path) -> io::Result<Option<Self>> {
        let all_exist = HOST_KEY_FILES.iter().all(|(name, _)| state.join(name).exists());
        all_exist.then(|| Self::open(state)).transpose()
    }

    /// Returns an ed25519 key that is not stored, for tests.
    pub fn ephemeral() -> Self {
        // Any 32 bytes are an ed25519 key, so that generating one does not fail.
        Self(generate_key(&Algorithm::Ed25519).into_iter().collect())
    }

    /// Returns algorithm and fingerprint (`SHA256:…`) of each key, as clients show them.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|key| format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))).collect()
    }

    /// Returns the private keys, for russh.
    pub(super) fn keys(&self) -> Vec<PrivateKey> {
        self.0.clone()
    }
}

fn open_or_generate_key(state: &Path, name: &str, algorithm: Algorithm) -> io::Result<PrivateKey> {
    let path = state.join(name);
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display()));
    match File::open(&path) {
        Ok(file) => read_key(file, &algorithm).map_err(invalid),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = generate_key(&algorithm).map_err(|error| invalid(error.to_string()))?;
            let pem = key.to_openssh(LineEnding::LF).map_err(|error| invalid(error.to_string()))?;
            match write_key_file(state, name, pem.as_bytes()) {
                Ok(()) => Ok(key),
                // Another process created the key first: both must use that one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    read_key(File::open(&path)?, &algorithm).map_err(invalid)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn read_key(mut file: File, algorithm: &Algorithm) -> Result<PrivateKey, String> {
    // Of the open file, so that nothing can be swapped between check and read.
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.mode() & 0o077 != 0 {
        return Err("group or others can access it: set its mode to 0600".to_owned());
    }
    let mut pem = Zeroizing::new(String::new());
    file.read_to_string(&mut pem).map_err(|error| error.to_string())?;
    let key = PrivateKey::from_openssh(pem.as_bytes()).map_err(|error| error.to_string())?;
    let is_expected = match algorithm {
        Algorithm::Rsa { .. } => key.algorithm().is_rsa(),
        other => key.algorithm() == *other,
    };
    // Nobody could enter a passphrase when the server starts.
    if is_expected && !key.is_encrypted() { Ok(key) } else { Err(format!("it is not an unencrypted {algorithm} key")) }
}

/// Writes a key to a temporary file, syncs it and links it to its name: a partial key is never read, and an existing
/// key is never replaced.
fn write_key_file(state: &Path, name: &str, pem: &[u8]) -> io::Result<()> {
    let temporary = state.join(format!(".{name}.{}", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(pem)?;
        file.sync_all()?;
        // Unlike rename, link fails if the name exists: clients have pinned the key that is there.
        std::fs::hard_link(&temporary, state.join(name))
    });
    std::fs::remove_file(&temporary).or_else(|error| if written.is_err() { Ok(()) } else { Err(error) })?;
    written?;
    // The directory too: a key that a client has seen must survive a power failure.
    File::open(state)?.sync_all()
}

fn generate_key(algorithm: &Algorithm) -> Result<PrivateKey, russh::keys::ssh_key::Error> {
    match algorithm {
        Algorithm::Rsa { .. } => {
            let pair = RsaKeypair::random(&mut SystemRandom, RSA_BITS)?;
            PrivateKey::new(KeypairData::Rsa(pair), "")
        }
        other => PrivateKey::random(&mut SystemRandom, other.clone()),
    }
}

/// Random number generator of the operating system. It fails only early at boot; that is waited out.
struct SystemRandom;

impl rand_core::TryRng for SystemRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        while getrandom::fill(bytes).is_err() {
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for SystemRandom {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn host_keys_are_generated_once_with_owner_only_mode() {
        let state = tempfile::tempdir().expect("folder");
        let first = HostKeys::open(state.path()).expect("made").fingerprints();
        assert_eq!(HostKeys::open(state.path()).expect("read").fingerprints(), first);
        assert_eq!(first.len(), 3);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(state.path()).expect("list") {
            let entry = entry.expect("entry");
            assert_eq!(entry.metadata().expect("stat").permissions().mode() & 0o777, 0o600);
            names.push(entry.file_name().into_string().expect("name"));
        }
        names.sort();
        assert_eq!(names, ["ssh_host_ecdsa_key", "ssh_host_ed25519_key", "ssh_host_rsa_key"]);
    }

    #[test]
    fn readable_or_damaged_key_is_refused_and_not_replaced() {
        let state = tempfile::tempdir().expect("folder");
        let path = state.path().join("ssh_host_ed25519_key");
        std::fs::write(&path, "no key").expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        assert!(HostKeys::open(state.path()).is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"no key");
        let key = generate_key(&Algorithm::Ed25519).expect("key").to_openssh(LineEnding::LF).expect("text");
        std::fs::write(&path, key.as_bytes()).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("mode");
        let error = HostKeys::open(state.path()).err().expect("refused").to_string();
        assert!(error.contains("0600"), "{error}");
    }

    #[test]
    fn ephemeral_keys_differ() {
        let (first, second) = (HostKeys::ephemeral().fingerprints(), HostKeys::ephemeral().fingerprints());
        assert!(first.len() == 1 && first != second, "{first:?} {second:?}");
    }
}
