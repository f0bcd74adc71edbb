//! OpenSSH certificates: of users, which map to tokens by their principals, and of the server's host keys.
//!
//! The format is that of PROTOCOL.certkeys of OpenSSH. A user's certificate counts where it is signed by a configured
//! authority, names the id of a token of the login among its principals, and has no restriction that can't be honoured.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, HashAlg, PublicKey};

use crate::domain::{TokenId, UnixMillis, parse_network};

/// The only command that a certificate may force: what every session runs.
const SFTP_COMMAND: &str = "internal-sftp";

/// Certificates that a server accepts and shows.
#[derive(Clone, Debug, Default)]
pub struct SshCertificates {
    /// Keys of the authorities that certify users.
    user_authorities: Vec<PublicKey>,
    /// Certificates of the host keys.
    host: Vec<Certificate>,
}

/// Reason why a file of certificates or their keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// The file can't be read.
    #[error("{path} can't be read: {source}", path = .0.display(), source = .1)]
    Unreadable(PathBuf, io::Error),
    /// A line is no public key.
    #[error("{path}, line {1}: that is not an SSH public key: give the .pub file of the authority, one key a line", path = .0.display())]
    NotAKey(PathBuf, usize),
    /// The file is no certificate of a host.
    #[error("{path} is not a host certificate: ssh-keygen -s AUTHORITY -h -I NAME -n HOST KEY.pub makes one", path = .0.display())]
    NotAHostCertificate(PathBuf),
}

/// What a user's certificate allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertifiedLogin {
    /// Tokens that its principals name.
    pub(super) tokens: Vec<TokenId>,
    /// End of its validity.
    pub(super) valid_until: UnixMillis,
}

impl SshCertificates {
    /// Reads the public keys of the authorities that certify users (one a line; empty lines and those with `#` are
    /// skipped), and certificates of host keys.
    ///
    /// # Errors
    /// [`CertificateFileError`].
    pub fn read(user_authorities: Option<&Path>, host: &[PathBuf]) -> Result<Self, CertificateFileError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| CertificateFileError::Unreadable(path.to_owned(), error))
        };
        let mut certificates = Self::default();
        if let Some(path) = user_authorities {
            for (number, line) in (1..).zip(read(path)?.lines()) {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    let key = PublicKey::from_openssh(line);
                    let key = key.map_err(|_| CertificateFileError::NotAKey(path.to_owned(), number))?;
                    certificates.user_authorities.push(key);
                }
            }
            if certificates.user_authorities.is_empty() {
                return Err(CertificateFileError::NotAKey(path.to_owned(), 1));
            }
        }
        for path in host {
            let certificate = Certificate::from_openssh(read(path)?.trim()).ok();
            let certificate = certificate.filter(|certificate| certificate.cert_type() == CertType::Host);
            let certificate = certificate.ok_or_else(|| CertificateFileError::NotAHostCertificate(path.clone()))?;
            certificates.host.push(certificate);
        }
        Ok(certificates)
    }

    /// Tells whether users may have certificates.
    pub(super) fn accepts_users(&self) -> bool {
        !self.user_authorities.is_empty()
    }

    /// Returns the certificates of the host keys.
    pub(super) fn host(&self) -> &[Certificate] {
        &self.host
    }

    /// Judges a user's certificate, of whose key a signature was verified.
    ///
    /// # Errors
    /// The reason for which it is not accepted, for the log.
    pub(super) fn judge(
        &self,
        certificate: &Certificate,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<CertifiedLogin, &'static str> {
        if certificate.cert_type() != CertType::User {
            return Err("it is not the certificate of a user");
        }
        let fingerprints: Vec<_> = self.user_authorities.iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        certificate
            .validate_at(seconds, &fingerprints)
            .map_err(|_| "no configured authority has signed it, or it is not valid at this time")?;
        check_options(certificate, client)?;
        // A principal that is no token id is for another server.
        let tokens: Vec<_> = certificate.valid_principals().iter().filter_map(|name| name.parse().ok()).collect();
        if tokens.is_empty() {
            return Err("none of its principals is the id of a token");
        }
        let valid_until = match certificate.valid_before_time() {
            Some(end) => {
                let millis = end.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
                i64::try_from(millis).map_or(UnixMillis::MAX, UnixMillis::from_millis)
            }
            None => UnixMillis::MAX,
        };
        Ok(CertifiedLogin { tokens, valid_until })
    }
}

/// Checks the critical options: one that is unknown here must refuse the certificate.
fn check_options(certificate: &Certificate, client: IpAddr) -> Result<(), &'static str> {
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "force-command" if value == SFTP_COMMAND => {}
            "force-command" => return Err("it forces another command than internal-sftp"),
            "source-address" => {
                let mut networks = value.split(',').map(|network| parse_network(network.trim()));
                if !networks.any(|network| network.is_ok_and(|network| network.contains(&client))) {
                    return Err("it excludes the address of the client");
                }
            }
            _ => return Err("it has a critical option that is unknown here"),
        }
    }
    Ok(())
}
