//! `patgate doctor`: looks at state, served folder and system, and says what is wrong with them.

mod health;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::Serialize;

use super::failure::{NEW_HOST_KEY, OTHER_TREE};
use super::site::{Site, has_state};
use super::{Failure, Result, descriptors, output};
use crate::auth::{Clock, SecretHasher};
use crate::config::{ListenConfig, LocalConfig, TlsFiles};
use crate::domain::UnixMillis;
use crate::net;
use crate::sftp::HostKeys;
use crate::store::{ClockCheckpoint, DiskFault, Store, StoreError};
use crate::tree::{self, Tree};

/// 2026-01-01: no clock is right that shows less.
const EARLIEST: i64 = 1_767_225_600_000;
/// The server may have seen a clock that is this far ahead without one of the two being wrong.
const AHEAD: Duration = Duration::from_secs(3600);

/// Look at state, served folder and system
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate doctor
  patgate doctor --health
  patgate doctor --health http://127.0.0.1:8080/healthz
  patgate doctor --health https://files.example.org:8443/healthz")]
pub(super) struct Doctor {
    /// Ask a running server whether it answers, at /healthz of its configured address unless told otherwise
    #[arg(long, value_name = "URL")]
    health: Option<Option<String>>,
}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Odd,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

impl Doctor {
    /// Looks at everything; fails when something is bad.
    pub(super) fn run(&self, site: &Site) -> Result {
        if let Some(url) = &self.health {
            return health::ask(site, url.as_deref());
        }
        let (local, doors) = (site.local()?, ListenConfig::load(&site.sources(Vec::new()))?);
        let mut findings = vec![state(&local.state)];
        // Opening the state of another user, or an open one, would change it.
        let sound = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
        let there = sound && has_state(&local.state);
        // Nothing is migrated by looking.
        let store = there.then(|| Store::open_without_migration(&local.state));
        findings.extend(sound.then(|| database(store.as_ref())));
        let store = store.and_then(std::result::Result::ok);
        findings.extend(store.as_ref().map(pepper));
        findings.extend(store.as_ref().map(disk));
        findings.extend(sound.then(|| host_keys(&local.state)));
        findings.extend(readable(&local.state));
        findings.extend(root(store.as_ref(), &local));
        findings.extend(doors.tls.as_ref().map(certificate));
        findings.push(kernel());
        findings.push(open_files(&doors));
        let seen = store.as_ref().and_then(|store| store.clock_checkpoint().ok().flatten());
        findings.push(clock(Clock::system().now(), seen.as_ref()));
        print(site, &findings)?;
        match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
            0 => Ok(()),
            bad => Err(Failure::new(format!("{bad} of {} findings are bad", findings.len()))
                .hint("they are marked BAD above, each with what to do")),
        }
    }
}

fn print(site: &Site, findings: &[Finding]) -> Result {
    if site.json() {
        return output::json(&findings);
    }
    let mark = |verdict| match verdict {
        Verdict::Good => "good",
        Verdict::Odd => "odd",
        Verdict::Bad => "BAD",
    };
    let rows: Vec<_> =
        findings.iter().map(|f| [f.what.to_owned(), mark(f.verdict).to_owned(), f.text.clone()]).collect();
    output::table(["WHAT", "IS", "BECAUSE"], &rows)
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { what, verdict, text: text.into() }
}

fn state(state: &Path) -> Finding {
    let shown = state.display();
    let what = "state directory";
    match fs::metadata(state) {
        Err(error) => finding(what, Verdict::Odd, format!("{shown}: {error}; the first start of the server makes it")),
        Ok(there) if !there.is_dir() => finding(what, Verdict::Bad, format!("{shown} is no folder")),
        Ok(there) => {
            let (mode, owner, us) =
                (there.permissions().mode() & 0o777, there.uid(), rustix::process::geteuid().as_raw());
            if owner != us {
                let text = format!("{shown} belongs to the user id {owner}: run the server and this as that user");
                finding(what, Verdict::Bad, text)
            } else if mode & 0o077 != 0 {
                finding(what, Verdict::Bad, format!("{shown} has mode {mode:03o}: chmod 700 it"))
            } else {
                finding(what, Verdict::Good, format!("{shown} is ours alone"))
            }
        }
    }
}

fn database(store: Option<&crate::store::Result<Store>>) -> Finding {
    match store {
        None => finding("database", Verdict::Odd, "there is none yet; the first start of the server makes it"),
        Some(Ok(store)) => match store.users(None, 1) {
            Ok(users) if users.is_empty() => {
                finding("database", Verdict::Odd, "it opens and holds no user yet: patgate admin user create LOGIN")
            }
            Ok(_) => finding("database", Verdict::Good, "it opens and is sound"),
            Err(error) => finding("database", Verdict::Bad, error.to_string()),
        },
        Some(Err(error @ StoreError::SchemaTooOld { .. })) => finding("database", Verdict::Odd, error.to_string()),
        Some(Err(error)) => finding("database", Verdict::Bad, error.to_string()),
    }
}

fn pepper(store: &Store) -> Finding {
    match SecretHasher::open(store) {
        Ok(_) => finding("pepper", Verdict::Good, "it is there; keep it in backups together with the database"),
        Err(error) => finding("pepper", Verdict::Bad, error.to_string()),
    }
}

fn disk(store: &Store) -> Finding {
    let what = "state disk";
    match store.disk_fault() {
        None => finding(what, Verdict::Good, "there is room, and a reserve for revocations when there is none"),
        Some(DiskFault::BallastMissing) if !store.has_been_served().unwrap_or(true) => {
            finding(what, Verdict::Odd, "the first start of the server makes the reserve for when it is full")
        }
        Some(fault @ DiskFault::BallastMissing) => finding(what, Verdict::Odd, fault.message()),
        Some(fault) => finding(what, Verdict::Bad, fault.message()),
    }
}

fn host_keys(state: &Path) -> Finding {
    let what = "SSH host keys";
    match HostKeys::open_existing(state) {
        Ok(Some(_)) => {
            finding(what, Verdict::Good, "they are there; keep them in backups, clients know the server by them")
        }
        Ok(None) => finding(what, Verdict::Odd, "not all are there yet; the next start of the server makes them"),
        Err(error) => finding(what, Verdict::Bad, format!("{error}; {NEW_HOST_KEY}")),
    }
}

/// Looks for secrets that others could read, were they let into the state directory.
fn readable(state: &Path) -> Option<Finding> {
    let secret = |name: &str| name == "pepper" || name.starts_with("ssh_host_");
    let open = |entry: fs::DirEntry| {
        let (name, mode) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?.mode());
        (secret(&name) && mode & 0o077 != 0).then_some(name)
    };
    let mut names: Vec<_> = fs::read_dir(state).ok()?.flatten().filter_map(open).collect();
    names.sort();
    let text = format!("others may read {}: chmod 600 them", names.join(", "));
    (!names.is_empty()).then(|| finding("secrets", Verdict::Bad, text))
}

fn certificate(files: &TlsFiles) -> Finding {
    let fault = net::server_config(&files.certificate, &files.key, &[]);
    let shown = files.certificate.display();
    match fault.and_then(|_| net::check_certificate(&files.certificate)) {
        Ok(None) => finding("certificate", Verdict::Good, format!("{shown} and its key can be used")),
        Ok(Some(fault)) => {
            let text = format!("{shown}: {fault}: clients refuse it; give tls_cert another one");
            finding("certificate", Verdict::Bad, text)
        }
        Err(error) => finding("certificate", Verdict::Bad, error.to_string()),
    }
}

fn root(store: Option<&Store>, local: &LocalConfig) -> Vec<Finding> {
    let stored = store.and_then(|store| store.served_root().ok().flatten());
    let Some(root) = stored.or_else(|| local.root.clone()) else {
        return vec![finding("served folder", Verdict::Odd, "none yet: patgate serve --root DIR names it")];
    };
    let shown = root.display();
    match fs::metadata(&root) {
        Err(error) => vec![finding("served folder", Verdict::Bad, format!("{shown}: {error}"))],
        Ok(there) if !there.is_dir() => vec![finding("served folder", Verdict::Bad, format!("{shown} is no folder"))],
        Ok(there) => {
            let mut findings = vec![rights(&root), birth_times(&there)];
            findings.extend(store.and_then(|store| same_tree(&root, store)));
            findings.extend(staging(&root));
            findings.extend(Tree::supports_flock(&root).map(locks));
            findings
        }
    }
}

fn rights(root: &PathBuf) -> Finding {
    use rustix::fs::Access;
    let shown = root.display();
    let may = |access| rustix::fs::access(root, access).is_ok();
    if !may(Access::READ_OK | Access::EXEC_OK) {
        return finding("served folder", Verdict::Bad, format!("{shown} can't be read by this user"));
    }
    if !may(Access::WRITE_OK) {
        return finding(
            "served folder",
            Verdict::Odd,
            format!("{shown} can't be written to by this user: uploads fail"),
        );
    }
    finding("served folder", Verdict::Good, format!("{shown} can be read and written to"))
}

/// Looks whether it is the folder that grants and scopes were made for.
fn same_tree(root: &Path, store: &Store) -> Option<Finding> {
    let what = "tree";
    match Tree::verify_root(root, store) {
        Ok(()) => Some(finding(what, Verdict::Good, "it is the folder that grants and scopes were made for")),
        Err(error @ tree::Error::TreeMismatch) => Some(finding(what, Verdict::Bad, format!("{error}; {OTHER_TREE}"))),
        // Told of by the folder's other findings.
        Err(_) => None,
    }
}

fn staging(root: &Path) -> Option<Finding> {
    let fault = Tree::reserved_directory_fault(root)?;
    Some(finding("staging", Verdict::Bad, format!("{} {fault}", root.join(".patgate").display())))
}

fn locks(work: bool) -> Finding {
    match work {
        true => finding("locks", Verdict::Good, "they work on its file system: a second server on it is refused"),
        false => finding(
            "locks",
            Verdict::Odd,
            "they don't work on its file system: a second server on the folder is not noticed, so start none; what a \
             killed server leaves in .patgate stays there",
        ),
    }
}

fn birth_times(root: &fs::Metadata) -> Finding {
    match root.created() {
        Ok(_) => finding(
            "birth times",
            Verdict::Good,
            "the file system keeps them: a folder swapped behind patgate's back is noticed",
        ),
        Err(_) => finding(
            "birth times",
            Verdict::Odd,
            "the file system has none: folders are recognised by inode and path, so one swapped behind patgate's back \
             may pass for the one before",
        ),
    }
}

/// Looks whether the kernel keeps paths beneath a folder (`openat2`, Linux 5.6).
fn kernel() -> Finding {
    let opened = rustix::fs::openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
    match opened {
        Ok(_) => finding("kernel", Verdict::Good, "openat2 works"),
        Err(error) => {
            let text =
                format!("openat2 fails ({error}): Linux 5.6 or later is needed, and a sandbox must allow the call");
            finding("kernel", Verdict::Bad, text)
        }
    }
}

/// Looks whether as many files may be open as the configured connections take.
fn open_files(doors: &ListenConfig) -> Finding {
    let allowed = descriptors::allowed();
    match (descriptors::shortage(allowed, doors), allowed) {
        (Some(shortage), _) => finding("open files", Verdict::Odd, shortage),
        (None, Some(allowed)) => finding("open files", Verdict::Good, format!("{allowed} are allowed from here")),
        (None, None) => finding("open files", Verdict::Good, "any number is allowed from here"),
    }
}

fn clock(now: UnixMillis, memory: Option<&ClockCheckpoint>) -> Finding {
    if now.as_millis() < EARLIEST {
        return finding("clock", Verdict::Bad, format!("it shows {now}: tokens would live too long; set it"));
    }
    let hours = |millis: u64| millis.div_ceil(3_600_000);
    let Some(memory) = memory else { return finding("clock", Verdict::Good, format!("it shows {now}")) };
    if let Some(last) = memory.jumps.last() {
        let way = if last.by_ms < 0 { "back" } else { "forward" };
        let text = format!(
            "it shows {now} and went {way} by {} h: if that is wrong, set it; nothing is deleted by age for {} h of \
             running time",
            hours(last.by_ms.unsigned_abs()),
            hours(last.left_ms)
        );
        return finding("clock", Verdict::Odd, text);
    }
    if now.saturating_add(AHEAD) < memory.wall_time {
        let text = format!("it shows {now}, and the server saw it show {} already: set it", memory.wall_time);
        return finding("clock", Verdict::Odd, text);
    }
    finding("clock", Verdict::Good, format!("it shows {now}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_others_can_enter_is_bad() {
        let folder = tempfile::tempdir().expect("folder");
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("mode");
        set(0o755);
        assert_eq!(state(folder.path()).verdict, Verdict::Bad);
        set(0o700);
        assert_eq!(state(folder.path()).verdict, Verdict::Good);
        assert_eq!(state(&folder.path().join("none")).verdict, Verdict::Odd);
    }

    #[test]
    fn a_clock_of_the_last_century_is_bad() {
        assert_eq!(clock(UnixMillis::from_millis(0), None).verdict, Verdict::Bad);
        assert_eq!(clock(UnixMillis::from_millis(EARLIEST), None).verdict, Verdict::Good);
    }
}
