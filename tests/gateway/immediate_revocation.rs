//! A change of a token, its owner or a grant by another process applies to the next request, even while the token is in
//! constant use or the changing process is killed. Open sessions and transfers are in `token_lifetime.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, patgate_command, token_id};

/// A token that is used without a pause, over three connections from an address of its own.
struct BusyToken {
    answered: Arc<AtomicU64>,
    killed: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<u16>>,
}

impl BusyToken {
    fn new(dav: DavClient) -> Self {
        static HOST: AtomicU8 = AtomicU8::new(1);
        let dav = dav.with_local_address([127, 9, 9, HOST.fetch_add(1, Ordering::SeqCst)].into());
        let (answered, killed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let call = |_| {
            let (dav, answered, killed) = (dav.clone(), answered.clone(), killed.clone());
            tokio::spawn(async move {
                loop {
                    let last = killed.load(Ordering::SeqCst);
                    let status = dav.status("GET", "/dav/file").await;
                    answered.fetch_add(1, Ordering::SeqCst);
                    if last || status != 200 {
                        return status;
                    }
                }
            })
        };
        let callers = (0..3).map(call).collect();
        Self { answered, killed, callers }
    }

    /// Returns once it was used for a while.
    async fn wait_for_use(&self) {
        while self.answered.load(Ordering::SeqCst) < 30 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the answers to the first requests that were refused, or that were sent after this call.
    async fn refused_statuses(self) -> Vec<u16> {
        self.killed.store(true, Ordering::SeqCst);
        let mut answers = Vec::new();
        for caller in self.callers {
            answers.push(caller.await.expect("answered"));
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn change_by_another_process_applies_to_the_next_request() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/file", "content");
    let changes: [(&[&str], &[&str], u16); 4] = [
        (&["apitoken", "revoke", "ID"], &["policy", "show"], 401),
        (&["apitoken", "rotate", "ID"], &["policy", "show"], 401),
        (&["admin", "user", "disable", "alice"], &["admin", "user", "enable", "alice"], 401),
        (&["admin", "user", "revoke-grant", "alice", "/"], &["admin", "user", "grant", "alice", "/:r"], 404),
    ];
    gateway.create_user("alice", &["/:r"]);
    for round in 0..8 {
        for (change, undo, status) in changes {
            let token = gateway.create_token("alice", &["-e", "1h"]);
            let busy = BusyToken::new(gateway.dav("alice", &token));
            busy.wait_for_use().await;
            let change: Vec<&str> =
                change.iter().map(|word| if *word == "ID" { token_id(&token) } else { word }).collect();
            tokio::task::block_in_place(|| gateway.run_cli(&change));
            assert_eq!(busy.refused_statuses().await, [status; 3], "{change:?}, round {round}");
            gateway.run_cli(undo);
            if change[0] == "admin" || change[1] == "rotate" {
                gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_revocation_is_atomic_and_seen_by_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).expect("a folder");
    std::fs::write(folder.join("files/file"), "content").expect("a file");
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:r"]);
    let started = std::time::Instant::now();
    run_cli(folder, &["policy", "show"]);
    let max_delay = started.elapsed() * 2;
    let (mut done, mut undone) = (0, 0);
    for moment in 0..40 {
        let token = create_token(folder, "alice");
        let busy = BusyToken::new(DavClient::new(server.http, "alice", &token));
        busy.wait_for_use().await;
        let mut revoking = patgate_command(&folder.join("state"));
        let mut revoking = revoking.args(["apitoken", "revoke", token_id(&token)]).spawn().expect("runs");
        // Any moment of its run will do.
        tokio::time::sleep(max_delay * moment / 40).await;
        revoking.kill().expect("killed");
        revoking.wait().expect("ended");
        let record = run_cli(folder, &["apitoken", "show", token_id(&token), "--json"]);
        let revoked = record.contains("\"revoked\"");
        let answers = busy.refused_statuses().await;
        assert_eq!(answers, [if revoked { 401 } else { 200 }; 3], "{record}");
        if revoked {
            done += 1;
        } else {
            undone += 1;
            run_cli(folder, &["apitoken", "revoke", token_id(&token)]);
        }
    }
    assert!(done > 0 && undone > 0, "{done} done, {undone} not: none was killed half-way");
    server.kill();
}
