//! How webhooks are delivered: retries, the bound of the queue, and receivers that are slow, hostile, or somewhere else.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use patgate::auth::Clock;
use patgate::gateway::{Gateway, GatewayDependencies, GatewaySettings, NoticeSettings, StartError};

use super::smtp::tls_acceptor;
use super::webhooks::{WEBHOOK_SECRET, WebhookAnswer, WebhookServer};
use super::{WebhookFixture, record_bans, wait_for_receiver, webhook_settings, write_secret};
use crate::support::server::ServerProcess;
use crate::support::{Fixture, patgate_command, send_raw};

const OK: WebhookAnswer = WebhookAnswer::Status("204 No Content");
const FAILURE: WebhookAnswer = WebhookAnswer::Status("503 Service Unavailable");

#[tokio::test(flavor = "multi_thread")]
async fn failed_delivery_is_repeated_with_the_same_id() {
    let fixture = WebhookFixture::start(FAILURE).await;
    record_bans(&fixture.gateway, 1);
    fixture.webhook.wait_for_count(3).await;
    fixture.webhook.set_answer(OK);
    let receiver = wait_for_receiver(&fixture.gateway, |receiver| receiver.delivered == 1).await;
    assert!(receiver.failed >= 3 && receiver.queued == 0 && receiver.dropped == 0, "{receiver:?}");
    let received = fixture.webhook.received();
    assert!(received.iter().all(|again| again.id == received[0].id && again.body == received[0].body));
}

#[tokio::test(flavor = "multi_thread")]
async fn notice_survives_a_kill_and_is_delivered_by_the_next_server() {
    let webhook = WebhookServer::start(FAILURE).await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let start = || {
        let mut command = patgate_command(&folder.path().join("state"));
        command.env("PATGATE_WEBHOOK_URLS", webhook.url()).env("PATGATE_WEBHOOK_NETWORKS", "127.0.0.1");
        command.env("PATGATE_WEBHOOK_SECRET", WEBHOOK_SECRET).env("PATGATE_NOTICE_FREE_SPACE", "1000TiB");
        ServerProcess::start_with_command(command, folder.path())
    };
    let server = start();
    let first = webhook.wait_for("disk.low").await;
    server.kill();
    let before = webhook.received().len();
    webhook.set_answer(OK);
    let _server = start();
    let again = async {
        while !webhook.received()[before..].iter().any(|received| received.id == first.id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::TIMEOUT, again).await.expect("delivered by the next server");
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_of_a_receiver_is_bounded_and_what_is_dropped_is_counted() {
    let fixture = WebhookFixture::start_with(Clock::system(), FAILURE, |settings| {
        settings.notices.timings.first_retry = Duration::from_secs(3600);
        settings.metrics = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    record_bans(&fixture.gateway, 150);
    let receiver = wait_for_receiver(&fixture.gateway, |receiver| receiver.dropped > 0).await;
    assert_eq!((receiver.queued, receiver.dropped), (100, 50));
    let listed = fixture.gateway.run_cli(&["admin", "notice", "list", "--json"]);
    assert!(!listed.contains("ban 49\"") && listed.contains("ban 50\"") && listed.contains("ban 149\""), "the oldest");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let page = send_raw(fixture.gateway.metrics.expect("a listener"), request).await;
    let page = String::from_utf8(page).expect("text");
    for sample in [
        "patgate_notices_total{receiver=\"webhook\",outcome=\"dropped\"} 50",
        "patgate_notices_queued{receiver=\"webhook\"} 100",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_endless_receivers_are_given_up_in_time() {
    let fixture = WebhookFixture::start_with(Clock::system(), WebhookAnswer::Silence, |settings| {
        settings.notices.timings.attempt_timeout = Duration::from_secs(1);
    })
    .await;
    record_bans(&fixture.gateway, 1);
    let receiver = wait_for_receiver(&fixture.gateway, |receiver| receiver.failed > 0).await;
    assert_eq!(receiver.failure.as_deref(), Some("it did not answer in time"));
    fixture.webhook.set_answer(WebhookAnswer::EndlessHead);
    wait_for_receiver(&fixture.gateway, |receiver| receiver.failed > 2 && receiver.delivered == 0).await;
    fixture.webhook.set_answer(WebhookAnswer::EndlessBody);
    wait_for_receiver(&fixture.gateway, |receiver| receiver.delivered == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_is_not_followed() {
    let elsewhere = WebhookServer::start(OK).await;
    let location = format!("307 Temporary Redirect\r\nLocation: {}", elsewhere.url());
    let fixture = WebhookFixture::start(WebhookAnswer::Status(location.leak())).await;
    record_bans(&fixture.gateway, 1);
    let receiver = wait_for_receiver(&fixture.gateway, |receiver| receiver.failed > 0).await;
    assert!(receiver.failure.expect("a reason").contains("redirects are not followed"));
    assert!(elsewhere.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_that_is_gone_gets_no_second_attempt() {
    let fixture = WebhookFixture::start(WebhookAnswer::Status("410 Gone")).await;
    record_bans(&fixture.gateway, 1);
    let receiver = wait_for_receiver(&fixture.gateway, |receiver| receiver.dropped == 1).await;
    assert_eq!((receiver.queued, receiver.failed), (0, 1));
    assert_eq!(fixture.webhook.received().len(), 1);
}

/// Starts a gateway that is expected to refuse its settings.
async fn refusal(notices: NoticeSettings) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let mut settings = GatewaySettings::new(folder.path().join("files"), folder.path().join("state"));
    settings.http = Some(([127, 0, 0, 1], 0).into());
    settings.sftp = None;
    settings.notices = notices;
    match Gateway::open(settings, GatewayDependencies::default()).await {
        Err(error @ StartError::Notices(_)) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_address_and_secret_that_others_may_read_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = write_secret(folder.path(), "webhook.secret", WEBHOOK_SECRET);
    let mut notices = webhook_settings(secret.clone(), &["https://127.0.0.1/hook".to_owned()]);
    notices.webhook_networks.clear();
    let message = refusal(notices.clone()).await;
    assert!(message.contains("127.0.0.1 may not be reached") && message.contains("webhook_networks"), "{message}");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("mode");
    let message = refusal(notices).await;
    assert!(message.contains("other users may read") && message.contains("chmod 600"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_a_private_address_is_not_connected_to() {
    let webhook = WebhookServer::start(OK).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = write_secret(folder.path(), "webhook.secret", WEBHOOK_SECRET);
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.notices = webhook_settings(secret, &[format!("https://localhost:{}/hook", webhook.port)]);
        settings.notices.webhook_networks.clear();
    })
    .await;
    record_bans(&gateway, 1);
    let receiver = wait_for_receiver(&gateway, |receiver| receiver.failed > 0).await;
    assert!(receiver.failure.expect("a reason").contains("webhook_networks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_over_tls_is_verified_with_the_configured_authority() {
    let (acceptor, certificate) = tls_acceptor();
    let webhook = WebhookServer::start_tls(OK, acceptor).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = write_secret(folder.path(), "webhook.secret", WEBHOOK_SECRET);
    let url = format!("https://localhost:{}/hook?key=value", webhook.port);
    let mut notices = webhook_settings(secret, &[url]);
    notices.webhook_networks.push("::1/128".parse().expect("a network"));
    let mut gateway = Fixture::start_with(Clock::system(), |settings| settings.notices = notices.clone()).await;
    record_bans(&gateway, 1);
    let receiver = wait_for_receiver(&gateway, |receiver| receiver.failed > 0).await;
    let failure = receiver.failure.expect("a reason");
    assert!(failure.to_lowercase().contains("certificate"), "{failure}");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate).expect("written");
    notices.ca_file = Some(ca_file);
    gateway.restart_with(|settings| settings.notices = notices).await;
    webhook.wait_for("ban.added").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_command_says_of_each_receiver_whether_it_took_the_test() {
    let (good, bad) = (WebhookServer::start(OK).await, WebhookServer::start(FAILURE).await);
    let folder = tempfile::tempdir().expect("a folder");
    let run = |urls: &str| {
        let mut command = patgate_command(&folder.path().join("state"));
        command.env("PATGATE_WEBHOOK_URLS", urls).env("PATGATE_WEBHOOK_NETWORKS", "127.0.0.1");
        command.env("PATGATE_WEBHOOK_SECRET", WEBHOOK_SECRET);
        command.args(["admin", "notice", "test", "--json"]).output().expect("the program runs")
    };
    let output = run(&format!("{},{}", good.url(), bad.url()));
    assert!(!output.status.success());
    let outcomes: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcomes = outcomes.as_array().expect("a list");
    let delivered: Vec<_> = outcomes.iter().map(|outcome| outcome["delivered"].as_bool()).collect();
    assert!(delivered.contains(&Some(true)) && delivered.contains(&Some(false)), "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| !outcome["receiver"].to_string().contains("key=value")), "{outcomes:?}");
    assert!(run(&good.url()).status.success());
    assert_eq!(good.received()[0].body["type"], "notice.test");
    assert!(!run("").status.success(), "nobody would get it");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_shows_queue_and_last_failure() {
    let fixture = WebhookFixture::start(FAILURE).await;
    record_bans(&fixture.gateway, 1);
    wait_for_receiver(&fixture.gateway, |receiver| receiver.failed > 0).await;
    let output = fixture.gateway.try_run_cli(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let check = checks.as_array().expect("a list").iter().find(|check| check["what"] == "notices").expect("checked");
    assert_eq!(check["verdict"], "warning");
    let text = check["text"].as_str().expect("text");
    assert!(text.contains("1 queued") && text.contains("503"), "{text}");
}

/// Tells whether a program is there; says so where it is not.
fn has_program(name: &str) -> bool {
    let found = Command::new(name).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("not tried: there is no {name}");
    }
    found
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/webhooks").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_example_accepts_a_right_signature_alone() {
    if !has_program("openssl") {
        return;
    }
    let fixture = WebhookFixture::start(OK).await;
    record_bans(&fixture.gateway, 1);
    let received = fixture.webhook.wait_for("ban.added").await;
    let verify = |signature: &str, body: &str| {
        let mut command = Command::new("sh");
        command.arg(example("verify.sh")).args([&received.id, &received.timestamp, signature]);
        command.env("WEBHOOK_SECRET", WEBHOOK_SECRET).stdin(Stdio::piped());
        let mut process = command.spawn().expect("sh runs");
        std::io::Write::write_all(&mut process.stdin.take().expect("piped"), body.as_bytes()).expect("written");
        process.wait().expect("ended").success()
    };
    assert!(verify(&received.signature, &received.text));
    assert!(verify(&format!("v1,other {}", received.signature), &received.text), "one of two secrets");
    assert!(!verify(&received.signature, &received.text.replace("ban 0", "ban 1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_example_receives_what_the_gateway_signs() {
    if !has_program("python3") {
        return;
    }
    let start = |secret: &str| {
        let mut command = Command::new("python3");
        command.arg(example("receive.py")).arg("0").env("WEBHOOK_SECRET", secret).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 runs");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a line").expect("text");
        let port = line.rsplit(' ').next().expect("a port").to_owned();
        (process, lines, format!("http://127.0.0.1:{port}/"))
    };
    let folder = tempfile::tempdir().expect("a folder");
    let test = |url: &str| {
        let mut command = patgate_command(&folder.path().join("state"));
        command.env("PATGATE_WEBHOOK_URLS", url).env("PATGATE_WEBHOOK_NETWORKS", "127.0.0.1");
        command.env("PATGATE_WEBHOOK_SECRET", WEBHOOK_SECRET);
        command.args(["admin", "notice", "test"]).output().expect("the program runs")
    };
    let (mut right, mut lines, url) = start(WEBHOOK_SECRET);
    assert!(test(&url).status.success());
    let line = lines.next().expect("a line").expect("text");
    assert!(line.ends_with(" notice.test {}"), "{line}");
    let (mut wrong, _lines, url) = start("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let refused = test(&url);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("401"));
    for process in [&mut right, &mut wrong] {
        process.kill().expect("killed");
        process.wait().expect("ended");
    }
}
