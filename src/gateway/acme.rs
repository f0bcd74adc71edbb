//! Certificates from a certificate authority (ACME, RFC 8555): ordered at the first start, renewed when a third of their
//! lifetime is left, and kept in the state directory in one file with their key.
//!
//! The authority validates each domain by TLS-ALPN-01 at the HTTP listener, or by HTTP-01 where a listener for that is
//! configured. The old certificate stays in use until it is replaced. After a failure the next order waits, longer each
//! time, and so does one after a restart: authorities lock out who orders too often.

mod account;
mod error;
mod http_listener;
mod schedule;
mod state_files;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use tokio_util::sync::CancellationToken;

use super::reload::GatewayReloader;
use super::settings::AcmeSettings;
use crate::domain::{NoticeContent, notice_text};
use crate::net::AcmeChallenges;

use error::AcmeError;
pub(super) use http_listener::serve_challenges;
use schedule::{AcmeStatus, RenewalJitter};
use state_files::AcmeStateFiles;

/// Maximum time of one order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for which the state of an order is asked for.
const ORDER_RETRIES: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));
/// Maximum time of one wait: the machine may have slept, or its clock been set.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Orders and renews the certificate of a gateway.
pub(super) struct AcmeManager {
    pub(super) settings: AcmeSettings,
    pub(super) challenges: Arc<AcmeChallenges>,
    pub(super) reloader: GatewayReloader,
    pub(super) files: AcmeStateFiles,
}

impl AcmeManager {
    /// Creates the manager of a gateway whose certificate lies in `certificate_file`.
    pub(super) fn new(settings: AcmeSettings, certificate_file: std::path::PathBuf, reloader: GatewayReloader) -> Self {
        let challenges = Arc::clone(&reloader.challenges);
        Self { settings, challenges, reloader, files: AcmeStateFiles::new(certificate_file) }
    }

    /// Orders certificates when they are due, until `stop` is cancelled.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut status = self.files.read_status();
        let mut jitter = RenewalJitter::new();
        loop {
            let wait = status.time_until_order(&self.settings, self.reloader.certificate_validity(), jitter.fraction());
            if !wait.is_zero() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait.min(MAX_WAIT)) => continue,
                }
            }
            let ordered = tokio::select! {
                () = stop.cancelled() => return,
                ordered = tokio::time::timeout(ORDER_TIMEOUT, self.order_certificate()) => {
                    ordered.unwrap_or(Err(AcmeError::Timeout))
                }
            };
            self.challenges.clear();
            let ordered = ordered.and_then(|pem| self.install_certificate(&pem));
            self.record_outcome(ordered, &mut status);
            jitter = RenewalJitter::new();
        }
    }

    /// Records an order's outcome, also for the next start.
    fn record_outcome(&self, ordered: Result<(), AcmeError>, status: &mut AcmeStatus) {
        match ordered {
            Ok(()) => {
                status.record_success(&self.settings);
                tracing::info!("a certificate for {} was issued", self.settings.domains.join(", "));
            }
            Err(error) => {
                let is_rate_limited = matches!(&error, AcmeError::Protocol(instant_acme::Error::Api(problem))
                    if problem.r#type.as_deref().is_some_and(|name| name.ends_with(":rateLimited")));
                let delay = status.record_failure(&self.settings, is_rate_limited, SystemTime::now());
                let domains = self.settings.domains.join(", ");
                let minutes = delay.as_secs() / 60;
                tracing::error!("no certificate for {domains} was issued, tried again in {minutes} minutes: {error}");
                let notice = NoticeContent::CertificateFailed {
                    domains: self.settings.domains.clone(),
                    reason: notice_text(&error.to_string()),
                    retry_minutes: minutes,
                };
                let notices = self.reloader.notices.clone();
                // Its outcome is of no concern to the orders.
                drop(tokio::task::spawn_blocking(move || notices.record(notice)));
            }
        }
        if let Err(error) = self.files.write_status(status) {
            tracing::warn!(%error, "the state of certificate orders can't be written");
        }
    }

    /// Orders a certificate, and returns it with its key (PEM).
    async fn order_certificate(&self) -> Result<String, AcmeError> {
        let account = account::open(&self.settings, &self.files).await?;
        let domains: Vec<_> = self.settings.domains.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let mut order = account.new_order(&NewOrder::new(&domains)).await?;
        self.answer_challenges(&mut order).await?;
        if order.poll_ready(&ORDER_RETRIES).await? != OrderStatus::Ready {
            return Err(AcmeError::Refused(refusal_of(&mut order).await));
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&ORDER_RETRIES).await?;
        Ok(format!("{}\n{}\n", key.trim_end(), chain.trim_end()))
    }

    /// Answers the challenge of each domain that is not validated yet, and has the authority validate it.
    async fn answer_challenges(&self, order: &mut Order) -> Result<(), AcmeError> {
        let (kind, name) = match self.settings.http {
            Some(_) => (ChallengeType::Http01, "http-01"),
            None => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let mut challenge = authorization
                .challenge(kind.clone())
                .ok_or_else(|| AcmeError::ChallengeNotOffered(domain.clone(), name))?;
            let answer = challenge.key_authorization();
            match self.settings.http {
                Some(_) => self.challenges.answer_http(&challenge.token, answer.as_str()),
                None => {
                    let digest = answer.digest();
                    let digest = digest.as_ref().try_into().map_err(|_| AcmeError::Refused("no digest".to_owned()))?;
                    self.challenges.answer_tls_alpn(&domain, digest)?;
                }
            }
            // Only now: the authority may look at once.
            challenge.set_ready().await?;
        }
        Ok(())
    }

    /// Puts a certificate in the state directory and in use.
    fn install_certificate(&self, pem: &str) -> Result<(), AcmeError> {
        self.files.write_certificate(pem)?;
        Ok(self.reloader.reload_certificate()?)
    }
}

/// Returns why an order was refused, of each domain.
async fn refusal_of(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let _ = authorization.refresh().await;
        let domain = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(problems.filter_map(|problem| Some(format!("{domain}: {}", problem.detail.as_ref()?))));
    }
    match reasons.is_empty() {
        true => "the order is invalid".to_owned(),
        false => reasons.join("; "),
    }
}
