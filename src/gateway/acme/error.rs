//! Why a certificate authority has issued no certificate.

use crate::net::{ChallengeError, TlsError};

/// Reason why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcmeError {
    #[error(transparent)]
    Protocol(#[from] instant_acme::Error),
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error("the state directory: {0}")]
    State(#[from] std::io::Error),
    #[error("the authority offers no challenge {1} for {0}")]
    ChallengeNotOffered(String, &'static str),
    #[error("the authority refuses: {0}")]
    Refused(String),
    #[error("the authority did not answer in time")]
    Timeout,
    #[error("the certificate can't be used: {0}")]
    Unusable(#[from] TlsError),
}
