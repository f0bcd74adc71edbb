//! Random tests of `sync-collection` (RFC 6578): a copy that a client maintains with sync reports equals the listing.
//! Cases written out by hand are in `sync_collection.rs`.
//!
//! Each sequence takes random steps: requests of one user, changes of the host's files outside of the gateway, grants
//! and scopes that change, and restarts, in directories that another user reaches with two tokens. Between the steps
//! several mirrors request pages of all sizes. A mirror that has received its last page must equal what PROPFIND with
//! the same depth lists for the same token.
//!
//! `SYNC_SEQUENCES` sets the number of sequences, `SYNC_SEED` the seed that they are drawn from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::support::{DavClient, Fixture, HttpResponse, token_id};

const SEQUENCES: u32 = 8;
const SEQUENCES_AT_ONCE: u32 = 2;
const SEED: u64 = 0x5eed;
/// After as many pages without an end a mirror is taken to be in a loop.
const MAX_PAGES: usize = 400;
/// Directories deeper than this get nothing more.
const MAX_DEPTH: usize = 5;
/// Grants of the user whose tokens synchronize: what may be read, a drop box with a directory and a file in it that may be
/// read, and a file that may only be written.
const GRANTS: [(&str, &str); 6] = [
    ("/s/open", "rw"),
    ("/s/read", "r"),
    ("/s/box", "w"),
    ("/s/box/shown", "r"),
    ("/s/box/file", "r"),
    ("/s/blind", "w"),
];
/// Scopes of the second token; it loses them one by one.
const SCOPES: [&str; 4] = ["/s/open:r", "/s/box:w", "/s/box/shown:r", "/s/read:r"];
/// Which token synchronizes what, at which level.
const MIRRORS: [(usize, &str, &str); 7] = [
    (0, "/dav/", "infinite"),
    (1, "/dav/", "infinite"),
    (0, "/dav/s/", "1"),
    (1, "/dav/s/", "infinite"),
    (0, "/dav/s/open/", "1"),
    (1, "/dav/s/box/", "infinite"),
    (0, "/dav/s/box/", "1"),
];
/// Targets of links, relative to the link.
const LINK_TARGETS: [&str; 8] =
    ["nothing", "a", "../open", "../box/shown", "../../aside", "../../../state", "file/below", "link"];

/// The path that a step uses: an existing entry, or a name in an existing directory.
#[derive(Clone, Copy, Debug)]
struct StepPath(usize, Option<&'static str>);

#[derive(Clone, Debug)]
enum SyncStep {
    Put(StepPath),
    Mkcol(StepPath),
    Delete(StepPath),
    Move(StepPath, StepPath),
    /// Renames on the host.
    Rename(StepPath, StepPath),
    /// Puts a link in the place of what stands there, which goes aside.
    Link(StepPath, usize),
    /// Puts back what a link took the place of.
    Unlink(usize),
    Grant(usize),
    Revoke(usize),
    /// Removes a scope from the second token.
    Narrow(usize),
    Restart,
    /// Requests one page.
    Page(usize, Option<usize>),
    /// Requests all pages.
    Sync(usize, Option<usize>),
    /// Begins anew.
    Forget(usize),
}

fn existing_path() -> impl Strategy<Value = StepPath> {
    (0..1000_usize).prop_map(|index| StepPath(index, None))
}

fn any_path() -> impl Strategy<Value = StepPath> {
    let name = prop_oneof![Just("a"), Just("b"), Just("file"), Just("link")];
    prop_oneof![1 => existing_path(), 2 => (0..1000_usize, name).prop_map(|(index, name)| StepPath(index, Some(name)))]
}

fn limit() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![Just(None), Just(Some(1)), Just(Some(2)), Just(Some(3))]
}

fn step() -> impl Strategy<Value = SyncStep> {
    prop_oneof![
        6 => any_path().prop_map(SyncStep::Put),
        4 => any_path().prop_map(SyncStep::Mkcol),
        3 => existing_path().prop_map(SyncStep::Delete),
        4 => (existing_path(), any_path()).prop_map(|(from, to)| SyncStep::Move(from, to)),
        2 => (existing_path(), any_path()).prop_map(|(from, to)| SyncStep::Rename(from, to)),
        3 => (any_path(), 0..LINK_TARGETS.len()).prop_map(|(path, target)| SyncStep::Link(path, target)),
        3 => (0..1000_usize).prop_map(SyncStep::Unlink),
        1 => (0..GRANTS.len()).prop_map(SyncStep::Grant),
        1 => (0..GRANTS.len()).prop_map(SyncStep::Revoke),
        1 => (0..SCOPES.len()).prop_map(SyncStep::Narrow),
        1 => Just(SyncStep::Restart),
        8 => (0..MIRRORS.len(), limit()).prop_map(|(mirror, limit)| SyncStep::Page(mirror, limit)),
        6 => (0..MIRRORS.len(), limit()).prop_map(|(mirror, limit)| SyncStep::Sync(mirror, limit)),
        1 => (0..MIRRORS.len()).prop_map(SyncStep::Forget),
    ]
}

/// A copy that a client keeps: of each member, by its href without the slash at its end, the href and the entity tag.
#[derive(Clone, Default)]
struct MirrorCopy {
    token: String,
    members: BTreeMap<String, (String, String)>,
}

struct SyncModelEnv {
    gateway: Fixture,
    writer: String,
    tokens: [String; 2],
    scopes: BTreeSet<usize>,
    mirrors: Vec<MirrorCopy>,
    /// Backups of the directories that links replaced, by path.
    replaced_by_links: BTreeMap<String, usize>,
    count: usize,
}

fn element_text<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    part.split(&format!("<D:{name}>")).nth(1)?.split('<').next()
}

/// Hrefs, each with an entity tag or a status.
type HrefStatuses = Vec<(String, String)>;

/// Members of a multistatus with their entity tags; those without properties apart.
fn members(answer: &HttpResponse) -> (HrefStatuses, HrefStatuses) {
    let text = answer.text();
    let responses = text.split("<D:response>").skip(1).map(|response| {
        let href = element_text(response, "href").expect("an href").to_owned();
        let status = response.contains("</D:href><D:status>");
        let rest = if status { element_text(response, "status") } else { element_text(response, "getetag") };
        (status, (href, rest.unwrap_or_default().to_owned()))
    });
    let (plain, listed): (Vec<_>, Vec<_>) = responses.partition(|(status, _)| *status);
    let members = |those: Vec<(bool, _)>| those.into_iter().map(|(_, member)| member).collect();
    (members(listed), members(plain))
}

fn href_key(href: &str) -> String {
    href.trim_end_matches('/').to_owned()
}

impl SyncModelEnv {
    async fn new() -> Self {
        let gateway = Fixture::start().await;
        for path in ["/s/open/a/b", "/s/open/file", "/s/read/a", "/s/box/shown/a/file", "/s/box/file", "/s/blind"] {
            gateway.write_host_file(path, path);
        }
        gateway.create_host_directory("/aside");
        let grants: Vec<String> = GRANTS.iter().map(|(path, permission)| format!("{path}:{permission}")).collect();
        gateway.create_user("alice", &grants.iter().map(String::as_str).collect::<Vec<_>>());
        let writer = gateway.create_user_and_token("bob", "/:rw");
        let scopes: Vec<String> = SCOPES.iter().map(|scope| format!("path:{scope}")).collect();
        let mut options = vec!["-e", "1h"];
        let all = gateway.create_token("alice", &options);
        for scope in &scopes {
            options.extend(["-s", scope]);
        }
        let tokens = [all, gateway.create_token("alice", &options)];
        let scopes = (0..SCOPES.len()).collect();
        let mirrors = vec![MirrorCopy::default(); MIRRORS.len()];
        Self { gateway, writer, tokens, scopes, mirrors, replaced_by_links: BTreeMap::new(), count: 0 }
    }

    fn dav(&self, mirror: usize) -> DavClient {
        self.gateway.dav("alice", &self.tokens[MIRRORS[mirror].0])
    }

    /// The path of a place, as things are.
    fn path(&self, StepPath(index, name): StepPath) -> String {
        let (mut all, mut directories) = (vec!["/s".to_owned()], vec!["/s".to_owned()]);
        let mut walked = 0;
        while let Some(directory) = directories.get(walked).cloned() {
            walked += 1;
            let Ok(entries) = std::fs::read_dir(self.gateway.host_path(&directory)) else { continue };
            for entry in entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
                let path = format!("{directory}/{}", entry.file_name().display());
                if entry.file_type().is_ok_and(|found| found.is_dir()) && path.matches('/').count() < MAX_DEPTH {
                    directories.push(path.clone());
                }
                all.push(path);
            }
        }
        let mut fit = if name.is_some() { directories } else { all };
        // The order of a directory is the file system's.
        fit.sort();
        let path = fit.swap_remove(index % fit.len());
        name.map_or_else(|| path.clone(), |name| format!("{path}/{name}"))
    }

    fn url(&self, path: StepPath) -> String {
        format!("/dav{}", self.path(path))
    }

    async fn apply(&mut self, step: &SyncStep) -> Result<(), String> {
        let bob = self.gateway.dav("bob", &self.writer);
        self.count += 1;
        match step {
            SyncStep::Put(place) => drop(bob.put(&self.url(*place), format!("{}", self.count)).await),
            SyncStep::Mkcol(place) => drop(bob.status("MKCOL", &self.url(*place)).await),
            SyncStep::Delete(place) => drop(bob.status("DELETE", &self.url(*place)).await),
            SyncStep::Move(from, to) => {
                let to = self.url(*to);
                drop(bob.send("MOVE", &self.url(*from), &[("destination", &to)], "").await);
            }
            SyncStep::Rename(from, to) => {
                let host = |place: &StepPath| self.gateway.host_path(&self.path(*place));
                drop(std::fs::rename(host(from), host(to)));
            }
            SyncStep::Link(place, target) => self.link(&self.path(*place), LINK_TARGETS[*target]),
            SyncStep::Unlink(index) => self.unlink(*index),
            SyncStep::Grant(grant) => {
                let (path, permission) = GRANTS[*grant];
                drop(self.gateway.try_run_cli(&["admin", "user", "grant", "alice", &format!("{path}:{permission}")]));
            }
            SyncStep::Revoke(grant) => {
                drop(self.gateway.try_run_cli(&["admin", "user", "revoke-grant", "alice", GRANTS[*grant].0]));
            }
            SyncStep::Narrow(scope) => self.narrow(*scope),
            SyncStep::Restart => self.gateway.restart().await,
            SyncStep::Page(mirror, limit) => drop(self.sync_page(*mirror, *limit).await?),
            SyncStep::Sync(mirror, limit) => self.sync(*mirror, *limit).await?,
            SyncStep::Forget(mirror) => self.mirrors[*mirror] = MirrorCopy::default(),
        }
        Ok(())
    }

    fn is_link(path: &Path) -> bool {
        path.symlink_metadata().is_ok_and(|found| found.is_symlink())
    }

    fn link(&mut self, path: &str, target: &str) {
        let host = self.gateway.host_path(path);
        if Self::is_link(&host) {
            drop(std::fs::remove_file(&host));
        } else if std::fs::rename(&host, self.gateway.host_path(&format!("/aside/{}", self.count))).is_ok() {
            self.replaced_by_links.insert(path.to_owned(), self.count);
        }
        drop(std::os::unix::fs::symlink(target, host));
    }

    fn unlink(&mut self, index: usize) {
        let Some(path) = self.replaced_by_links.keys().nth(index % self.replaced_by_links.len().max(1)).cloned() else {
            return;
        };
        let (host, backup_path) = (self.gateway.host_path(&path), self.replaced_by_links.remove(&path));
        if Self::is_link(&host) {
            drop(std::fs::remove_file(&host));
        }
        if let Some(backup_path) = backup_path {
            drop(std::fs::rename(self.gateway.host_path(&format!("/aside/{backup_path}")), host));
        }
    }

    fn narrow(&mut self, scope: usize) {
        if self.scopes.len() == 1 || !self.scopes.remove(&scope) {
            return;
        }
        let remaining_scopes: Vec<String> =
            self.scopes.iter().map(|scope| format!("path:{}", SCOPES[*scope])).collect();
        let mut arguments = vec!["apitoken", "edit", token_id(&self.tokens[1])];
        for scope in &remaining_scopes {
            arguments.extend(["-s", scope]);
        }
        if !self.gateway.try_run_cli(&arguments).status.success() {
            // A scope whose directory is gone can't be named any more; it stays.
            self.scopes.insert(scope);
        }
    }

    async fn list(&self, mirror: usize) -> HttpResponse {
        let (_, path, level) = MIRRORS[mirror];
        let depth = if level == "1" { "1" } else { "infinity" };
        let body = "<propfind xmlns=\"DAV:\"><prop><getetag/></prop></propfind>";
        self.dav(mirror).send("PROPFIND", path, &[("depth", depth)], body).await
    }

    /// Applies a page to a mirror; returns whether there are more, or `None` if there is nothing to synchronize.
    async fn sync_page(&mut self, mirror: usize, limit: Option<usize>) -> Result<Option<bool>, String> {
        let (_, path, level) = MIRRORS[mirror];
        let old = self.mirrors[mirror].token.clone();
        let dav = self.dav(mirror);
        let answer = super::sync_collection::sync_request(&dav, path, &old, level, limit).await;
        if answer.status != 207 {
            let propfind = dav.send("PROPFIND", path, &[("depth", "0")], "").await;
            let folder = propfind.status == 207 && propfind.text().contains("<D:collection/>");
            let wrong = folder || answer.text().contains("valid-sync-token");
            return if wrong { Err(format!("{path}: {} {}", answer.status, answer.text())) } else { Ok(None) };
        }
        let (changed, mut removed) = members(&answer);
        let count = removed.len();
        removed.retain(|(href, status)| !(href == path && status.contains("507")));
        let more = removed.len() < count;
        let reported: BTreeSet<String> = changed.iter().chain(&removed).map(|(href, _)| href_key(href)).collect();
        let token = element_text(&answer.text(), "sync-token").expect("a token").to_owned();
        if reported.len() < changed.len() + removed.len() {
            return Err(format!("one member twice: {}", answer.text()));
        }
        if reported.len() > limit.unwrap_or(usize::MAX) {
            return Err(format!("more than {limit:?}: {}", answer.text()));
        }
        if more && (token == old || (reported.is_empty() && limit.is_some())) {
            return Err(format!("no progress: {}", answer.text()));
        }
        if old.is_empty() {
            self.mirrors[mirror].members.clear();
            if !removed.is_empty() {
                return Err(format!("removed members at the beginning: {}", answer.text()));
            }
        }
        let mirror = &mut self.mirrors[mirror];
        for (href, etag) in changed {
            mirror.members.insert(href_key(&href), (href, etag));
        }
        for (href, _) in removed {
            mirror.members.remove(&href_key(&href));
        }
        mirror.token = token;
        Ok(Some(more))
    }

    /// Applies all pages, and compares the mirror with the listing.
    async fn sync(&mut self, mirror: usize, limit: Option<usize>) -> Result<(), String> {
        let mut pages = 0;
        loop {
            match self.sync_page(mirror, limit).await? {
                None => return Ok(()),
                Some(false) => break,
                Some(true) => pages += 1,
            }
            if pages > MAX_PAGES {
                return Err("no end".to_owned());
            }
        }
        let listing = self.list(mirror).await;
        if listing.status != 207 {
            return Err(format!("the listing says {}", listing.status));
        }
        let (mut listed, _) = members(&listing);
        listed.retain(|(href, _)| href_key(href) != href_key(MIRRORS[mirror].1));
        let listed: BTreeSet<(String, String)> = listed.into_iter().collect();
        let copy: BTreeSet<(String, String)> = self.mirrors[mirror].members.values().cloned().collect();
        if copy == listed {
            return Ok(());
        }
        let missing: Vec<_> = listed.difference(&copy).collect();
        let stale: Vec<_> = copy.difference(&listed).collect();
        Err(format!("mirror {:?}: missing {missing:?}, stale {stale:?}", MIRRORS[mirror]))
    }
}

async fn run(steps: &[SyncStep]) -> Result<(), String> {
    let mut env = SyncModelEnv::new().await;
    for (number, step) in steps.iter().enumerate() {
        env.apply(step).await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
    }
    for mirror in 0..MIRRORS.len() {
        env.sync(mirror, Some(2)).await.map_err(|why| format!("at the end: {why}"))?;
    }
    env.gateway.stop().await;
    Ok(())
}

fn env_number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn explore<T: std::fmt::Debug>(
    cases: u32,
    steps: impl Strategy<Value = Vec<T>>,
    run: impl Fn(&[T]) -> Result<(), String>,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&env_number("SYNC_SEED").unwrap_or(SEED).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&steps, |steps| run(&steps).map_err(TestCaseError::fail));
    if let Err(TestError::Fail(why, steps)) = result {
        let steps: Vec<String> = steps.iter().map(|step| format!("    {step:?}")).collect();
        panic!("{why}\n{}", steps.join("\n"));
    }
    result.expect("no sequence was given up");
}

fn sequences(default: u32) -> u32 {
    env_number("SYNC_SEQUENCES").map_or(default, |cases| u32::try_from(cases).expect("small"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn mirrors_kept_by_sync_collection_equal_the_listing() {
    let runtime = runtime();
    explore(sequences(SEQUENCES), proptest::collection::vec(step(), 30..80), |steps| runtime.block_on(run(steps)));
}

/// A change while others synchronize: what is done, at two of the places.
type RandomChange = (u8, usize, usize);

const CHANGED_PATHS: [&str; 8] = [
    "/s/open/a",
    "/s/open/b",
    "/s/open/a/c",
    "/s/open/b/c",
    "/s/box/shown/a",
    "/s/box/shown/a/c",
    "/s/box/shown/b",
    "/elsewhere",
];

async fn apply_change(bob: &DavClient, root: &Path, number: usize, (what, one, other): RandomChange) {
    let (from, to) = (CHANGED_PATHS[one], CHANGED_PATHS[other]);
    let url = format!("/dav{from}");
    match what {
        0 => drop(bob.put(&url, number.to_string()).await),
        1 => drop(bob.status("MKCOL", &url).await),
        2 => drop(bob.status("DELETE", &url).await),
        3 => drop(bob.send("MOVE", &url, &[("destination", &format!("/dav{to}"))], "").await),
        _ => {
            let host = |path: &str| root.join(path.trim_start_matches('/'));
            drop(std::fs::rename(host(from), host(to)));
        }
    }
}

/// Synchronizes while members change, and once more afterwards.
async fn run_concurrently(changes: &[RandomChange]) -> Result<(), String> {
    let mut env = SyncModelEnv::new().await;
    let (bob, root) = (env.gateway.dav("bob", &env.writer), env.gateway.root());
    let changes = changes.to_vec();
    let writer = tokio::spawn(async move {
        for (number, step) in changes.into_iter().enumerate() {
            apply_change(&bob, &root, number, step).await;
        }
    });
    let limits = [None, Some(1), Some(2), Some(3), Some(5)];
    for number in 0.. {
        env.sync_page(number % MIRRORS.len(), limits[number % limits.len()]).await?;
        if writer.is_finished() {
            break;
        }
    }
    writer.await.expect("the writer ends");
    for mirror in 0..MIRRORS.len() {
        env.sync(mirror, Some(2)).await?;
    }
    env.gateway.stop().await;
    Ok(())
}

#[test]
fn mirrors_synchronized_during_changes_equal_the_listing_afterwards() {
    let runtime = runtime();
    let change = (0..6_u8, 0..CHANGED_PATHS.len(), 0..CHANGED_PATHS.len());
    explore(sequences(SEQUENCES_AT_ONCE), proptest::collection::vec(change, 200..400), |changes| {
        runtime.block_on(run_concurrently(changes))
    });
}
