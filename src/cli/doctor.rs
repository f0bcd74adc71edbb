//! `patgate doctor`: looks at state, served folder and system, and says what is wrong with them.

mod health;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::Serialize;

use super::context::CommandContext;
use super::error::{BROKEN_HOST_KEY_HINT, OTHER_TREE_HINT};
use super::open_state::has_state;
use super::{CommandError, Result, output, rlimit};
use crate::auth::{Clock, SecretHasher};
use crate::config::{ListenConfig, LocalConfig, TlsFiles};
use crate::domain::UnixMillis;
use crate::net;
use crate::sftp::HostKeys;
use crate::store::{ClockCheckpoint, DiskFault, Store, StoreError};
use crate::tree::{self, Tree};

/// 2026-01-01: no clock is right that shows less.
const EARLIEST_PLAUSIBLE_MILLIS: i64 = 1_767_225_600_000;
/// The server may have seen a clock that is this far ahead without one of the two being wrong.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// Look at state, served folder and system
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate doctor
  patgate doctor --health
  patgate doctor --health http://127.0.0.1:8080/healthz
  patgate doctor --health https://files.example.org:8443/healthz")]
pub(super) struct DoctorCommand {
    /// Ask a running server whether it answers, at /healthz of its configured address unless told otherwise
    #[arg(long, value_name = "URL")]
    health: Option<Option<String>>,
}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Good,
    Odd,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct DoctorCheck {
    what: &'static str,
    verdict: CheckStatus,
    text: String,
}

impl DoctorCommand {
    /// Looks at everything; fails when something is bad.
    pub(super) fn run(&self, site: &CommandContext) -> Result {
        if let Some(url) = &self.health {
            return health::check_health(site, url.as_deref());
        }
        let (local, doors) = (site.local_config()?, ListenConfig::load(&site.config_sources(Vec::new()))?);
        let mut findings = vec![check_state_directory(&local.state)];
        // Opening the state of another user, or an open one, would change it.
        let sound = findings.iter().all(|finding| finding.verdict != CheckStatus::Bad);
        let there = sound && has_state(&local.state);
        // Nothing is migrated by looking.
        let store = there.then(|| Store::open_without_migration(&local.state));
        findings.extend(sound.then(|| check_database(store.as_ref())));
        let store = store.and_then(std::result::Result::ok);
        findings.extend(store.as_ref().map(check_pepper));
        findings.extend(store.as_ref().map(check_state_disk));
        findings.extend(sound.then(|| check_host_keys(&local.state)));
        findings.extend(check_secret_modes(&local.state));
        findings.extend(check_served_directory(store.as_ref(), &local));
        findings.extend(doors.tls.as_ref().map(check_certificate));
        findings.push(check_openat2());
        findings.push(check_open_file_limit(&doors));
        let seen = store.as_ref().and_then(|store| store.clock_checkpoint().ok().flatten());
        findings.push(check_clock(Clock::system().now(), seen.as_ref()));
        print_checks(site, &findings)?;
        match findings.iter().filter(|finding| finding.verdict == CheckStatus::Bad).count() {
            0 => Ok(()),
            bad => Err(CommandError::new(format!("{bad} of {} findings are bad", findings.len()))
                .with_hint("they are marked BAD above, each with what to do")),
        }
    }
}

fn print_checks(site: &CommandContext, findings: &[DoctorCheck]) -> Result {
    if site.prints_json() {
        return output::print_json(&findings);
    }
    let mark = |verdict| match verdict {
        CheckStatus::Good => "good",
        CheckStatus::Odd => "odd",
        CheckStatus::Bad => "BAD",
    };
    let rows: Vec<_> =
        findings.iter().map(|f| [f.what.to_owned(), mark(f.verdict).to_owned(), f.text.clone()]).collect();
    output::print_table(["WHAT", "IS", "BECAUSE"], &rows)
}

fn check(what: &'static str, verdict: CheckStatus, text: impl Into<String>) -> DoctorCheck {
    DoctorCheck { what, verdict, text: text.into() }
}

fn check_state_directory(state: &Path) -> DoctorCheck {
    let shown = state.display();
    let what = "state directory";
    match fs::metadata(state) {
        Err(error) => {
            check(what, CheckStatus::Odd, format!("{shown}: {error}; the first start of the server makes it"))
        }
        Ok(there) if !there.is_dir() => check(what, CheckStatus::Bad, format!("{shown} is no folder")),
        Ok(there) => {
            let (mode, owner, us) =
                (there.permissions().mode() & 0o777, there.uid(), rustix::process::geteuid().as_raw());
            if owner != us {
                let text = format!("{shown} belongs to the user id {owner}: run the server and this as that user");
                check(what, CheckStatus::Bad, text)
            } else if mode & 0o077 != 0 {
                check(what, CheckStatus::Bad, format!("{shown} has mode {mode:03o}: chmod 700 it"))
            } else {
                check(what, CheckStatus::Good, format!("{shown} is ours alone"))
            }
        }
    }
}

fn check_database(store: Option<&crate::store::Result<Store>>) -> DoctorCheck {
    match store {
        None => check("database", CheckStatus::Odd, "there is none yet; the first start of the server makes it"),
        Some(Ok(store)) => match store.users(None, 1) {
            Ok(users) if users.is_empty() => {
                check("database", CheckStatus::Odd, "it opens and holds no user yet: patgate admin user create LOGIN")
            }
            Ok(_) => check("database", CheckStatus::Good, "it opens and is sound"),
            Err(error) => check("database", CheckStatus::Bad, error.to_string()),
        },
        Some(Err(error @ StoreError::SchemaTooOld { .. })) => check("database", CheckStatus::Odd, error.to_string()),
        Some(Err(error)) => check("database", CheckStatus::Bad, error.to_string()),
    }
}

fn check_pepper(store: &Store) -> DoctorCheck {
    match SecretHasher::open(store) {
        Ok(_) => check("pepper", CheckStatus::Good, "it is there; keep it in backups together with the database"),
        Err(error) => check("pepper", CheckStatus::Bad, error.to_string()),
    }
}

fn check_state_disk(store: &Store) -> DoctorCheck {
    let what = "state disk";
    match store.disk_fault() {
        None => check(what, CheckStatus::Good, "there is room, and a reserve for revocations when there is none"),
        Some(DiskFault::BallastMissing) if !store.has_been_served().unwrap_or(true) => {
            check(what, CheckStatus::Odd, "the first start of the server makes the reserve for when it is full")
        }
        Some(fault @ DiskFault::BallastMissing) => check(what, CheckStatus::Odd, fault.message()),
        Some(fault) => check(what, CheckStatus::Bad, fault.message()),
    }
}

fn check_host_keys(state: &Path) -> DoctorCheck {
    let what = "SSH host keys";
    match HostKeys::open_existing(state) {
        Ok(Some(_)) => {
            check(what, CheckStatus::Good, "they are there; keep them in backups, clients know the server by them")
        }
        Ok(None) => check(what, CheckStatus::Odd, "not all are there yet; the next start of the server makes them"),
        Err(error) => check(what, CheckStatus::Bad, format!("{error}; {BROKEN_HOST_KEY_HINT}")),
    }
}

/// Looks for secrets that others could read, were they let into the state directory.
fn check_secret_modes(state: &Path) -> Option<DoctorCheck> {
    let secret = |name: &str| name == "pepper" || name.starts_with("ssh_host_");
    let open = |entry: fs::DirEntry| {
        let (name, mode) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?.mode());
        (secret(&name) && mode & 0o077 != 0).then_some(name)
    };
    let mut names: Vec<_> = fs::read_dir(state).ok()?.flatten().filter_map(open).collect();
    names.sort();
    let text = format!("others may read {}: chmod 600 them", names.join(", "));
    (!names.is_empty()).then(|| check("secrets", CheckStatus::Bad, text))
}

fn check_certificate(files: &TlsFiles) -> DoctorCheck {
    let fault = net::server_config(&files.certificate, &files.key, &[]);
    let shown = files.certificate.display();
    match fault.and_then(|_| net::check_certificate(&files.certificate)) {
        Ok(None) => check("certificate", CheckStatus::Good, format!("{shown} and its key can be used")),
        Ok(Some(fault)) => {
            let text = format!("{shown}: {fault}: clients refuse it; give tls_cert another one");
            check("certificate", CheckStatus::Bad, text)
        }
        Err(error) => check("certificate", CheckStatus::Bad, error.to_string()),
    }
}

fn check_served_directory(store: Option<&Store>, local: &LocalConfig) -> Vec<DoctorCheck> {
    let stored = store.and_then(|store| store.served_root().ok().flatten());
    let Some(root) = stored.or_else(|| local.root.clone()) else {
        return vec![check("served folder", CheckStatus::Odd, "none yet: patgate serve --root DIR names it")];
    };
    let shown = root.display();
    match fs::metadata(&root) {
        Err(error) => vec![check("served folder", CheckStatus::Bad, format!("{shown}: {error}"))],
        Ok(there) if !there.is_dir() => vec![check("served folder", CheckStatus::Bad, format!("{shown} is no folder"))],
        Ok(there) => {
            let mut findings = vec![check_root_access(&root), check_birth_times(&there)];
            findings.extend(store.and_then(|store| check_tree_marker(&root, store)));
            findings.extend(check_staging(&root));
            findings.extend(Tree::supports_flock(&root).map(report_locks));
            findings
        }
    }
}

fn check_root_access(root: &PathBuf) -> DoctorCheck {
    use rustix::fs::Access;
    let shown = root.display();
    let may = |access| rustix::fs::access(root, access).is_ok();
    if !may(Access::READ_OK | Access::EXEC_OK) {
        return check("served folder", CheckStatus::Bad, format!("{shown} can't be read by this user"));
    }
    if !may(Access::WRITE_OK) {
        return check(
            "served folder",
            CheckStatus::Odd,
            format!("{shown} can't be written to by this user: uploads fail"),
        );
    }
    check("served folder", CheckStatus::Good, format!("{shown} can be read and written to"))
}

/// Looks whether it is the folder that grants and scopes were made for.
fn check_tree_marker(root: &Path, store: &Store) -> Option<DoctorCheck> {
    let what = "tree";
    match Tree::verify_root(root, store) {
        Ok(()) => Some(check(what, CheckStatus::Good, "it is the folder that grants and scopes were made for")),
        Err(error @ tree::Error::TreeMismatch) => {
            Some(check(what, CheckStatus::Bad, format!("{error}; {OTHER_TREE_HINT}")))
        }
        // Told of by the folder's other findings.
        Err(_) => None,
    }
}

fn check_staging(root: &Path) -> Option<DoctorCheck> {
    let fault = Tree::reserved_directory_fault(root)?;
    Some(check("staging", CheckStatus::Bad, format!("{} {fault}", root.join(".patgate").display())))
}

fn report_locks(work: bool) -> DoctorCheck {
    match work {
        true => check("locks", CheckStatus::Good, "they work on its file system: a second server on it is refused"),
        false => check(
            "locks",
            CheckStatus::Odd,
            "they don't work on its file system: a second server on the folder is not noticed, so start none; what a \
             killed server leaves in .patgate stays there",
        ),
    }
}

fn check_birth_times(root: &fs::Metadata) -> DoctorCheck {
    match root.created() {
        Ok(_) => check(
            "birth times",
            CheckStatus::Good,
            "the file system keeps them: a folder swapped behind patgate's back is noticed",
        ),
        Err(_) => check(
            "birth times",
            CheckStatus::Odd,
            "the file system has none: folders are recognised by inode and path, so one swapped behind patgate's back \
             may pass for the one before",
        ),
    }
}

/// Looks whether the kernel keeps paths beneath a folder (`openat2`, Linux 5.6).
fn check_openat2() -> DoctorCheck {
    let opened = rustix::fs::openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
    match opened {
        Ok(_) => check("kernel", CheckStatus::Good, "openat2 works"),
        Err(error) => {
            let text =
                format!("openat2 fails ({error}): Linux 5.6 or later is needed, and a sandbox must allow the call");
            check("kernel", CheckStatus::Bad, text)
        }
    }
}

/// Looks whether as many files may be open as the configured connections take.
fn check_open_file_limit(doors: &ListenConfig) -> DoctorCheck {
    let allowed = rlimit::hard_open_file_limit();
    match (rlimit::limit_warning(allowed, doors), allowed) {
        (Some(shortage), _) => check("open files", CheckStatus::Odd, shortage),
        (None, Some(allowed)) => check("open files", CheckStatus::Good, format!("{allowed} are allowed from here")),
        (None, None) => check("open files", CheckStatus::Good, "any number is allowed from here"),
    }
}

fn check_clock(now: UnixMillis, memory: Option<&ClockCheckpoint>) -> DoctorCheck {
    if now.as_millis() < EARLIEST_PLAUSIBLE_MILLIS {
        return check("clock", CheckStatus::Bad, format!("it shows {now}: tokens would live too long; set it"));
    }
    let hours = |millis: u64| millis.div_ceil(3_600_000);
    let Some(memory) = memory else { return check("clock", CheckStatus::Good, format!("it shows {now}")) };
    if let Some(last) = memory.jumps.last() {
        let way = if last.by_ms < 0 { "back" } else { "forward" };
        let text = format!(
            "it shows {now} and went {way} by {} h: if that is wrong, set it; nothing is deleted by age for {} h of \
             running time",
            hours(last.by_ms.unsigned_abs()),
            hours(last.left_ms)
        );
        return check("clock", CheckStatus::Odd, text);
    }
    if now.saturating_add(CLOCK_TOLERANCE) < memory.wall_time {
        let text = format!("it shows {now}, and the server saw it show {} already: set it", memory.wall_time);
        return check("clock", CheckStatus::Odd, text);
    }
    check("clock", CheckStatus::Good, format!("it shows {now}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_open_to_others_fails() {
        let folder = tempfile::tempdir().expect("folder");
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("mode");
        set(0o755);
        assert_eq!(check_state_directory(folder.path()).verdict, CheckStatus::Bad);
        set(0o700);
        assert_eq!(check_state_directory(folder.path()).verdict, CheckStatus::Good);
        assert_eq!(check_state_directory(&folder.path().join("none")).verdict, CheckStatus::Odd);
    }

    #[test]
    fn clock_before_2026_fails() {
        assert_eq!(check_clock(UnixMillis::from_millis(0), None).verdict, CheckStatus::Bad);
        assert_eq!(check_clock(UnixMillis::from_millis(EARLIEST_PLAUSIBLE_MILLIS), None).verdict, CheckStatus::Good);
    }
}
