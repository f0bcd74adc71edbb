//! Concurrency limits on expensive REST and console requests: a flood by one user leaves other users at least half
//! their speed, excess requests get 503 with Retry-After, and requests whose client has disconnected are not executed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::http2::{connect, request};
use crate::support::{DavClient, Fixture, token_id};

/// A slow request: it lists all named nodes, each of which is checked.
const SLOW_PATH: &str = "/api/v1/nodes?limit=1";
/// Connections of the user who floods the server.
const FLOOD_CONNECTIONS: usize = 100;
/// Requests of the other user whose median time is taken, before and during the flood.
const MEASURED_REQUESTS: usize = 30;
/// Connections of one user over HTTP/2 and requests on each: more in all than may be queued.
const STREAMS: (usize, usize) = (8, 60);
/// Clients that disconnect: as many unauthenticated connections as an address may have.
const DISCONNECTED_REQUESTS: usize = 60;
/// Far longer than any event in these tests takes.
const EVENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Creates rows of named nodes for `count` files, as `node id` would one by one.
fn name_nodes(gateway: &Fixture, count: usize) {
    gateway.node_id("/");
    let store = Connection::open(gateway.state().join("patgate.db")).expect("the store");
    store.busy_timeout(Duration::from_secs(10)).expect("set");
    let name = "WITH RECURSIVE number (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
        INSERT INTO nodes (id, parent, name, is_directory)
        SELECT randomblob(16), (SELECT id FROM nodes WHERE parent IS NULL),
        CAST('file' || n AS BLOB), 0 FROM number";
    store.execute(name, [i64::try_from(count).expect("few")]).expect("named");
}

/// Requests [`SLOW_PATH`] repeatedly on many connections until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Flood {
    fn start(gateway: &Fixture, token: &str, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let request_repeatedly = |_| {
            let (dav, stop) = (gateway.dav("mallory", token), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = dav.get(SLOW_PATH).await;
                    assert!(answer.status == 200 || (answer.status, answer.header("retry-after")) == (503, "1"));
                    answered += 1;
                }
                answered
            })
        };
        Self { tasks: (0..connections).map(request_repeatedly).collect(), stop }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for tasks in self.tasks {
            answered += tasks.await.expect("no panic");
        }
        answered
    }
}

/// Returns the median of the times that requests take, one after the other.
async fn median_response_time(dav: &DavClient, path: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..MEASURED_REQUESTS {
        let since = Instant::now();
        assert_eq!(dav.get(path).await.status, 200);
        times.push(since.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_slow_rest_requests_leaves_others_half_their_speed() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/file", "content");
    let [mallory, stolen] =
        [gateway.create_user_and_token("mallory", "/:r"), gateway.create_token("mallory", &["-e", "1h"])];
    let bob = gateway.dav("bob", &gateway.create_user_and_token("bob", "/:r"));
    name_nodes(&gateway, 3000);
    // A user's share of the machine is his to use up: what counts is that a hundred connections take no more than it.
    let baseline_flood =
        Flood::start(&gateway, &mallory, std::thread::available_parallelism().map_or(2, usize::from).max(2));
    let paths = ["/api/v1/tokens/self", SLOW_PATH, "/dav/file"];
    let mut before = Vec::new();
    for path in paths {
        before.push(median_response_time(&bob, path).await);
    }
    assert!(baseline_flood.end().await > 0);
    let flood = Flood::start(&gateway, &mallory, FLOOD_CONNECTIONS);
    let mut during = Vec::new();
    for path in paths {
        during.push(median_response_time(&bob, path).await);
    }
    // Revoked by its owner over REST, in the middle of it.
    let own = gateway.rest("mallory", &mallory);
    let victim = gateway.dav("mallory", &stolen);
    assert_eq!(victim.status("HEAD", "/dav/file").await, 200);
    let since = Instant::now();
    let revoked = own.send("DELETE", &format!("/api/v1/tokens/{}", token_id(&stolen)), serde_json::Value::Null).await;
    let revocation_time = since.elapsed();
    assert_eq!(revoked.status, 204);
    assert_eq!(victim.status("HEAD", "/dav/file").await, 401);
    assert!(flood.end().await > 0);
    println!("{before:?} beside a share, {during:?} beside the flood; revoked in {revocation_time:?}");
    for (before, during) in before.iter().zip(&during) {
        // The rest is the scheduler's: all processors are busy with the flood.
        assert!(*during < 2 * *before + Duration::from_millis(50), "{before:?} became {during:?}");
    }
    // It waits for none of the flood: a hundred requests of the slow kind, two at once.
    assert!(revocation_time < 10 * during[1] + Duration::from_millis(250), "revoked in {revocation_time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_rest_requests_get_503_with_retry_after() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/file", "content");
    let mallory = gateway.dav("mallory", &gateway.create_user_and_token("mallory", "/:r"));
    let bob = gateway.rest("bob", &gateway.create_user_and_token("bob", "/:r"));
    name_nodes(&gateway, 1000);
    let (mut requests_in_flight, mut open_connections) = (JoinSet::new(), Vec::new());
    let (connections, streams) = STREAMS;
    for _ in 0..connections {
        let mut requests = connect(&gateway).await;
        let headers = [("authorization", mallory.authorization())];
        // The first tells who it is: an unproven connection has fewer windows.
        let (authenticated, _) =
            requests.send_request(request(&gateway, "HEAD", "/dav/file", &headers), true).expect("sent");
        assert_eq!(authenticated.await.expect("an answer").status(), 200);
        for _ in 0..streams {
            requests = requests.ready().await.expect("ready");
            let (response, _) =
                requests.send_request(request(&gateway, "GET", SLOW_PATH, &headers), true).expect("sent");
            requests_in_flight.spawn(async move {
                let response = response.await.expect("an answer");
                let wait = response.headers().get("retry-after").map(|wait| wait.to_str().expect("text").to_owned());
                (response.status().as_u16(), wait)
            });
        }
        open_connections.push(requests);
    }
    assert_eq!(bob.get("/api/v1/tokens/self").await.status, 200);
    assert_eq!(bob.get(SLOW_PATH).await.status, 200);
    let answers = tokio::time::timeout(EVENT_TIMEOUT, requests_in_flight.join_all()).await.expect("all are answered");
    let refused = answers.iter().filter(|answer| **answer == (503, Some("1".to_owned()))).count();
    let done = answers.iter().filter(|answer| **answer == (200, None)).count();
    assert_eq!(refused + done, connections * streams, "{answers:?}");
    assert!(refused >= connections * streams - 256 - 150 && done >= 256, "{refused} refused, {done} done");
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_rest_request_of_disconnected_client_is_not_executed() {
    let gateway = Fixture::start().await;
    let dav = gateway.dav("mallory", &gateway.create_user_and_token("mallory", "/:r"));
    name_nodes(&gateway, 20_000);
    let single_request_time = {
        let since = Instant::now();
        assert_eq!(dav.get(SLOW_PATH).await.status, 200);
        since.elapsed()
    };
    let pending_requests: Vec<_> = (0..DISCONNECTED_REQUESTS)
        .map(|_| {
            let dav = dav.clone();
            tokio::spawn(async move { dav.get(SLOW_PATH).await })
        })
        .collect();
    tokio::time::sleep(single_request_time).await;
    for request in &pending_requests {
        request.abort();
    }
    let since = Instant::now();
    assert_eq!(dav.get(SLOW_PATH).await.status, 200);
    let time_after_disconnect = since.elapsed();
    println!("alone {single_request_time:?}, after the others have hung up {time_after_disconnect:?}");
    // Worked off two at once, they would take thirty times as long; that a caller is gone is seen within a second.
    assert!(
        time_after_disconnect < 8 * single_request_time + Duration::from_secs(2),
        "alone {single_request_time:?}, after {time_after_disconnect:?}"
    );
}
