//! A run: the clients, the accidents, and all that is checked at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::accidents;
use crate::checker::violations;
use crate::figures::{ResourceLog, format_figures};
use crate::gateway_process::GatewayProcess;
use crate::history::{Outcome, Seen};
use crate::permission_clients::{leave_scope, lock_and_intrude, toggle_grant};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::sftp_clients::SftpWriter;
use crate::support::DavClient;
use crate::support::server::staged_entries;
use crate::token_clients::TokenManager;
use crate::webdav_clients::{FILES_PER_WRITER, WebdavWriter, read_at_random, read_file};

const WEBDAV_WRITERS: usize = 6;
const SFTP_WRITERS: usize = 3;
const READERS: usize = 2;
const TOKEN_MANAGERS: usize = 3;
/// Time between two looks at memory, descriptors and threads.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);

/// Changes of tokens that the audit trail must have: event and id.
type AuditedChange = (&'static str, String);

/// A gateway, and what its clients share.
struct SoakRun {
    gateway: Arc<GatewayProcess>,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    seed: u64,
    writer_token: String,
}

impl SoakRun {
    fn start(seed: u64) -> Self {
        let gateway = Arc::new(GatewayProcess::start());
        for (name, is_there) in [("full disks", gateway.has_small_disk()), ("clock steps", gateway.has_clock())] {
            if !is_there {
                println!("SKIPPED: {name}: they need root, or the package faketime");
            }
        }
        for directory in ["shared", "scoped", "locked"] {
            std::fs::create_dir(gateway.root().join(directory)).expect("a folder");
            std::fs::write(gateway.root().join(directory).join("file"), "x").expect("a file");
        }
        for directory in writer_directories() {
            std::fs::create_dir(gateway.root().join(&directory[1..])).expect("a folder");
        }
        // A link out of the scope.
        std::os::unix::fs::symlink("../w1", gateway.root().join("scoped/link")).expect("a link");
        let run = |arguments: &[&str]| gateway.run_cli(arguments).expect("done");
        run(&["policy", "set", "max-tokens-per-user", "100000"]);
        run(&["admin", "user", "create", "writer", "--no-home", "--grant", "/:rw"]);
        run(&["admin", "user", "create", "manager", "--no-home", "--grant", "/:r", "--role", "admin"]);
        run(&["admin", "user", "create", "guest", "--no-home"]);
        let writer_token = run(&["admin", "user", "token", "-u", "writer", "-q", "-e", "30d"]);
        let recorder = Arc::new(Recorder::new());
        Self { gateway, recorder, stop: Arc::default(), seed, writer_token }
    }

    fn token(&self, login: &str, options: &[&str]) -> String {
        self.gateway
            .run_cli(&[&["admin", "user", "token", "-u", login, "-q", "-e", "30d"], options].concat())
            .expect("a token")
    }

    fn writer(&self) -> DavClient {
        DavClient::new(self.gateway.http, "writer", &self.writer_token)
    }

    fn random(&self, client: u64) -> Random {
        Random::new(self.seed.wrapping_mul(1000).wrapping_add(client))
    }

    fn start_writers(&self, clients: &mut JoinSet<Vec<AuditedChange>>) {
        for (number, directory) in writer_directories().into_iter().enumerate() {
            let (recorder, random) = (Arc::clone(&self.recorder), self.random(number as u64));
            let stop = Arc::clone(&self.stop);
            if number < WEBDAV_WRITERS {
                let client = if number % 2 == 0 { self.writer() } else { self.writer().with_http2() };
                let writer = WebdavWriter { recorder, client, directory, random, known: HashMap::new() };
                clients.spawn(async {
                    writer.run(stop).await;
                    Vec::new()
                });
            } else {
                let (address, login, token) = (self.gateway.sftp, "writer".to_owned(), self.writer_token.clone());
                let writer = SftpWriter { recorder, address, login, token, directory, random, known: HashMap::new() };
                clients.spawn(async {
                    writer.run(stop).await;
                    Vec::new()
                });
            }
        }
    }

    fn start_others(&self, clients: &mut JoinSet<Vec<AuditedChange>>) {
        let shared = || (Arc::clone(&self.recorder), Arc::clone(&self.stop));
        for number in 0..READERS {
            let (recorder, stop) = shared();
            let reading =
                read_at_random(recorder, self.writer(), writer_directories(), self.random(100 + number as u64), stop);
            clients.spawn(async {
                reading.await;
                Vec::new()
            });
        }
        let manager_token = self.token("manager", &["--role", "admin"]);
        for number in 0..TOKEN_MANAGERS {
            let (recorder, stop) = shared();
            let manager = TokenManager {
                recorder,
                gateway: Arc::clone(&self.gateway),
                client: DavClient::new(self.gateway.http, "manager", &manager_token),
                login: "manager".to_owned(),
                random: self.random(200 + number as u64),
                live: Vec::new(),
                revoked: Vec::new(),
                acknowledged: Vec::new(),
            };
            clients.spawn(manager.run(stop));
        }
        let (recorder, stop) = shared();
        let guest = DavClient::new(self.gateway.http, "guest", &self.token("guest", &[]));
        let granting = toggle_grant(recorder, Arc::clone(&self.gateway), guest, self.random(300), stop);
        clients.spawn(async {
            granting.await;
            Vec::new()
        });
        let (recorder, stop) = shared();
        let intruder = DavClient::new(self.gateway.http, "writer", &self.token("writer", &[]));
        let locking = lock_and_intrude(recorder, self.writer(), intruder, self.random(400), stop);
        clients.spawn(async {
            locking.await;
            Vec::new()
        });
        let (recorder, stop) = shared();
        let scoped = ("writer".to_owned(), self.token("writer", &["--scope", "path:/scoped:r"]));
        let leaving = leave_scope(recorder, (self.gateway.http, self.gateway.sftp), scoped, self.random(500), stop);
        clients.spawn(async {
            leaving.await;
            Vec::new()
        });
    }

    /// Lets everything go on for a time; returns the changes that the audit trail must have.
    async fn run_for(&self, duration: Duration, resources: &mut ResourceLog) -> Vec<AuditedChange> {
        let mut clients = JoinSet::new();
        self.start_writers(&mut clients);
        self.start_others(&mut clients);
        let (gateway, recorder, stop) = (Arc::clone(&self.gateway), Arc::clone(&self.recorder), Arc::clone(&self.stop));
        let seed = self.seed;
        let accidents = tokio::task::spawn_blocking(move || accidents::run(&gateway, &recorder, &stop, seed));
        let end = tokio::time::Instant::now() + duration;
        while tokio::time::Instant::now() < end {
            self.sample(resources);
            tokio::time::sleep_until((tokio::time::Instant::now() + SAMPLE_INTERVAL).min(end)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        accidents.await.expect("no panic");
        let changes = clients.join_all().await.concat();
        self.sample(resources);
        changes
    }

    fn sample(&self, resources: &mut ResourceLog) {
        // None while it is started again.
        if let Some(sample) = self.gateway.sample() {
            resources.add(&self.recorder, sample);
        }
    }

    /// Reads every file once more, and looks at what a run must leave behind.
    async fn check_end(&self, audited: &[AuditedChange]) {
        for directory in writer_directories() {
            for number in 0..FILES_PER_WRITER {
                let path = format!("{directory}/f{number}");
                let seen = read_file(&self.recorder, &self.writer(), &path).await;
                if !matches!(seen, Some(Seen::Value(_))) {
                    self.recorder.fault(format!("{path} can't be read at the end: {seen:?}"));
                }
            }
        }
        self.gateway.terminate();
        let leftovers = staged_entries(&self.gateway.root());
        if !leftovers.is_empty() {
            self.recorder.fault(format!("left in the staging directory: {leftovers:?}"));
        }
        match self.gateway.run_cli(&["doctor"]) {
            // Its exit code tells: a detail may say of a warning what fails later.
            Ok(checks) => println!("{checks}"),
            Err(checks) => self.recorder.fault(format!("doctor finds faults:\n{checks}")),
        }
        self.check_audit_trail(audited);
        let log = self.gateway.log();
        for line in log.lines().filter(|line| line.contains("panicked") || line.contains(" ERROR ")) {
            self.recorder.fault(format!("in the log: {line}"));
        }
        if !self.recorder.faults().is_empty() {
            let tail: Vec<&str> = log.lines().rev().take(100).collect();
            println!("end of the log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }

    fn check_audit_trail(&self, audited: &[AuditedChange]) {
        for event in ["token.created", "token.revoked"] {
            let trail = self.gateway.run_cli(&["audit", "--event", event, "--limit", "1000000", "--json"]);
            let trail = trail.unwrap_or_else(|why| {
                self.recorder.fault(format!("the audit trail can't be read: {why}"));
                String::new()
            });
            let ids: std::collections::HashSet<&str> = trail.split('"').collect();
            for (_, id) in audited.iter().filter(|(expected, id)| *expected == event && !ids.contains(&**id)) {
                self.recorder.fault(format!("{event} of {id} was acknowledged, and is not in the audit trail"));
            }
            let recorded = audited.iter().filter(|(expected, _)| *expected == event).count();
            println!("audit trail: {recorded} of {event} checked");
        }
    }
}

/// Directories of all clients that write, those over WebDAV first.
fn writer_directories() -> Vec<String> {
    (0..WEBDAV_WRITERS + SFTP_WRITERS).map(|number| format!("/w{number}")).collect()
}

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: tests/soak/run --seconds N --seed N"]
async fn gateway_keeps_its_guarantees() {
    let (seconds, seed) = (number_from_environment("SOAK_SECONDS", 120), number_from_environment("SOAK_SEED", 1));
    println!("{seconds} s with seed {seed}");
    let run = SoakRun::start(seed);
    let mut resources = ResourceLog::default();
    let audited = run.run_for(Duration::from_secs(seconds), &mut resources).await;
    run.check_end(&audited).await;
    let history = run.recorder.history();
    let found = violations(&history);
    println!("{}", format_figures(&run.recorder, &history, &resources));
    let acknowledged = history.changes.iter().filter(|change| change.outcome == Outcome::Acknowledged).count();
    assert!(acknowledged > 50, "the clients have done {acknowledged} changes only");
    let faults = run.recorder.faults();
    let first: Vec<&String> = found.iter().chain(&faults).take(20).collect();
    assert!(first.is_empty(), "{} violations and {} faults with seed {seed}: {first:#?}", found.len(), faults.len());
}
