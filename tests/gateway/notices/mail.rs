//! Notices by mail: over TLS and STARTTLS, with logins and recipients that are refused.

use std::path::{Path, PathBuf};

use patgate::auth::Clock;
use patgate::gateway::{MailSettings, NoticeSecret, NoticeSettings, SmtpTls};

use super::smtp::{SmtpBehavior, SmtpServer};
use super::{open_store, quiet_settings, record_bans, wait_for_receiver, write_secret};
use crate::support::{Fixture, token_id};

/// Settings for a mail server on this machine.
fn mail_settings(folder: &Path, server: &SmtpServer, tls: SmtpTls) -> NoticeSettings {
    let ca_file: PathBuf = folder.join("mail-ca.pem");
    std::fs::write(&ca_file, &server.certificate_pem).expect("written");
    NoticeSettings {
        ca_file: Some(ca_file),
        mail: Some(MailSettings {
            host: "localhost".to_owned(),
            port: server.port,
            tls,
            login: None,
            password: NoticeSecret::of_mail(None),
            from: "patgate@example.org".to_owned(),
            to: vec!["ops@example.org".to_owned()],
        }),
        ..quiet_settings()
    }
}

fn with_login(mut settings: NoticeSettings, folder: &Path, password: &str) -> NoticeSettings {
    if let Some(mail) = &mut settings.mail {
        mail.login = Some("patgate".to_owned());
        mail.password = NoticeSecret::of_mail(Some(write_secret(folder, "smtp.password", password)));
    }
    settings
}

async fn start(notices: NoticeSettings) -> Fixture {
    Fixture::start_with(Clock::system(), |settings| settings.notices = notices).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_sent_over_starttls_with_a_login() {
    let folder = tempfile::tempdir().expect("a folder");
    let behavior = SmtpBehavior { credentials: Some(("patgate", "hidden")), ..SmtpBehavior::default() };
    let server = SmtpServer::start(behavior).await;
    let settings = with_login(mail_settings(folder.path(), &server, SmtpTls::StartTls), folder.path(), "hidden\n");
    let gateway = start(settings).await;
    record_bans(&gateway, 1);
    let mail = server.wait_for("an address was banned").await;
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("patgate@example.org", "ops@example.org"));
    assert_eq!(mail.login.as_deref(), Some("patgate"));
    for line in ["From: patgate@example.org", "To: ops@example.org", "Auto-Submitted: auto-generated", "  ban 0"] {
        assert!(mail.text.lines().any(|found| found == line), "{line} in {}", mail.text);
    }
    assert!(!mail.text.contains("hidden"));
    let receiver = wait_for_receiver(&gateway, |receiver| receiver.delivered == 1).await;
    assert_eq!(receiver.name, "mail ops@example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_sent_over_tls_from_the_first_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = SmtpServer::start(SmtpBehavior { implicit_tls: true, ..SmtpBehavior::default() }).await;
    let gateway = start(mail_settings(folder.path(), &server, SmtpTls::Implicit)).await;
    record_bans(&gateway, 1);
    server.wait_for("an address was banned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_encryption_or_to_a_server_that_is_not_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = SmtpServer::start(SmtpBehavior { without_tls: true, ..SmtpBehavior::default() }).await;
    let gateway = start(mail_settings(folder.path(), &server, SmtpTls::StartTls)).await;
    record_bans(&gateway, 1);
    wait_for_receiver(&gateway, |receiver| receiver.failed > 0 && receiver.queued == 1).await;
    assert!(server.mails().is_empty());
    let server = SmtpServer::start(SmtpBehavior::default()).await;
    let mut settings = mail_settings(folder.path(), &server, SmtpTls::StartTls);
    settings.ca_file = None;
    let gateway = start(settings).await;
    record_bans(&gateway, 1);
    let receiver = wait_for_receiver(&gateway, |receiver| receiver.failed > 0).await;
    assert!(receiver.failure.expect("a reason").to_lowercase().contains("certificate"));
    assert!(server.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_login_is_tried_again_until_the_password_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let behavior = SmtpBehavior { credentials: Some(("patgate", "hidden")), ..SmtpBehavior::default() };
    let server = SmtpServer::start(behavior).await;
    let settings = mail_settings(folder.path(), &server, SmtpTls::StartTls);
    let mut gateway = start(with_login(settings.clone(), folder.path(), "wrong")).await;
    record_bans(&gateway, 1);
    let receiver = wait_for_receiver(&gateway, |receiver| receiver.failed > 1).await;
    let failure = receiver.failure.expect("a reason");
    assert!(failure.contains("535") && !failure.contains("wrong\u{0}") && receiver.dropped == 0, "{failure}");
    gateway.restart_with(|gateway| gateway.notices = with_login(settings, folder.path(), "hidden")).await;
    server.wait_for("an address was banned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_recipient_is_given_up_and_keeps_no_other_from_its_mail() {
    let folder = tempfile::tempdir().expect("a folder");
    let behavior = SmtpBehavior { refused_recipient: Some("gone@example.org"), ..SmtpBehavior::default() };
    let server = SmtpServer::start(behavior).await;
    let mut settings = mail_settings(folder.path(), &server, SmtpTls::StartTls);
    if let Some(mail) = &mut settings.mail {
        mail.to = vec!["gone@example.org".to_owned(), "ops@example.org".to_owned()];
    }
    let gateway = start(settings).await;
    record_bans(&gateway, 1);
    assert_eq!(server.wait_for("an address was banned").await.to, "ops@example.org");
    let store = open_store(&gateway);
    let is_dropped = || {
        let receivers = store.notice_receivers().expect("read");
        receivers.iter().any(|r| r.name == "mail gone@example.org" && r.dropped == 1 && r.queued == 0 && r.failed == 1)
    };
    let wait = async {
        while !is_dropped() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::TIMEOUT, wait).await.expect("given up at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_one_owner_that_expire_soon_are_in_one_mail() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = SmtpServer::start(SmtpBehavior::default()).await;
    let settings = mail_settings(folder.path(), &server, SmtpTls::StartTls);
    let clock = Clock::manual(Clock::system().now());
    let gateway = Fixture::start_with(clock, |gateway| gateway.notices = settings).await;
    gateway.create_user("alice", &["/:rw"]);
    let tokens = ["one", "two"].map(|_| gateway.create_token("alice", &["-e", "30d"]));
    gateway.clock.advance(std::time::Duration::from_secs(20 * 86_400));
    let mail = server.wait_for("2 tokens of alice expire within 14 days").await;
    assert!(tokens.iter().all(|token| mail.text.contains(token_id(token)) && !mail.text.contains(token)));
}
