//! No sequence of operations reaches a file outside of a token's scope, neither for the token itself nor for a user who
//! follows links that the token created.
//!
//! Two tokens run random operations over both protocols, in turn and concurrently, while a user of the whole tree reads
//! and writes at their paths. `PATGATE_ESCAPE_STEPS` sets the number of steps, `PATGATE_ESCAPE_SEED` the seed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{DavClient, Fixture, SftpClient, SftpError};

/// Steps of each arrangement of scopes.
const STEPS_PER_ARRANGEMENT: usize = 800;
/// Names by which the tokens act.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Directories with a file that nobody acts on by its name.
const CANARIES: [&str; 8] =
    ["", "team", "team/secret", "team/work/kept", "team/work/in/kept", "other", "other/box/kept", "other/secret"];
/// Scopes of the two tokens: apart, nested, and overlapping.
const SCOPE_ARRANGEMENTS: [[&[&str]; 2]; 4] = [
    [&["team/work"], &["other/box"]],
    [&["team"], &["team/work"]],
    [&["team/work", "other/secret"], &["team/work/in", "other/box"]],
    [&["team/work/in"], &["team/work/in", "team/secret"]],
];

/// Numbers that depend on a seed alone (xorshift64*).
struct SeededRandom(u64);

impl SeededRandom {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A path below a scope, mostly of few names.
    fn path(&mut self, scopes: &[&str]) -> String {
        let scope = self.pick(scopes);
        (0..=self.below(4)).fold(format!("/{scope}"), |path, _| format!("{path}/{}", self.pick(&NAMES)))
    }

    /// The text of a link.
    fn link_target(&mut self) -> String {
        let inner = ["a", "b", "a/b", "kept", "secret", "team/secret", "other/secret", "etc/passwd", ".", "in/kept"];
        let up = "../".repeat(self.below(7));
        match self.below(12) {
            0 => format!("/{}", self.pick(&inner)),
            1 => format!("a/{up}{}", self.pick(&inner)),
            2 => format!("{}a/b/../../../{}", up, self.pick(&inner)),
            3 => format!("{up}."),
            4 => format!("{up}{}/canary-{}", self.pick(&inner), self.below(CANARIES.len())),
            _ => format!("{up}{}", self.pick(&inner)),
        }
    }
}

/// One operation, drawn before it runs.
#[derive(Clone, Debug)]
struct RandomOperation {
    kind: usize,
    one: String,
    other: String,
    text: String,
}

impl RandomOperation {
    fn random(dice: &mut SeededRandom, scopes: &[&str]) -> Self {
        let mut one = dice.path(scopes);
        let kind = dice.below(27);
        if matches!(kind, 14..=20) && dice.below(2) == 0 {
            one = format!("{one}/canary-{}", dice.below(CANARIES.len()));
        }
        Self { kind, one, other: dice.path(scopes), text: dice.link_target() }
    }

    /// Does it, and returns all that was told of content and names.
    async fn run(&self, caller: &mut ScopedCaller) -> String {
        let Self { kind, one, other, text } = self;
        let ScopedCaller { sftp, dav, .. } = caller;
        let (at, destination) = (format!("/dav{one}"), format!("/dav{other}"));
        let done = |outcome: Result<(), SftpError>| {
            // The session goes on whatever was refused.
            assert!(!matches!(outcome, Err(SftpError::ConnectionLost)), "the session ended: {self:?}");
            String::new()
        };
        match kind {
            0 | 1 => done(sftp.mkdir(one).await),
            2..=4 => done(sftp.symlink(text, one).await),
            5 | 6 => done(sftp.rename(one, other).await),
            7 => done(sftp.posix_rename(one, other).await),
            8 => done(sftp.hard_link(one, other).await),
            9 => done(sftp.remove(one).await),
            10 => done(sftp.rmdir(one).await),
            11 | 12 => {
                let overwrite = if *kind == 11 { "T" } else { "F" };
                let headers = [("Destination", destination.as_str()), ("Overwrite", overwrite)];
                let answer = dav.send("MOVE", &at, &headers, "").await;
                assert!(answer.status < 500, "{self:?}: {answer:?}");
                String::new()
            }
            13 => {
                let answer = dav.send("COPY", &at, &[("Destination", destination.as_str())], "").await;
                assert!(answer.status < 500, "{self:?}: {answer:?}");
                String::new()
            }
            14 => done(sftp.put(one, b"by SFTP").await),
            15 => dav.send("PUT", &at, &[], "by WebDAV").await.text().replace(one, ""),
            16 => {
                let answer = dav.send("GET", &at, &[], "").await;
                let is_listing = answer.header("content-type").starts_with("text/html");
                if is_listing { listed_names(&answer.text()) } else { answer.text().replace(one, "") }
            }
            17 => sftp.get(one).await.map(|content| String::from_utf8_lossy(&content).into_owned()).unwrap_or_default(),
            18 => done(sftp.stat(one).await.map(drop)),
            19 => done(sftp.lstat(one).await.map(drop)),
            20 => {
                let _ = sftp.readlink(one).await;
                done(sftp.realpath(one).await.map(drop))
            }
            21 => listed_names(&sftp.list(one).await.unwrap_or_default().join(" ")),
            23..=25 => {
                carry_link(caller, one, other, text).await;
                String::new()
            }
            22 => listed_names(&dav.send("PROPFIND", &at, &[("Depth", "1")], "").await.text()),
            _ => {
                let answer = dav.send("DELETE", &at, &[], "").await;
                assert!(answer.status < 500, "{self:?}: {answer:?}");
                String::new()
            }
        }
    }
}

/// Makes a link that leads to the top of its scope and no further, and moves the directories around it.
///
/// Steps drawn one by one come to this too seldom: the link has to stand deep, and what is moved has to be free to move.
async fn carry_link(caller: &mut ScopedCaller, link: &str, target: &str, text: &str) {
    let ScopedCaller { scopes, sftp, dav } = caller;
    let Some(scope) = scopes.iter().map(|scope| format!("/{scope}/")).find(|scope| link.starts_with(scope)) else {
        return;
    };
    let inner: Vec<_> = link[scope.len()..].split('/').collect();
    for depth in 1..inner.len() {
        let _ = sftp.mkdir(&format!("{scope}{}", inner[..depth].join("/"))).await;
    }
    let climbing = "../".repeat(inner.len() - 1) + text.trim_start_matches("../");
    let _ = sftp.remove(link).await;
    let _ = sftp.symlink(&climbing, link).await;
    let moved = format!("{scope}{}", inner[..text.len() % inner.len()].join("/"));
    if target.starts_with(&format!("{moved}/")) || moved.ends_with('/') {
        return;
    }
    dav.send("DELETE", &format!("/dav{target}"), &[], "").await;
    if text.len().is_multiple_of(2) {
        let _ = sftp.rename(&moved, target).await;
    } else {
        dav.send("MOVE", &format!("/dav{moved}"), &[("Destination", &format!("/dav{target}"))], "").await;
    }
}

struct ScopedCaller {
    scopes: Vec<&'static str>,
    sftp: SftpClient,
    dav: DavClient,
}

impl ScopedCaller {
    /// Tells whether a token's scopes cover a path of the tree.
    fn covers(&self, path: &Path) -> bool {
        self.scopes.iter().any(|scope| path.starts_with(scope))
    }
}

fn canary(number: usize) -> PathBuf {
    Path::new(CANARIES[number]).join(format!("canary-{number}"))
}

/// Writes the canaries that are missing or changed; returns which.
fn restore_canaries(root: &Path) -> BTreeSet<usize> {
    let mut changed = BTreeSet::new();
    for number in 0..CANARIES.len() {
        let (path, content) = (root.join(canary(number)), format!("canary-{number}"));
        if std::fs::read(&path).ok().as_deref() != Some(content.as_bytes()) {
            changed.insert(number);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            // Through no link, and by no other name of the file.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, content).expect("written");
        }
        // A name that is told of by listings alone.
        let _ = std::fs::write(path.with_file_name(format!("sentinel-{number}")), "");
    }
    changed
}

/// Returns every symbolic link below a directory.
fn find_links(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_symlink() {
            found.push(entry.path());
        } else if kind.is_dir() && entry.file_name() != ".patgate" {
            find_links(&entry.path(), found);
        }
    }
}

/// Returns where a link leads that leads to nothing: its text is read by itself.
fn lexical_target(link: &Path) -> PathBuf {
    let mut path = link.parent().expect("a parent").to_owned();
    for part in std::fs::read_link(link).expect("a link").components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// Returns a listing as what it tells of: an uploaded file may have the name of a canary.
fn listed_names(listing: &str) -> String {
    listing.replace("canary-", "").replace("sentinel-", "canary-")
}

fn leaked_canaries(answer: &str) -> BTreeSet<usize> {
    (0..CANARIES.len()).filter(|number| answer.contains(&format!("canary-{number}"))).collect()
}

async fn scoped_caller(gateway: &Fixture, login: &str, scopes: &[&'static str]) -> ScopedCaller {
    gateway.create_user(login, &["/:rw"]);
    let scopes_of: Vec<String> = scopes.iter().map(|scope| format!("path:/{scope}:rw")).collect();
    let mut options = vec!["-e", "1h"];
    options.extend(scopes_of.iter().flat_map(|scope| ["-s", scope.as_str()]));
    let token = gateway.create_token(login, &options);
    ScopedCaller { scopes: scopes.to_vec(), sftp: gateway.sftp(login, &token).await, dav: gateway.dav(login, &token) }
}

fn number_from(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_of_operations_escapes_a_scope() {
    let steps = number_from("PATGATE_ESCAPE_STEPS", STEPS_PER_ARRANGEMENT);
    let seed = number_from("PATGATE_ESCAPE_SEED", 1);
    for (number, arrangement) in SCOPE_ARRANGEMENTS.iter().enumerate() {
        let seed = u64::try_from(seed * SCOPE_ARRANGEMENTS.len() + number + 1).expect("a number");
        let mut dice = SeededRandom(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let gateway = Fixture::start().await;
        let root = gateway.root().canonicalize().expect("it stands");
        restore_canaries(&root);
        let mut tokens = [
            scoped_caller(&gateway, "alice", arrangement[0]).await,
            scoped_caller(&gateway, "bob", arrangement[1]).await,
        ];
        let mut boss = scoped_caller(&gateway, "boss", &[""]).await;
        boss.scopes = vec![""];
        for turn in 0..steps {
            run_arrangement(&mut dice, &mut tokens, &mut boss, &root, &format!("seed {seed}, turn {turn}")).await;
        }
    }
}

async fn run_arrangement(
    dice: &mut SeededRandom,
    tokens: &mut [ScopedCaller; 2],
    boss: &mut ScopedCaller,
    root: &Path,
    turn: &str,
) {
    let drawn = [RandomOperation::random(dice, &tokens[0].scopes), RandomOperation::random(dice, &tokens[1].scopes)];
    let [first, second] = tokens;
    let acting = dice.below(4);
    let mut answers = [String::new(), String::new()];
    match acting {
        0 => answers[0] = drawn[0].run(first).await,
        1 => answers[1] = drawn[1].run(second).await,
        _ => {
            let both = tokio::join!(drawn[0].run(first), drawn[1].run(second));
            answers = both.into();
        }
    }
    // Where the scopes meet, one token may have put there what it may read, and the other may carry it on.
    let disjoint = first.scopes.iter().all(|scope| !second.covers(Path::new(scope)))
        && second.scopes.iter().all(|scope| !first.covers(Path::new(scope)));
    for (answer, caller, other_caller) in [(&answers[0], &*first, &*second), (&answers[1], &*second, &*first)] {
        for number in leaked_canaries(answer) {
            let canary = canary(number);
            let may = caller.covers(&canary) || !disjoint && other_caller.covers(&canary);
            assert!(may, "{turn}: {drawn:?} told of {canary:?}");
        }
    }
    for number in restore_canaries(root) {
        let may = first.covers(&canary(number)) || second.covers(&canary(number));
        assert!(may, "{turn}: {drawn:?} changed {:?}", canary(number));
    }
    let mut found = Vec::new();
    find_links(root, &mut found);
    for link in found {
        let leads = link.canonicalize().unwrap_or_else(|_| lexical_target(&link));
        let link_path = link.strip_prefix(root).expect("below");
        let inside = leads.strip_prefix(root).is_ok_and(|leads| {
            [&*first, &*second].iter().any(|caller| caller.covers(link_path) && caller.covers(leads))
        });
        let text = std::fs::read_link(&link);
        assert!(inside, "{turn}: {link_path:?} -> {text:?} leads to {leads:?} after {drawn:?}");
    }
    // The user of the whole tree goes where the tokens' paths lead.
    let zone = if dice.below(2) == 0 { &*first } else { &*second };
    let led = RandomOperation { kind: dice.pick(&[14, 15, 16, 17, 21]), ..RandomOperation::random(dice, &zone.scopes) };
    let link_path = PathBuf::from(led.one.trim_start_matches('/'));
    let (read, changed) = (leaked_canaries(&led.run(boss).await), restore_canaries(root));
    for (number, strict) in read.iter().map(|number| (*number, disjoint)).chain(changed.iter().map(|n| (*n, true))) {
        let canary = canary(number);
        let leads = |caller: &ScopedCaller| (!strict || caller.covers(&link_path)) && caller.covers(&canary);
        assert!(leads(first) || leads(second), "{turn}: {led:?} led the boss to {canary:?}");
    }
}
