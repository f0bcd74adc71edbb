//! Notices: each kind reaches a webhook with a right signature and an administrator by mail; what fails is tried again, also
//! after a kill; addresses that are not public are refused; and nothing is sent where nobody is named.

#[path = "notices/kinds.rs"]
mod kinds;
#[path = "notices/mail.rs"]
mod mail;
#[path = "notices/smtp.rs"]
mod smtp;
#[path = "notices/webhook_delivery.rs"]
mod webhook_delivery;
#[path = "notices/webhooks.rs"]
mod webhooks;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use patgate::auth::Clock;
use patgate::domain::{Actor, AuditEvent, EventKind};
use patgate::gateway::{GatewaySettings, NoticeSecret, NoticeSettings, NoticeTimings};
use patgate::store::{NoticeReceiverState, Store};

use crate::support::Fixture;
use webhooks::{WEBHOOK_SECRET, WebhookAnswer, WebhookServer};

/// Long enough for any machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Intervals with which a test need not wait.
const TIMINGS: NoticeTimings = NoticeTimings {
    check_interval: Duration::from_millis(50),
    poll_interval: Duration::from_millis(20),
    first_retry: Duration::from_millis(50),
    attempt_timeout: Duration::from_secs(10),
};

/// Settings of notices that are too early for anything but what a test makes happen.
fn quiet_settings() -> NoticeSettings {
    NoticeSettings { min_free_bytes: 0, timings: TIMINGS, ..NoticeSettings::default() }
}

/// Settings with webhooks on this machine.
fn webhook_settings(secret_file: PathBuf, urls: &[String]) -> NoticeSettings {
    NoticeSettings {
        webhook_urls: urls.to_vec(),
        webhook_secret: NoticeSecret::of_webhooks(Some(secret_file)),
        webhook_networks: vec!["127.0.0.0/8".parse().expect("a network")],
        ..quiet_settings()
    }
}

fn write_secret(folder: &Path, name: &str, secret: &str) -> PathBuf {
    use std::io::Write;
    let path = folder.join(name);
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
    file.write_all(secret.as_bytes()).expect("written");
    path
}

/// A gateway with one webhook.
struct WebhookFixture {
    gateway: Fixture,
    webhook: WebhookServer,
    folder: tempfile::TempDir,
}

impl WebhookFixture {
    async fn start(answer: WebhookAnswer) -> Self {
        Self::start_with(Clock::system(), answer, |_| {}).await
    }

    async fn start_with(clock: Clock, answer: WebhookAnswer, adapt: impl FnOnce(&mut GatewaySettings)) -> Self {
        let webhook = WebhookServer::start(answer).await;
        let folder = tempfile::tempdir().expect("a folder");
        let secret = write_secret(folder.path(), "webhook.secret", WEBHOOK_SECRET);
        let gateway = Fixture::start_with(clock, |settings| {
            settings.notices = webhook_settings(secret, &[webhook.url()]);
            adapt(settings);
        })
        .await;
        Self { gateway, webhook, folder }
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.path().join("webhook.secret")
    }
}

/// Opens the store as another process does.
fn open_store(gateway: &Fixture) -> Store {
    Store::open_without_migration(&gateway.state()).expect("opens")
}

/// Records automatic bans, as another process may.
fn record_bans(gateway: &Fixture, count: usize) {
    let store = open_store(gateway);
    let ban = |number| {
        let event = AuditEvent::new(Clock::system().now(), EventKind::BanAdded).with_actor(Actor::Server);
        event.with_detail(format!("ban {number}"))
    };
    store.record_events(&(0..count).map(ban).collect::<Vec<_>>()).expect("recorded");
}

/// Waits until the only receiver is in a state.
async fn wait_for_receiver(
    gateway: &Fixture,
    is_reached: impl Fn(&NoticeReceiverState) -> bool,
) -> NoticeReceiverState {
    let store = open_store(gateway);
    let wait = async {
        loop {
            let receivers = store.notice_receivers().expect("read");
            if let [receiver] = &receivers[..]
                && is_reached(receiver)
            {
                return receiver.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(TIMEOUT, wait).await;
    reached.unwrap_or_else(|_| panic!("never: {:#?}", store.notice_receivers()))
}
