//! A user who works during an attack: their requests keep at least half their speed, and a revocation takes effect at
//! once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::persistent_connection::PersistentConnection;
use crate::support::server::{ServerProcess, run_cli};
use crate::support::token_id;

/// Requests of which the median time is taken.
const ASKED: usize = 40;
/// What a scheduler may add to a request of less than a millisecond on a machine all of whose processors are busy, with the
/// attackers of this test among others. Whoever waits in line behind an attack waits for several times as long.
pub(crate) const SCHEDULER_DELAY: Duration = Duration::from_millis(50);
/// As long as a revocation may take to hold.
const HOLDS_WITHIN: Duration = Duration::from_secs(1);

/// Another user, at an address of his own.
pub(crate) struct Bystander {
    folder: PathBuf,
    to: std::net::SocketAddr,
    token: String,
    alone: Duration,
}

impl Bystander {
    /// Makes a user, and takes the time of his requests while nothing else goes on.
    pub(crate) async fn at(folder: &Path, server: &ServerProcess) -> Self {
        run_cli(folder, &["admin", "user", "create", "bystander"]);
        let token = run_cli(folder, &["admin", "user", "token", "-u", "bystander", "-e", "1h", "-q"]);
        let mut bystander = Self { folder: folder.to_owned(), to: server.http, token, alone: Duration::ZERO };
        // The first use of a token proves its secret, which takes longer.
        bystander.median().await;
        bystander.alone = bystander.median().await;
        bystander
    }

    /// Returns the median of the times that requests take, each on a connection of its own.
    async fn median(&self) -> Duration {
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let since = Instant::now();
            let mut connection = PersistentConnection::open("127.0.0.9", self.to, &self.token).await;
            assert_eq!(connection.send("PROPFIND", "/dav/bystander/", "").await.status, 207);
            times.push(since.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    }

    /// Makes sure that his requests go on, and that a token that is revoked now is refused at once.
    pub(crate) async fn goes_on(&self) {
        let beside = self.median().await;
        assert!(beside < 2 * self.alone + SCHEDULER_DELAY, "{beside:?} beside the attack, {:?} alone", self.alone);
        let revoked = run_cli(&self.folder, &["admin", "user", "token", "-u", "bystander", "-e", "1h", "-q"]);
        let mut connection = PersistentConnection::open("127.0.0.9", self.to, &revoked).await;
        assert_eq!(connection.send("PROPFIND", "/dav/bystander/", "").await.status, 207);
        run_cli(&self.folder, &["apitoken", "revoke", token_id(&revoked)]);
        let since = Instant::now();
        while connection.send("PROPFIND", "/dav/bystander/", "").await.status != 401 {
            assert!(since.elapsed() < HOLDS_WITHIN, "the revoked token still works");
        }
    }
}
