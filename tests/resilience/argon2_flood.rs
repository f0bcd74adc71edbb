//! A flood of requests that need argon2, the most expensive step of a login: other users are not delayed, and its
//! memory is released afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use patgate::domain::{Secret, TokenText};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};

use crate::bystander::Bystander;
use crate::persistent_connection::PersistentConnection;
use crate::support::server::{ServerProcess, run_cli};
use crate::support::token_id;

const USER_ADDRESS: &str = "127.0.0.1";
const ATTACKER_ADDRESS: &str = "127.0.0.2";
const CONNECTIONS: usize = 240;
const GUESSING_CONNECTIONS: usize = 8;
/// Number of rotations of bob's token, each followed by a login with the new secret.
const ROTATIONS: usize = 15;
/// Memory of one run of argon2, and the maximum number of runs at once.
const ARGON2_MEMORY_KIB: u64 = 19 * 1024;
const ARGON2_THREADS: usize = 8;
/// Additional memory that the connections may take: their buffers and threads, in a build without optimisation.
const CONNECTIONS_MEMORY_KIB: u64 = 80 * 1024;
/// Far longer than anything here takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Number of responses with each status.
type StatusCounts = BTreeMap<u16, usize>;

struct FloodFixture {
    folder: TempDir,
    server: ServerProcess,
}

impl FloodFixture {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        let server = ServerProcess::start(folder.path());
        let attacked = Self { folder, server };
        for user in ["mallory", "bob", "carol"] {
            attacked.run(&["admin", "user", "create", user]);
        }
        attacked
    }

    fn run(&self, arguments: &[&str]) -> String {
        run_cli(self.folder.path(), arguments)
    }

    fn token(&self, owner: &str) -> String {
        self.run(&["admin", "user", "token", "-u", owner, "-e", "1h", "-q"])
    }

    async fn connect(&self, from: &str, token: &str) -> PersistentConnection {
        PersistentConnection::open(from, self.server.http, token).await
    }

    /// Connects and authenticates, so that the connection doesn't count as unauthenticated.
    async fn connect_authenticated(&self, token: &str) -> PersistentConnection {
        let mut connection = self.connect(USER_ADDRESS, token).await;
        assert_eq!(connection.send("GET", "/api/v1/tokens/self", "").await.status, 200);
        connection
    }

    /// Waits until no more memory is resident than that.
    async fn wait_for_resident_kib(&self, kib: u64) {
        let shrinks = async {
            while self.server.resident_kib() > kib {
                tokio::task::yield_now().await;
            }
        };
        let shrunk = tokio::time::timeout(TEST_TIMEOUT, shrinks).await;
        assert!(shrunk.is_ok(), "{} KiB stay resident, not {kib}", self.server.resident_kib());
    }
}

/// Sends the same request repeatedly until it is stopped, once at least.
async fn repeat(mut connection: PersistentConnection, path: String, stop: Arc<AtomicBool>) -> StatusCounts {
    let mut statuses = StatusCounts::new();
    loop {
        let reply = connection.send("POST", &path, "{}").await;
        assert!(reply.status != 503 || reply.head.contains("\r\nretry-after: 1\r\n"), "{}", reply.head);
        *statuses.entry(reply.status).or_default() += 1;
        if stop.load(Ordering::Relaxed) {
            return statuses;
        }
    }
}

/// Mallory's requests on many connections: half ask for more tokens than one may have, half for new secrets, which
/// mallory may have.
struct Argon2Flood {
    connections: Vec<JoinHandle<StatusCounts>>,
    stop: Arc<AtomicBool>,
}

impl Argon2Flood {
    fn start(connections: Vec<PersistentConnection>, token: &str) -> Self {
        let (stop, rotate) = (Arc::new(AtomicBool::new(false)), format!("/api/v1/tokens/{}/rotate", token_id(token)));
        let start = |(number, connection)| {
            let path = if number % 2 == 0 { "/api/v1/tokens" } else { &rotate };
            tokio::spawn(repeat(connection, path.to_owned(), stop.clone()))
        };
        Self { connections: connections.into_iter().enumerate().map(start).collect(), stop }
    }

    /// Returns how the requests for tokens were answered, and those for secrets.
    async fn finish(self) -> [StatusCounts; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let mut sums = [StatusCounts::new(), StatusCounts::new()];
        for (number, connection) in self.connections.into_iter().enumerate() {
            for (status, count) in connection.await.expect("no panic") {
                *sums[number % 2].entry(status).or_default() += count;
            }
        }
        sums
    }
}

/// Returns a token with the same id, a right checksum, and a secret that it never had.
fn token_with_wrong_secret(token: &str) -> String {
    let id = token_id(token).parse().expect("an id");
    TokenText::new(id, Secret::generate(&mut |buffer: &mut [u8]| buffer.fill(0))).reveal().to_string()
}

/// Guesses a token's secret.
async fn guess(mut connection: PersistentConnection) {
    for _ in 0..CONNECTIONS / GUESSING_CONNECTIONS {
        let status = connection.send("PROPFIND", "/dav/", "").await.status;
        assert!(matches!(status, 401 | 429), "{status}");
    }
}

/// Gives a token one new secret after the other, and uses each.
async fn rotate_and_use(connection: &mut PersistentConnection, token: &str) {
    for _ in 0..ROTATIONS {
        let rotated = connection.send("POST", &format!("/api/v1/tokens/{}/rotate", token_id(token)), "{}").await;
        assert_eq!(rotated.status, 200, "{}", rotated.head);
        let answer: Value = serde_json::from_slice(&rotated.body).expect("JSON");
        connection.set_token(answer["token"].as_str().expect("a token"));
        assert_eq!(connection.send("PROPFIND", "/dav/", "").await.status, 207, "the first use of a new secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: cargo test --test resilience -- --ignored"]
async fn argon2_flood_of_one_user_delays_no_other_user_and_bounds_memory() {
    let attacked = FloodFixture::start();
    let mallory: Vec<_> = (0..5).map(|_| attacked.token("mallory")).collect();
    let bob = attacked.token("bob");
    let [carol, by_rest, by_command] = [(); 3].map(|()| attacked.token("carol"));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(attacked.connect_authenticated(&mallory[0]).await);
    }
    let mut bobs = attacked.connect_authenticated(&bob).await;
    let mut carols = attacked.connect_authenticated(&carol).await;
    let mut revoked =
        [attacked.connect_authenticated(&by_rest).await, attacked.connect_authenticated(&by_command).await];
    let before = attacked.server.resident_kib();

    let bystander = Bystander::start(attacked.folder.path(), &attacked.server).await;

    // It goes on until all others are done: they come to an end only if it does not starve them.
    let flood = Argon2Flood::start(connections, &mallory[1]);
    let wrong_secret = token_with_wrong_secret(&bob);
    let mut guessing_clients = JoinSet::new();
    for _ in 0..GUESSING_CONNECTIONS {
        guessing_clients.spawn(guess(attacked.connect(ATTACKER_ADDRESS, &wrong_secret).await));
    }
    rotate_and_use(&mut bobs, &bob).await;
    assert_eq!(carols.send("DELETE", &format!("/api/v1/tokens/{}", token_id(&by_rest)), "").await.status, 204);
    attacked.run(&["apitoken", "revoke", token_id(&by_command)]);
    for connection in &mut revoked {
        assert_eq!(connection.send("PROPFIND", "/dav/", "").await.status, 401, "revoked during the attack");
    }
    bystander.assert_unaffected().await;
    let [created, rotated] = flood.finish().await;
    guessing_clients.join_all().await;

    assert_eq!(created.keys().collect::<Vec<_>>(), [&409], "{created:?}");
    assert!(rotated.keys().all(|status| matches!(status, 200 | 503)) && rotated.contains_key(&200), "{rotated:?}");
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(ARGON2_THREADS) as u64;
    let peak = attacked.server.peak_kib() - before;
    assert!(peak < threads * ARGON2_MEMORY_KIB + CONNECTIONS_MEMORY_KIB, "{peak} KiB more than before at once");
    attacked.wait_for_resident_kib(before + CONNECTIONS_MEMORY_KIB).await;
}
