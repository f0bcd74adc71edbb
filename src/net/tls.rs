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

/// Why certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds no PEM.
    #[error("{path} can't be read as PEM: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They don't fit together.
    #[error("the key is not that of the certificate")]
    KeyMismatch,
    /// TLS can't be answered with them.
    #[error("certificate and key can't be used: {}", describe_tls_error(.0))]
    Unusable(#[source] rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            other => TlsError::Unusable(other),
        }
    }
}

/// Names the crypto library for TLS clients of this process.
pub fn install_default_crypto_provider() {
    // Somebody may have done so before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Why TLS to a server failed: what is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// What is wrong with the server, as the end of a sentence that begins with it.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl TlsFailure {
    /// Finds it among the causes of an error, where TLS is what failed.
    pub fn find_in(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An I/O error hides what it is made of from those who ask for its source.
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
                // Signed by another authority of the same name.
                Certificate::UnknownIssuer | Certificate::BadSignature => (
                    "shows a certificate of an authority that is not trusted here".to_owned(),
                    "name the file of its authority (PEM): --ca-file FILE or PATGATE_CA_FILE",
                ),
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => (
                    "shows a certificate of another name".to_owned(),
                    "give the address under the name that the certificate was made for",
                ),
                Certificate::Expired | Certificate::ExpiredContext { .. } => (
                    "shows a certificate that has expired".to_owned(),
                    "give the server a new one, and look at the clock here",
                ),
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => (
                    "shows a certificate that is not valid yet".to_owned(),
                    "look at the clock here, and at the server's",
                ),
                Certificate::Other(_) => (
                    format!("shows a certificate that can't be used ({})", describe_certificate_error(certificate)),
                    "one that was signed by itself has to be made for a server: openssl req -x509 with -addext \
                     basicConstraints=CA:FALSE",
                ),
                other => (
                    format!("shows a certificate that can't be used ({})", describe_certificate_error(other)),
                    "give the server another one",
                ),
            },
            rustls::Error::InvalidMessage(_) => {
                ("does not speak TLS there".to_owned(), "a server without certificates is asked at http://")
            }
            other => (
                format!("can't be spoken to over TLS ({})", describe_tls_error(other)),
                "is it a patgate server's address?",
            ),
        };
        Self { problem, remedy }
    }
}

/// Says what is wrong, without the library's own names of faults.
fn describe_tls_error(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(certificate) => describe_certificate_error(certificate).to_owned(),
        rustls::Error::InvalidMessage(_) => "what came is no message of TLS".to_owned(),
        rustls::Error::PeerIncompatible(_) => "the two have no version, cipher or key exchange in common".to_owned(),
        rustls::Error::PeerMisbehaved(_) => "it breaks the rules of TLS".to_owned(),
        rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure) => {
            "it found no version, cipher or certificate that suits both".to_owned()
        }
        rustls::Error::AlertReceived(_) => "it broke the handshake off".to_owned(),
        rustls::Error::NoCertificatesPresented => "there is no certificate".to_owned(),
        rustls::Error::General(reason) => reason.clone(),
        _ => "TLS failed".to_owned(),
    }
}

fn describe_certificate_error(error: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        Certificate::BadEncoding => "it is damaged, or no certificate",
        Certificate::Expired | Certificate::ExpiredContext { .. } => "it has expired",
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "it is not valid yet",
        Certificate::Revoked => "it was revoked",
        Certificate::UnhandledCriticalExtension => "it asks for something that TLS clients don't know",
        Certificate::UnknownIssuer => "its authority is not trusted here",
        Certificate::BadSignature => "its signature is wrong",
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "it is of another name",
        Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => "it is not meant for a server",
        // webpki names the rest in its own words alone.
        Certificate::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is that of an authority, which no server may show as its own"
        }
        _ => "it breaks the rules of certificates",
    }
}

/// Finds what TLS clients will hold against a certificate, whichever authority they trust: that it has expired, is that
/// of an authority, is meant for something else or names no host.
///
/// # Errors
/// [`TlsError`] when the file can't be read.
pub fn check_certificate(certificate: &Path) -> Result<Option<&'static str>, TlsError> {
    let chain = read_certificate_chain(certificate)?;
    let Some((end_entity, intermediates)) = chain.split_first() else { return Ok(None) };
    let mut roots = rustls::RootCertStore::empty();
    // The authority itself is rarely in the chain: one that is unknown is no fault.
    roots.add_parsable_certificates(chain.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Ok(Some("it is damaged, or no certificate"));
    };
    // No host has that name (RFC 6761): a certificate that is refused for it alone is all right.
    let name = ServerName::try_from("patgate.invalid").map_err(|_| rustls::Error::General("no name".to_owned()))?;
    let result = verifier.verify_server_cert(end_entity, intermediates, &name, &[], UnixTime::now());
    Ok(match result {
        Err(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer | CertificateError::NotValidForName => None,
            CertificateError::NotValidForNameContext { presented, .. } => {
                presented.is_empty().then_some("it names no host (subjectAltName)")
            }
            error => Some(describe_certificate_error(&error)),
        },
        Ok(_) | Err(_) => None,
    })
}

/// Reads a certificate chain (PEM).
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
        pem::Error::NoItemsFound if memchr::memmem::find(&text, b"ENCRYPTED PRIVATE KEY").is_some() => {
            file_error("the key is encrypted: openssl pkey -in FILE -out FILE writes it without a password")
        }
        pem::Error::NoItemsFound => file_error("it holds no private key"),
        _ => file_error("it is damaged"),
    })
}

/// Reads a certificate chain and its key (both PEM) into a server's configuration for `protocols` (ALPN).
///
/// # Errors
/// [`TlsError`] when a file can't be read or the two don't fit.
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
