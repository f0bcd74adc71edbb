//! TLS from certificate files.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use super::acme_challenges::{ACME_TLS_PROTOCOL, AcmeCertificateResolver, AcmeChallenges};
use super::certificate::CertificateValidity;

/// Error of a certificate or private key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or is not PEM.
    #[error("{path} can't be read as PEM: {reason}", path = path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause, for the user.
        reason: String,
    },
    /// Certificate and key don't belong together.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// rustls rejects the certificate or key.
    #[error("certificate and key can't be used: {}", describe_tls_error(.0))]
    Unusable(#[source] rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            // The commonest mistake at a renewal, so that it has a message of its own.
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            other => TlsError::Unusable(other),
        }
    }
}

/// Installs the crypto provider for TLS clients of this process; does nothing if one is installed.
pub fn install_default_crypto_provider() {
    // Fails if a provider is installed already, by the program or a test.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Diagnosis of a failed TLS connection to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// Problem, as the predicate of a sentence whose subject is the server.
    pub problem: String,
    /// Remedy, in the imperative.
    pub remedy: &'static str,
}

impl TlsFailure {
    /// Searches an error and its sources for a TLS error; `None` if there is none.
    pub fn find_in(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // `io::Error::source` skips the error that it wraps and returns that error's source.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let rustls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
            if let Some(error) = rustls {
                return Some(Self::from(error));
            }
            next = inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
        }
        None
    }
}

impl From<&rustls::Error> for TlsFailure {
    fn from(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Certificate;
        let (problem, remedy) = match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                // A bad signature means another authority of the same name.
                Certificate::UnknownIssuer | Certificate::BadSignature => (
                    "presents a certificate from an authority that is not trusted here".to_owned(),
                    "pass the certificate of its authority (PEM): --ca-file FILE or PATGATE_CA_FILE",
                ),
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => (
                    "presents a certificate for another host name".to_owned(),
                    "use the host name that the certificate was issued for",
                ),
                Certificate::Expired | Certificate::ExpiredContext { .. } => (
                    "presents a certificate that has expired".to_owned(),
                    "renew the server's certificate, and check the clock here",
                ),
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => (
                    "presents a certificate that is not valid yet".to_owned(),
                    "check the clocks here and on the server",
                ),
                Certificate::Other(_) => (
                    format!("presents a certificate that can't be used ({})", describe_certificate_error(certificate)),
                    "a self-signed certificate must not be that of an authority: openssl req -x509 with -addext \
                     basicConstraints=CA:FALSE",
                ),
                other => (
                    format!("presents a certificate that can't be used ({})", describe_certificate_error(other)),
                    "install another certificate on the server",
                ),
            },
            rustls::Error::InvalidMessage(_) => {
                ("does not speak TLS there".to_owned(), "a server without a certificate is reached at http://")
            }
            other => (
                format!("can't be reached over TLS ({})", describe_tls_error(other)),
                "check that the address is that of a patgate server",
            ),
        };
        Self { problem, remedy }
    }
}

/// Describes an error without the library's own names of errors.
fn describe_tls_error(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(certificate) => describe_certificate_error(certificate).to_owned(),
        rustls::Error::InvalidMessage(_) => "the peer's reply is not a TLS message".to_owned(),
        rustls::Error::PeerIncompatible(_) => {
            "there is no TLS version, cipher suite or key exchange in common".to_owned()
        }
        rustls::Error::PeerMisbehaved(_) => "it violates the TLS protocol".to_owned(),
        rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure) => {
            "it found no acceptable TLS version, cipher suite or certificate".to_owned()
        }
        rustls::Error::AlertReceived(_) => "it aborted the handshake".to_owned(),
        rustls::Error::NoCertificatesPresented => "there is no certificate".to_owned(),
        rustls::Error::General(reason) => reason.clone(),
        _ => "TLS failed".to_owned(),
    }
}

fn describe_certificate_error(error: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        Certificate::BadEncoding => "it is damaged or not a certificate",
        Certificate::Expired | Certificate::ExpiredContext { .. } => "it has expired",
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "it is not valid yet",
        Certificate::Revoked => "it was revoked",
        Certificate::UnhandledCriticalExtension => "it has a critical extension that TLS clients don't support",
        Certificate::UnknownIssuer => "its authority is not trusted here",
        Certificate::BadSignature => "its signature is invalid",
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "it is for another host name",
        Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => {
            "its extended key usage does not include servers"
        }
        // webpki reports the remaining errors as text only.
        Certificate::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is the certificate of an authority, which a server may not present as its own"
        }
        _ => "it violates the rules of X.509",
    }
}

/// Returns the reason for which TLS clients will reject a certificate, whichever authority they trust: that it has
/// expired, belongs to an authority, is not for servers or names no host. `None` if there is none.
///
/// # Errors
/// [`TlsError`] when the file can't be read.
pub fn check_certificate(certificate: &Path) -> Result<Option<&'static str>, TlsError> {
    let problem = verify_certificate(certificate, UnixTime::now())?.map(|error| match error {
        CertificateError::UnknownIssuer | CertificateError::NotValidForName => None,
        CertificateError::NotValidForNameContext { presented, .. } => {
            presented.is_empty().then_some("it names no host (subjectAltName)")
        }
        error => Some(describe_certificate_error(&error)),
    });
    Ok(problem.flatten())
}

/// Returns the reason for which a client rejects a certificate at a time that knows its authority and looks for a name that
/// no certificate has.
///
/// # Errors
/// [`TlsError`] when the file can't be read.
fn verify_certificate(certificate: &Path, now: UnixTime) -> Result<Option<CertificateError>, TlsError> {
    let chain = read_certificate_chain(certificate)?;
    let Some((end_entity, intermediates)) = chain.split_first() else { return Ok(None) };
    let mut roots = rustls::RootCertStore::empty();
    // The root is rarely part of the chain: an unknown issuer is not an error below.
    roots.add_parsable_certificates(chain.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Ok(Some(CertificateError::BadEncoding));
    };
    // No certificate is for this name (RFC 6761): a rejection for the name alone means that all else is valid.
    let name = ServerName::try_from("patgate.invalid").map_err(|_| rustls::Error::General("no name".to_owned()))?;
    Ok(match verifier.verify_server_cert(end_entity, intermediates, &name, &[], now) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        Ok(_) | Err(_) => None,
    })
}

/// Reads a certificate chain (PEM); at least one certificate.
fn read_certificate_chain(certificate: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file_error = |reason: String| TlsError::File { path: certificate.to_owned(), reason };
    let file = File::open(certificate).map_err(|error| file_error(error.to_string()))?;
    let chain = CertificateDer::pem_reader_iter(BufReader::new(file)).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err(file_error("it holds no certificate".to_owned())),
        Ok(chain) => Ok(chain),
        Err(pem::Error::Io(error)) => Err(file_error(error.to_string())),
        Err(_) => Err(file_error("it is damaged".to_owned())),
    }
}

/// Reads a private key (PEM).
fn read_private_key(key: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file_error = |reason: &str| TlsError::File { path: key.to_owned(), reason: reason.to_owned() };
    let text = zeroize::Zeroizing::new(std::fs::read(key).map_err(|error| file_error(&error.to_string()))?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        // rustls reads no encrypted keys, and would report the file as empty.
        pem::Error::NoItemsFound if memchr::memmem::find(&text, b"ENCRYPTED PRIVATE KEY").is_some() => {
            file_error("the key is encrypted: decrypt it with openssl pkey -in FILE -out FILE")
        }
        pem::Error::NoItemsFound => file_error("it holds no private key"),
        _ => file_error("it is damaged"),
    })
}

/// Returns the time for which the certificate in a file (PEM) is valid; `None` where it is damaged.
///
/// # Errors
/// [`TlsError`] when the file can't be read.
pub fn certificate_validity(certificate: &Path) -> Result<Option<CertificateValidity>, TlsError> {
    Ok(read_certificate_chain(certificate)?.first().and_then(CertificateValidity::of_certificate))
}

/// Returns the TLS configuration of a server whose certificate comes by ACME, in one file (PEM) with its key; until that
/// exists, only challenges are answered.
///
/// # Errors
/// [`TlsError`] when the file can't be read, or certificate and key don't belong together.
pub fn acme_server_config(
    file: &Path,
    protocols: &[&str],
    challenges: Arc<AcmeChallenges>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = match file.exists() {
        true => {
            let (chain, key) = (read_certificate_chain(file)?, read_private_key(file)?);
            Some(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
        }
        false => None,
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AcmeCertificateResolver { certificate, challenges }));
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    config.alpn_protocols.push(ACME_TLS_PROTOCOL.to_vec());
    Ok(Arc::new(config))
}

/// Returns a server's TLS configuration from a certificate chain and its key (both PEM), for `protocols` (ALPN).
///
/// # Errors
/// [`TlsError`] when a file can't be read, or certificate and key don't belong together.
pub fn server_config(
    certificate: &Path,
    key: &Path,
    protocols: &[&str],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let (chain, key) = (read_certificate_chain(certificate)?, read_private_key(key)?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn expiry_of_every_certificate_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls");
        for (name, seconds) in [
            ("server.pem", 4_948_944_508),
            ("self.pem", 4_948_944_508),
            ("expired.pem", 1_609_459_200),
            ("ca.pem", 4_948_944_508),
        ] {
            let expiry = certificate_validity(&folder.join(name)).expect("readable").expect("a time").not_after;
            assert_eq!(
                expiry.duration_since(SystemTime::UNIX_EPOCH).map(|time| time.as_secs()).ok(),
                Some(seconds),
                "{name}"
            );
        }
        assert!(certificate_validity(&folder.join("key.pem")).is_err(), "it is no certificate");
    }
}
