//! Answers to the challenges of a certificate authority (ACME): TLS-ALPN-01 (RFC 8737), a certificate that is presented
//! to who asks for the protocol `acme-tls/1`, and HTTP-01 (RFC 8555 section 8.3), a text below a well-known path.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Protocol of a TLS connection that validates a challenge.
pub(super) const ACME_TLS_PROTOCOL: &[u8] = b"acme-tls/1";

/// Reason why a challenge can't be answered.
#[derive(Debug, thiserror::Error)]
#[error("the answer to a challenge can't be created: {0}")]
pub struct ChallengeError(String);

/// Challenges that are being answered.
#[derive(Debug, Default)]
pub struct AcmeChallenges {
    /// Certificate that answers the challenge of a domain.
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
    /// Key authorization that answers the challenge with a token.
    texts: Mutex<HashMap<String, String>>,
}

impl AcmeChallenges {
    /// Answers the TLS-ALPN-01 challenge of a domain with a new certificate that holds `digest`.
    ///
    /// # Errors
    /// [`ChallengeError`] where no certificate can be created.
    pub fn answer_tls_alpn(&self, domain: &str, digest: &[u8; 32]) -> Result<(), ChallengeError> {
        let failed = |error: rcgen::Error| ChallengeError(error.to_string());
        let mut parameters = rcgen::CertificateParams::new([domain.to_owned()]).map_err(failed)?;
        parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.into());
        let key = key.map_err(|error| ChallengeError(error.to_string()))?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        self.certificates.lock().insert(domain.to_owned(), Arc::new(certified));
        Ok(())
    }

    /// Answers the HTTP-01 challenge with `token`.
    pub fn answer_http(&self, token: &str, key_authorization: &str) {
        self.texts.lock().insert(token.to_owned(), key_authorization.to_owned());
    }

    /// Returns the answer to the HTTP-01 challenge with `token`.
    pub fn http_answer(&self, token: &str) -> Option<String> {
        self.texts.lock().get(token).cloned()
    }

    /// Answers no challenge any more.
    pub fn clear(&self) {
        self.certificates.lock().clear();
        self.texts.lock().clear();
    }
}

/// Chooses the certificate of a connection: that of the server, or of a challenge.
#[derive(Debug)]
pub(super) struct AcmeCertificateResolver {
    /// The server's; `None` until the first one is issued.
    pub(super) certificate: Option<Arc<CertifiedKey>>,
    pub(super) challenges: Arc<AcmeChallenges>,
}

impl ResolvesServerCert for AcmeCertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_challenge = hello
            .alpn()
            .is_some_and(|mut protocols| protocols.next() == Some(ACME_TLS_PROTOCOL) && protocols.next().is_none());
        match is_challenge {
            true => self.challenges.certificates.lock().get(hello.server_name()?).cloned(),
            false => self.certificate.clone(),
        }
    }
}
