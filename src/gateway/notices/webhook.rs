//! A webhook: one POST for each attempt, on a connection of its own. Redirects are not followed and no proxy is asked: the
//! connection goes to an address that was checked. Of the answer nothing but its status is read.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::body::webhook_body;
use super::error::{DeliveryFailure, NoticeError};
use super::settings::NoticeSettings;
use super::webhook_resolver::WebhookResolver;
use super::webhook_signature::WebhookSecrets;
use crate::domain::Notice;
use crate::net::{self, ReachableAddresses};

/// Maximum time until a connection stands, within the time of the attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SETTING: &str = "webhook_urls";

/// Receiver of webhooks.
pub(super) struct WebhookReceiver {
    /// Name in the store and in the log: origin and a part of the hash of the URL, whose path may be a secret.
    pub(super) name: String,
    url: Url,
    client: Client,
    secrets: WebhookSecrets,
    server_name: String,
}

impl WebhookReceiver {
    /// Creates the receiver at a URL.
    ///
    /// # Errors
    /// [`NoticeError`] for a URL that can't be used, or an address in it that may not be reached.
    pub(super) fn new(
        url: &str,
        settings: &NoticeSettings,
        secrets: &WebhookSecrets,
        server_name: &str,
    ) -> Result<Self, NoticeError> {
        let url = parse_url(url)?;
        let reachable = ReachableAddresses {
            allowed_networks: settings.webhook_networks.clone(),
            // What is not encrypted stays in networks that the administrator names.
            includes_public: url.scheme() == "https",
        };
        Self::with_resolver(url, settings, secrets, server_name, WebhookResolver::new(reachable))
    }

    fn with_resolver(
        url: Url,
        settings: &NoticeSettings,
        secrets: &WebhookSecrets,
        server_name: &str,
        resolver: WebhookResolver,
    ) -> Result<Self, NoticeError> {
        // An address in place of a name never gets to the resolver.
        if let Some(address) = literal_address(&url)
            && !resolver.reachable.contains(address)
        {
            let reason = format!("{address} may not be reached: allow its network with webhook_networks");
            return Err(NoticeError::invalid(SETTING, reason));
        }
        net::install_default_crypto_provider();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .http1_only()
            // A connection that is kept would go on leading where its name led once.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT.min(settings.timings.attempt_timeout))
            .timeout(settings.timings.attempt_timeout)
            .user_agent(concat!("patgate/", env!("CARGO_PKG_VERSION")))
            .https_only(url.scheme() == "https")
            .dns_resolver(std::sync::Arc::new(resolver));
        let client = match &settings.ca_file {
            Some(path) => client.tls_certs_merge(read_certificates(path)?),
            None => client,
        };
        let client = client.build().map_err(|error| NoticeError::invalid(SETTING, error))?;
        Ok(Self {
            name: receiver_name(&url),
            url,
            client,
            secrets: secrets.clone(),
            server_name: server_name.to_owned(),
        })
    }

    /// Sends a notice once.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), DeliveryFailure> {
        let body = webhook_body(notice, &self.server_name).map_err(DeliveryFailure::permanent)?;
        // The real time: receivers refuse what was signed too long ago.
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &notice.message_id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", self.secrets.sign(&notice.message_id, timestamp, &body))
            .body(body);
        // The error without its URL, which may hold a secret.
        let response = request.send().await.map_err(|error| describe_error(&error.without_url()))?;
        // The body is not read: dropping the response closes the connection, however much the receiver would send.
        match response.status() {
            status if status.is_success() => Ok(()),
            // By the specification: this receiver wants no more.
            StatusCode::GONE => Err(DeliveryFailure::permanent("it answers 410 Gone")),
            status if status.is_redirection() => {
                Err(DeliveryFailure::temporary(format!("it answers {status}: redirects are not followed")))
            }
            status => Err(DeliveryFailure::temporary(format!("it answers {status}"))),
        }
    }
}

fn describe_error(error: &reqwest::Error) -> DeliveryFailure {
    match error {
        error if error.is_timeout() => DeliveryFailure::temporary("it did not answer in time"),
        error if error.is_connect() => DeliveryFailure::with_cause("no connection", error),
        error => DeliveryFailure::with_cause("it did not take the request", error),
    }
}

fn parse_url(text: &str) -> Result<Url, NoticeError> {
    let invalid = |reason: &str| NoticeError::invalid(SETTING, format!("{reason}: give https://HOST/PATH"));
    let url: Url = text.parse().map_err(|_| invalid("a text is not a URL"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(invalid("a URL is neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid("a URL has a user, a password or a fragment"));
    }
    Ok(url)
}

/// Returns the address that a URL has in place of a name. The parser has brought unusual spellings of it into form.
fn literal_address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn receiver_name(url: &Url) -> String {
    let digest = Sha256::digest(url.as_str().as_bytes());
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("webhook {} {hash}", url.origin().ascii_serialization())
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, NoticeError> {
    let setting = "notice_ca_file";
    let pem = std::fs::read(path).map_err(|source| NoticeError::File { setting, path: path.to_owned(), source })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(NoticeError::invalid(setting, format!("{} holds no certificate in PEM", path.display()))),
    }
}

#[cfg(test)]
mod tests;
