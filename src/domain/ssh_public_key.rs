//! SSH public keys by which tokens are proven.

use std::fmt;
use std::str::FromStr;

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, PublicKey};

use super::impl_text_json;

/// Shortest RSA key that is accepted, in bits (NIST SP 800-131A).
const MIN_RSA_BITS: u32 = 2048;
/// Longest text that is read; an RSA key of 16,384 bits has 2,800 bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// An SSH public key: Ed25519, ECDSA, RSA, or one of a security key (`sk-`). Its text is that of a `.pub` file without the
/// comment (RFC 4253 section 6.6, base64).
#[derive(Clone, PartialEq, Eq)]
pub struct SshPublicKey {
    text: String,
    digest: [u8; 32],
}

/// Reason why a text or key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshPublicKeyError {
    /// It is the private part.
    #[error("that is a private key, which nobody else may have: give the public one (the file that ends in .pub)")]
    PrivateKey,
    /// It is a certificate.
    #[error("that is a certificate: give the public key that it certifies")]
    Certificate,
    /// It is no public key.
    #[error("that is not one SSH public key: give the line of a .pub file, such as ssh-ed25519 AAAA…")]
    Malformed,
    /// Its algorithm is not accepted.
    #[error(
        "{0} keys are not accepted: give one of ssh-ed25519, ecdsa-sha2-nistp256, -384, -521, ssh-rsa, sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com"
    )]
    Algorithm(String),
    /// It is too short.
    #[error("an RSA key of {0} bits is too short: 2048 are the least")]
    ShortRsa(u32),
}

impl SshPublicKey {
    /// Converts a parsed key.
    ///
    /// # Errors
    /// [`SshPublicKeyError`] for one of an algorithm or length that is not accepted.
    pub fn from_key(key: &PublicKey) -> Result<Self, SshPublicKeyError> {
        match key.key_data() {
            KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {}
            KeyData::Rsa(rsa) if rsa.key_size() < MIN_RSA_BITS => {
                return Err(SshPublicKeyError::ShortRsa(rsa.key_size()));
            }
            KeyData::Rsa(_) => {}
            KeyData::Certificate(_) => return Err(SshPublicKeyError::Certificate),
            _ => return Err(SshPublicKeyError::Algorithm(key.algorithm().as_str().to_owned())),
        }
        let malformed = |_| SshPublicKeyError::Malformed;
        let digest = key.fingerprint(HashAlg::Sha256);
        let digest = digest.as_bytes().try_into().map_err(|_| SshPublicKeyError::Malformed)?;
        let text = PublicKey::new(key.key_data().clone(), "").to_openssh().map_err(malformed)?;
        Ok(Self { text: text.trim_end().to_owned(), digest })
    }

    /// Returns the text: algorithm and base64, without a comment.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the SHA-256 digest of the key.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Returns the fingerprint as OpenSSH prints it: `SHA256:` and the digest in base64.
    pub fn fingerprint(&self) -> String {
        Self::fingerprint_of(self.digest)
    }

    /// Returns the fingerprint of the key with a digest.
    pub fn fingerprint_of(digest: [u8; 32]) -> String {
        ssh_key::Fingerprint::Sha256(digest).to_string()
    }
}

impl FromStr for SshPublicKey {
    type Err = SshPublicKeyError;

    /// Parses a line of a `.pub` file; its comment is ignored.
    fn from_str(text: &str) -> Result<Self, SshPublicKeyError> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(SshPublicKeyError::PrivateKey);
        }
        if text.len() > MAX_TEXT_BYTES || text.contains(['\n', '\r']) {
            return Err(SshPublicKeyError::Malformed);
        }
        let mut words = text.split_ascii_whitespace();
        let (Some(name), Some(data)) = (words.next(), words.next()) else { return Err(SshPublicKeyError::Malformed) };
        if Algorithm::new_certificate(name).is_ok() {
            return Err(SshPublicKeyError::Certificate);
        }
        let key = PublicKey::from_openssh(&format!("{name} {data}")).map_err(|_| SshPublicKeyError::Malformed)?;
        Self::from_key(&key)
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl_text_json!(SshPublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn public_key_is_read_from_the_line_of_a_file_and_its_comment_dropped() {
        let key: SshPublicKey = format!("  {ED25519} user@example.com\n").parse().expect("a key");
        assert_eq!(key.as_str(), ED25519);
        assert_eq!(key.fingerprint(), "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
        assert_eq!(format!("{key:?}"), key.fingerprint());
        assert_eq!(ED25519.parse::<SshPublicKey>().expect("a key"), key);
    }

    #[test]
    fn other_texts_are_refused_with_what_to_give() {
        for (text, part) in [
            ("", "not one SSH public key"),
            ("ssh-ed25519", "not one SSH public key"),
            ("ssh-ed25519 AAAA", "not one SSH public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "private key"),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
            (&format!("{ED25519}\n{ED25519}"), "not one SSH public key"),
            (&format!("command=\"x\" {ED25519}"), "not one SSH public key"),
            (&"x".repeat(20_000), "not one SSH public key"),
        ] {
            let error = text.parse::<SshPublicKey>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
