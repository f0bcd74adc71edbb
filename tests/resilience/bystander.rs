//! A user who works during an attack: their requests keep at least half their speed, and a revocation takes effect at
//! once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::persistent_connection::PersistentConnection;
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::token_id;

/// Number of requests whose median time is taken.
const MEASURED_REQUESTS: usize = 40;
/// Delay that a scheduler may add to a request of less than a millisecond while all processors are busy, with the attackers
/// of this test among others. A request that is queued behind an attack is delayed several times as long.
pub(crate) const SCHEDULER_DELAY: Duration = Duration::from_millis(50);
/// Longest time until a revocation takes effect.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(1);

/// A user who is not part of the attack, with an address of their own.
pub(crate) struct Bystander {
    folder: PathBuf,
    to: std::net::SocketAddr,
    token: String,
    alone: Duration,
}

impl Bystander {
    /// Creates the user and measures their requests while nothing else is running.
    pub(crate) async fn start(folder: &Path, server: &ServerProcess) -> Self {
        run_cli(folder, &["admin", "user", "create", "bystander"]);
        let token = create_token(folder, "bystander");
        let mut bystander = Self { folder: folder.to_owned(), to: server.http, token, alone: Duration::ZERO };
        // The first use of a token proves its secret, which takes longer.
        bystander.median().await;
        bystander.alone = bystander.median().await;
        bystander
    }

    /// Returns the median of the times that requests take, each on a connection of its own.
    async fn median(&self) -> Duration {
        let mut times = Vec::new();
        for _ in 0..MEASURED_REQUESTS {
            let since = Instant::now();
            let mut connection = PersistentConnection::open("127.0.0.9", self.to, &self.token).await;
            assert_eq!(connection.send("PROPFIND", "/dav/bystander/", "").await.status, 207);
            times.push(since.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    }

    /// Asserts that the user's requests are answered in time, and that a token that is revoked now is refused at once.
    pub(crate) async fn assert_unaffected(&self) {
        let during_attack = self.median().await;
        assert!(
            during_attack < 2 * self.alone + SCHEDULER_DELAY,
            "{during_attack:?} beside the attack, {:?} alone",
            self.alone
        );
        let revoked = create_token(&self.folder, "bystander");
        let mut connection = PersistentConnection::open("127.0.0.9", self.to, &revoked).await;
        assert_eq!(connection.send("PROPFIND", "/dav/bystander/", "").await.status, 207);
        run_cli(&self.folder, &["apitoken", "revoke", token_id(&revoked)]);
        let since = Instant::now();
        while connection.send("PROPFIND", "/dav/bystander/", "").await.status != 401 {
            assert!(since.elapsed() < REVOCATION_TIMEOUT, "the revoked token still works");
        }
    }
}
