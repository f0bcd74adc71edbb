//! The receivers of notices: webhooks, and each address that gets mail.

use super::error::{DeliveryFailure, NoticeError};
use super::mail::{MailReceiver, MailTransport};
use super::settings::NoticeSettings;
use super::webhook::WebhookReceiver;
use super::webhook_signature::WebhookSecrets;
use crate::domain::{Notice, NoticeContent, UnixMillis};
use crate::gateway::audit_forwarder::host_name;

/// Maximum number of webhooks, and of addresses that get mail.
const MAX_RECEIVERS_EACH: usize = 16;

/// Receiver of notices.
pub(super) enum NoticeReceiver {
    Webhook(Box<WebhookReceiver>),
    Mail(Box<MailReceiver>),
}

/// All receivers of a gateway.
pub struct NoticeReceivers(Vec<NoticeReceiver>);

/// What became of a test notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// Name of the receiver.
    pub receiver: String,
    /// Reason why it was not delivered; `None` where it was.
    pub failure: Option<String>,
}

impl NoticeReceiver {
    pub(super) fn name(&self) -> &str {
        match self {
            NoticeReceiver::Webhook(webhook) => &webhook.name,
            NoticeReceiver::Mail(mail) => &mail.name,
        }
    }

    /// Sends a notice once.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), DeliveryFailure> {
        match self {
            NoticeReceiver::Webhook(webhook) => webhook.send(notice).await,
            NoticeReceiver::Mail(mail) => mail.send(notice).await,
        }
    }
}

impl NoticeReceivers {
    /// Reads the secrets and certificates that the settings name.
    ///
    /// # Errors
    /// [`NoticeError`] for settings that can't be used.
    pub fn open(settings: &NoticeSettings) -> Result<Self, NoticeError> {
        let server_name = host_name();
        let mut receivers = Vec::new();
        if !settings.webhook_urls.is_empty() {
            check_count("webhook_urls", settings.webhook_urls.len())?;
            let secrets = WebhookSecrets::parse(&settings.webhook_secret.load()?, settings.webhook_secret.setting)?;
            for url in &settings.webhook_urls {
                let webhook = WebhookReceiver::new(url, settings, &secrets, &server_name)?;
                receivers.push(NoticeReceiver::Webhook(Box::new(webhook)));
            }
        }
        if let Some(mail) = &settings.mail {
            check_count("mail_to", mail.to.len())?;
            let transport = MailTransport::new(mail, settings.ca_file.as_deref(), &settings.timings, &server_name)?;
            for address in &mail.to {
                let receiver = MailReceiver::new(&transport, &mail.from, address, &server_name)?;
                receivers.push(NoticeReceiver::Mail(Box::new(receiver)));
            }
        }
        // The same URL or address twice would get each notice twice, by one queue.
        receivers.sort_by(|a, b| a.name().cmp(b.name()));
        receivers.dedup_by(|a, b| a.name() == b.name());
        Ok(Self(receivers))
    }

    /// Returns the names of all receivers.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|receiver| receiver.name().to_owned()).collect()
    }

    /// Sends a test notice to each receiver, once.
    pub async fn send_test(&self, now: UnixMillis) -> Vec<TestOutcome> {
        let notice = Notice::new(now, NoticeContent::Test {});
        let mut outcomes = Vec::new();
        for receiver in &self.0 {
            let failure = receiver.send(&notice).await.err().map(|failure| failure.reason);
            outcomes.push(TestOutcome { receiver: receiver.name().to_owned(), failure });
        }
        outcomes
    }

    /// Returns each receiver by itself.
    pub(super) fn into_receivers(self) -> Vec<NoticeReceiver> {
        self.0
    }
}

fn check_count(setting: &'static str, count: usize) -> Result<(), NoticeError> {
    match count > MAX_RECEIVERS_EACH {
        true => Err(NoticeError::invalid(setting, format!("give no more than {MAX_RECEIVERS_EACH}"))),
        false => Ok(()),
    }
}
