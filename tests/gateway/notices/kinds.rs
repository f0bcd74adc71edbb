//! What is announced: each kind of notice, from what causes it to a webhook.

use std::time::Duration;

use patgate::auth::{Clock, DefenderSettings};
use patgate::domain::{NoticeKind, UnixMillis};
use patgate::gateway::AcmeSettings;
use serde_json::json;

use super::webhooks::WebhookAnswer;
use super::{WebhookFixture, open_store, record_bans, wait_for_receiver, webhook_settings};
use crate::support::{Fixture, token_id};

const OK: WebhookAnswer = WebhookAnswer::Status("204 No Content");
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread")]
async fn token_that_expires_soon_is_announced_once_for_each_number_of_days() {
    let fixture = WebhookFixture::start_with(Clock::manual(Clock::system().now()), OK, |_| {}).await;
    let WebhookFixture { gateway, webhook, .. } = &fixture;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "20d", "--name", "nightly backup"]);
    let short = gateway.create_token("alice", &["-e", "2d"]);
    gateway.clock.advance(7 * DAY);
    let first = webhook.wait_for("token.expiring").await;
    assert_eq!((&first.body["data"]["user"], &first.body["data"]["days"]), (&json!("alice"), &json!(14)));
    assert_eq!(first.body["data"]["tokens"][0]["id"], token_id(&token));
    assert_eq!(first.body["data"]["tokens"].as_array().map(Vec::len), Some(1));
    gateway.clock.advance(11 * DAY);
    let both = webhook.wait_for_count(2).await;
    assert_eq!(both[1].body["data"]["days"], 3);
    let is_short = |received: &super::webhooks::ReceivedWebhook| received.body.to_string().contains(token_id(&short));
    assert!(!both.iter().any(is_short), "it was valid for two days from the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_used_from_a_new_address_is_announced() {
    let fixture = WebhookFixture::start_with(Clock::system(), OK, |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let gateway = &fixture.gateway;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    for address in ["203.0.113.9", "198.51.100.7", "203.0.113.9"] {
        let headers = [("x-forwarded-for", address), ("x-forwarded-proto", "https"), ("depth", "0")];
        assert_eq!(alice.send("PROPFIND", "/dav/", &headers, "").await.status, 207);
    }
    let notice = fixture.webhook.wait_for("token.new_address").await;
    let data = &notice.body["data"];
    assert_eq!((&data["user"], &data["address"]), (&json!("alice"), &json!("198.51.100.7")), "not its first one");
    assert_eq!((&data["token"], &data["protocol"]), (&json!(token_id(&token)), &json!("webdav")));
    assert!(!notice.body.to_string().contains(&token), "no secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_ban_is_announced_and_one_by_an_administrator_is_not() {
    let fixture = WebhookFixture::start_with(Clock::system(), OK, |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.defender = DefenderSettings { ban_after: 3, ..DefenderSettings::default() };
    })
    .await;
    fixture.gateway.run_cli(&["admin", "ban", "add", "192.0.2.1"]);
    fixture.gateway.create_user("alice", &["/:rw"]);
    let guesser = fixture.gateway.dav("alice", "a guess");
    for _ in 0..3 {
        let headers = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
        guesser.send("GET", "/dav/x", &headers, "").await;
    }
    let notice = fixture.webhook.wait_for("ban.added").await;
    let ban = notice.body["data"]["ban"].as_str().expect("text");
    assert!(ban.starts_with("192.0.2.7 until "), "{ban}");
    assert_eq!(fixture.webhook.received().len(), 1);
}

/// Writes a certificate that is valid from November 2029 to 15 January 2030, with its key.
fn write_certificate(folder: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(["files.test".to_owned()]).expect("a name");
    parameters.not_before = rcgen::date_time_ymd(2029, 11, 1);
    parameters.not_after = rcgen::date_time_ymd(2030, 1, 15);
    let certificate = parameters.self_signed(&key).expect("signed");
    let write = |name: &str, label: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let path = folder.join(name);
        std::fs::write(&path, format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")).expect("written");
        path
    };
    let certificate = write("cert.pem", "CERTIFICATE", certificate.der());
    (certificate, write("key.pem", "PRIVATE KEY", &key.serialize_der()))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_expires_soon_is_announced_once_also_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = write_certificate(folder.path());
    let clock = Clock::manual(UnixMillis::parse_utc("2030-01-05 12:00:00").expect("a time"));
    let mut fixture = WebhookFixture::start_with(clock, OK, |settings| settings.tls = Some(files.clone())).await;
    let notice = fixture.webhook.wait_for("certificate.expiring").await;
    assert_eq!(notice.body["data"], json!({ "days_left": 9, "expires_at": "2030-01-15T00:00:00Z" }));
    let notices = webhook_settings(fixture.secret_file(), &[fixture.webhook.url()]);
    fixture
        .gateway
        .restart_with(|settings| {
            settings.tls = Some(files);
            settings.notices = notices;
        })
        .await;
    fixture.gateway.clock.advance(8 * DAY);
    let received = fixture.webhook.wait_for_count(2).await;
    assert_eq!(received[1].body["data"]["days_left"], 1, "for the number of 3 days");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_order_of_a_certificate_is_announced() {
    let fixture = WebhookFixture::start_with(Clock::system(), OK, |settings| {
        settings.acme = Some(AcmeSettings {
            domains: vec!["files.test".to_owned()],
            contact: None,
            directory: "https://127.0.0.1:1/directory".to_owned(),
            ca_file: None,
            http: None,
        });
    })
    .await;
    let notice = fixture.webhook.wait_for("certificate.failed").await;
    assert_eq!(notice.body["data"]["domains"], json!(["files.test"]));
    assert_eq!(notice.body["data"]["retry_minutes"], 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn little_space_is_announced_once_and_so_is_its_end() {
    let low = |settings: &mut patgate::gateway::GatewaySettings| settings.notices.min_free_bytes = u64::MAX;
    let mut fixture = WebhookFixture::start_with(Clock::system(), OK, low).await;
    let disks = |received: Vec<super::webhooks::ReceivedWebhook>, kind: &str| {
        let of_kind = received.into_iter().filter(|received| received.body["type"] == kind);
        let mut disks: Vec<_> = of_kind.map(|received| received.body["data"]["disk"].clone()).collect();
        disks.sort_by_key(ToString::to_string);
        disks
    };
    assert_eq!(disks(fixture.webhook.wait_for_count(2).await, "disk.low"), ["root", "state"]);
    let notices = webhook_settings(fixture.secret_file(), &[fixture.webhook.url()]);
    fixture.gateway.restart_with(|settings| settings.notices = notices).await;
    assert_eq!(disks(fixture.webhook.wait_for_count(4).await, "disk.recovered"), ["root", "state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_that_is_nearly_used_up_is_announced_once() {
    let fixture = WebhookFixture::start(OK).await;
    let gateway = &fixture.gateway;
    gateway.create_user("alice", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "quota", "alice", "1000B"]);
    let alice = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    assert_eq!(alice.put("/dav/file", vec![b'x'; 800]).await.status, 201);
    assert_eq!(alice.put("/dav/more", vec![b'x'; 150]).await.status, 201);
    let notice = fixture.webhook.wait_for("quota.nearly_used").await;
    let expected = json!({ "account": "user:alice", "used_bytes": 950, "quota_bytes": 1000 });
    assert_eq!(notice.body["data"], expected);
    assert_eq!(alice.put("/dav/more", vec![b'x'; 160]).await.status, 204);
    std::fs::rename(gateway.root(), gateway.root().with_extension("aside")).expect("moved");
    fixture.webhook.wait_for("root.lost").await;
    let received = fixture.webhook.wait_for_count(2).await;
    let quotas = received.iter().filter(|received| received.body["type"] == "quota.nearly_used");
    assert_eq!(quotas.count(), 1, "as long as it is nearly used up");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_root_is_announced_and_so_is_its_return() {
    let fixture = WebhookFixture::start(OK).await;
    let (root, aside) = (fixture.gateway.root(), fixture.gateway.root().with_extension("aside"));
    std::fs::rename(&root, &aside).expect("moved");
    let lost = fixture.webhook.wait_for("root.lost").await;
    assert_eq!(lost.body["data"]["path"], "/");
    std::fs::rename(&aside, &root).expect("moved back");
    let back = fixture.webhook.wait_for("root.back").await;
    assert_eq!(back.body["data"], json!({ "path": "/" }));
    assert_ne!(lost.id, back.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_are_not_chosen_are_not_sent() {
    let fixture = WebhookFixture::start_with(Clock::system(), OK, |settings| {
        settings.notices.kinds = vec![NoticeKind::RootLost];
        settings.notices.min_free_bytes = u64::MAX;
    })
    .await;
    record_bans(&fixture.gateway, 1);
    let (root, aside) = (fixture.gateway.root(), fixture.gateway.root().with_extension("aside"));
    std::fs::rename(&root, &aside).expect("moved");
    fixture.webhook.wait_for("root.lost").await;
    wait_for_receiver(&fixture.gateway, |receiver| receiver.delivered == 1 && receiver.queued == 0).await;
    assert_eq!(fixture.webhook.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_queued_or_watched_where_no_receiver_is_named() {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.notices = super::quiet_settings();
        settings.notices.min_free_bytes = u64::MAX;
        settings.metrics = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    record_bans(&gateway, 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(open_store(&gateway).notice_receivers().expect("read").is_empty());
    assert_eq!(gateway.run_cli(&["admin", "notice", "list", "--json"]), "[]");
    let page = crate::support::send_raw(
        gateway.metrics.expect("a listener"),
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(!String::from_utf8_lossy(&page).contains("patgate_notices"));
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_a_receiver_that_is_no_longer_configured_are_dropped() {
    let mut fixture = WebhookFixture::start(WebhookAnswer::Status("500 Internal Server Error")).await;
    record_bans(&fixture.gateway, 1);
    wait_for_receiver(&fixture.gateway, |receiver| receiver.failed > 0).await;
    fixture.gateway.restart_with(|settings| settings.notices = super::quiet_settings()).await;
    assert!(open_store(&fixture.gateway).notice_receivers().expect("read").is_empty());
    assert_eq!(fixture.gateway.run_cli(&["admin", "notice", "list", "--json"]), "[]");
}
