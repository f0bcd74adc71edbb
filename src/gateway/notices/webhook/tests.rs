//! Tests of webhooks: which addresses are connected to, and what is refused at the start. `tests/gateway/notices.rs` has the
//! deliveries.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::domain::{NoticeContent, UnixMillis};

fn secrets() -> WebhookSecrets {
    WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "test").expect("a secret")
}

fn test_notice() -> Notice {
    Notice::new(UnixMillis::from_millis(0), NoticeContent::Test {})
}

fn refusal(url: &str, settings: &NoticeSettings) -> String {
    WebhookReceiver::new(url, settings, &secrets(), "files").err().map(|error| error.to_string()).unwrap_or_default()
}

/// Answers requests with 204 and counts them.
async fn count_requests(listener: TcpListener, count: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    }
}

#[test]
fn urls_and_literal_addresses_that_may_not_be_reached_are_refused_at_the_start() {
    let settings = NoticeSettings::default();
    for url in [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "http://1.1.1.1/",
    ] {
        assert!(refusal(url, &settings).contains("may not be reached"), "{url}: {}", refusal(url, &settings));
    }
    for url in ["ftp://a.example/", "https://", "hooks.example", "https://u:p@a.example/", "https://a.example/#x"] {
        assert!(refusal(url, &settings).starts_with("webhook_urls: "), "{url}");
    }
    let settings = NoticeSettings { webhook_networks: vec!["127.0.0.0/8".parse().expect("a network")], ..settings };
    assert_eq!(refusal("http://127.0.0.1/", &settings), "");
    assert!(refusal("http://10.0.0.1/", &settings).contains("may not be reached"));
}

#[test]
fn name_of_a_receiver_has_neither_path_nor_query() {
    let webhook = |url| WebhookReceiver::new(url, &NoticeSettings::default(), &secrets(), "files").expect("a webhook");
    let (one, other) = (webhook("https://hooks.example/T000/secret?key=secret"), webhook("https://hooks.example/else"));
    assert!(one.name.starts_with("webhook https://hooks.example ") && !one.name.contains("secret"), "{}", one.name);
    assert_ne!(one.name, other.name);
}

#[tokio::test]
async fn name_that_leads_elsewhere_at_the_next_attempt_is_not_followed() {
    let (allowed, elsewhere) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let listener = TcpListener::bind((allowed, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let victim = TcpListener::bind((elsewhere, port)).await.expect("the same port");
    let counts = [Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default()];
    tokio::spawn(count_requests(listener, Arc::clone(&counts[0])));
    tokio::spawn(count_requests(victim, Arc::clone(&counts[1])));
    // First the allowed address, then another one, as a name with a short lifetime would.
    let lookups = Arc::new(AtomicUsize::new(0));
    let resolver = WebhookResolver {
        reachable: ReachableAddresses {
            allowed_networks: vec!["127.0.0.1/32".parse().expect("a network")],
            includes_public: false,
        },
        look_up: Arc::new(move |_| {
            let is_first = lookups.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move { Ok(vec![IpAddr::from(if is_first { allowed } else { elsewhere })]) })
        }),
    };
    let url = parse_url(&format!("http://hooks.example:{port}/")).expect("a URL");
    let settings = NoticeSettings::default();
    let webhook = WebhookReceiver::with_resolver(url, &settings, &secrets(), "files", resolver).expect("a webhook");
    webhook.send(&test_notice()).await.expect("delivered");
    let failure = webhook.send(&test_notice()).await.expect_err("refused");
    assert!(failure.reason.contains("not public") && !failure.is_final, "{failure:?}");
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [1, 0]);
}

#[tokio::test]
async fn address_that_may_not_be_reached_is_passed_over_for_one_that_may() {
    let allowed = Ipv4Addr::new(127, 0, 0, 1);
    let listener = TcpListener::bind((allowed, 0)).await.expect("a port");
    let url = format!("http://hooks.example:{}/", listener.local_addr().expect("an address").port());
    let count = Arc::<AtomicUsize>::default();
    tokio::spawn(count_requests(listener, Arc::clone(&count)));
    let resolver = WebhookResolver {
        reachable: ReachableAddresses {
            allowed_networks: vec!["127.0.0.1/32".parse().expect("a network")],
            includes_public: false,
        },
        look_up: Arc::new(move |_| {
            Box::pin(async move { Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into(), allowed.into()]) })
        }),
    };
    let settings = NoticeSettings::default();
    let url = parse_url(&url).expect("a URL");
    let webhook = WebhookReceiver::with_resolver(url, &settings, &secrets(), "files", resolver).expect("a webhook");
    webhook.send(&test_notice()).await.expect("delivered");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
