//! TLS from certificate files.

use std::fs::File;
use std::io::BufReader;
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
    #[error("certificate and key can't be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// Names the crypto library for TLS clients of this process.
pub fn install_crypto() {
    // Somebody may have done so before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
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
