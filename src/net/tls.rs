//! TLS from certificate files.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
    Strangers,
    /// TLS can't be answered with them.
    #[error("certificate and key can't be used: {0}")]
    Pair(#[source] rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Strangers,
            other => TlsError::Pair(other),
        }
    }
}

/// Names the crypto library for TLS clients of this process.
pub fn install_crypto() {
    // Somebody may have done so before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Why TLS to a server failed: what is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// What is wrong with the server, as the end of a sentence that begins with it.
    pub fault: String,
    /// What to do.
    pub remedy: &'static str,
}

impl TlsFailure {
    /// Finds it among the causes of an error, where TLS is what failed.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
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
        let (fault, remedy) = match error {
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
                    format!("shows a certificate that can't be used ({certificate})"),
                    "one that was signed by itself has to be made for a server: openssl req -x509 with -addext \
                     basicConstraints=CA:FALSE",
                ),
                other => (format!("shows a certificate that can't be used ({other})"), "give the server another one"),
            },
            rustls::Error::InvalidMessage(_) => {
                ("does not speak TLS there".to_owned(), "a server without certificates is asked at http://")
            }
            other => (format!("can't be spoken to over TLS ({other})"), "is it a patgate server's address?"),
        };
        Self { fault, remedy }
    }
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
    let fault = |path: &Path, reason: String| TlsError::File { path: path.to_owned(), reason };
    let open = |path: &Path| File::open(path).map(BufReader::new).map_err(|e| fault(path, e.to_string()));
    let chain: Vec<_> = CertificateDer::pem_reader_iter(open(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|e| fault(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(fault(certificate, "it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_reader(open(key)?).map_err(|e| fault(key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
