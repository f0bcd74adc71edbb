//! `patgate doctor`: checks state directory, served directory and system.

mod health;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::Serialize;

use super::context::CommandContext;
use super::error::{BROKEN_HOST_KEY_HINT, OTHER_TREE_HINT};
use super::open_state::has_state;
use super::sandbox::{self, SandboxFiles, SandboxPaths};
use super::{CommandError, Result, output, rlimit};
use crate::auth::{Clock, SecretHasher};
use crate::config::{ListenConfig, LocalConfig, SandboxSetting, TlsFiles};
use crate::domain::UnixMillis;
use crate::net;
use crate::sftp::HostKeys;
use crate::store::{ClockCheckpoint, DiskFault, Store, StoreError};
use crate::tree::{self, Tree};

/// 2026-01-01 in milliseconds since 1970; a clock that shows less is wrong.
const EARLIEST_PLAUSIBLE_MILLIS: i64 = 1_767_225_600_000;
/// Time that a clock may lie behind the last one that the server saw without a warning.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// Days before its end below which a certificate is warned of.
const EXPIRY_WARNING_DAYS: u64 = 14;

/// Check state directory, served folder and system
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate doctor
  patgate doctor --health
  patgate doctor --health http://127.0.0.1:8080/healthz
  patgate doctor --health https://files.example.org:8443/healthz")]
pub(super) struct DoctorCommand {
    /// Check whether a running server answers, by default at /healthz of its configured address
    #[arg(long, value_name = "URL")]
    health: Option<Option<String>>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Ok,
    Warning,
    Fail,
}

/// A check and its result.
#[derive(Debug, Serialize)]
pub(super) struct DoctorCheck {
    #[serde(rename = "what")]
    name: &'static str,
    #[serde(rename = "verdict")]
    status: CheckStatus,
    #[serde(rename = "text")]
    detail: String,
}

impl DoctorCommand {
    /// Runs all checks, and fails if one of them fails.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        if let Some(url) = &self.health {
            return health::check_health(context, url.as_deref());
        }
        let checks = run_checks(context)?;
        print_checks(context, &checks)?;
        match checks.iter().filter(|check| check.status == CheckStatus::Fail).count() {
            0 => Ok(()),
            failed => Err(CommandError::new(format!("{failed} of {} checks failed", checks.len()))
                .with_hint("the checks marked fail above say what to do")),
        }
    }
}

/// Runs all checks of state directory, served directory and system.
pub(super) fn run_checks(context: &CommandContext) -> Result<Vec<DoctorCheck>> {
    let (local, listen_config) = (context.local_config()?, ListenConfig::load(&context.config_sources(Vec::new()))?);
    // The order is that of dependence: a later check is skipped if an earlier one shows that it can't succeed.
    let mut checks = vec![check_state_directory(&local.state)];
    // Opening the state directory of another user, or one that others may write to, would change it.
    let is_safe_to_open = checks.iter().all(|check| check.status != CheckStatus::Fail);
    let state_exists = is_safe_to_open && has_state(&local.state);
    // A check must not migrate the database.
    let store = state_exists.then(|| Store::open_for_diagnosis(&local.state));
    checks.extend(is_safe_to_open.then(|| check_database(store.as_ref())));
    let store = store.and_then(std::result::Result::ok);
    checks.extend(store.as_ref().map(check_pepper));
    checks.extend(store.as_ref().map(check_state_disk));
    checks.extend(is_safe_to_open.then(|| check_host_keys(&local.state)));
    checks.extend(check_secret_modes(&local.state));
    checks.extend(check_served_directory(store.as_ref(), &local));
    checks.extend(listen_config.tls.as_ref().map(check_certificate));
    checks.extend(listen_config.acme.then(|| check_acme_certificate(&local.state)));
    checks.push(check_openat2());
    checks.push(check_sandbox(&local, &listen_config, store.as_ref()));
    checks.push(check_open_file_limit(&listen_config));
    let checkpoint = store.as_ref().and_then(|store| store.clock_checkpoint().ok().flatten());
    checks.push(check_clock(Clock::system().now(), checkpoint.as_ref()));
    Ok(checks)
}

/// Prints the results of checks.
pub(super) fn print_checks(context: &CommandContext, checks: &[DoctorCheck]) -> Result {
    if context.prints_json() {
        return output::print_json(&checks);
    }
    let label = |status| match status {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Fail => "fail",
    };
    let rows: Vec<_> =
        checks.iter().map(|f| [f.name.to_owned(), label(f.status).to_owned(), f.detail.clone()]).collect();
    output::print_table(["CHECK", "STATUS", "DETAIL"], &rows)
}

fn check(name: &'static str, status: CheckStatus, detail: impl Into<String>) -> DoctorCheck {
    DoctorCheck { name, status, detail: detail.into() }
}

fn check_state_directory(state: &Path) -> DoctorCheck {
    let display_path = state.display();
    let name = "state directory";
    match fs::metadata(state) {
        Err(error) => check(
            name,
            CheckStatus::Warning,
            format!("{display_path}: {error}; the first start of the server creates it"),
        ),
        Ok(metadata) if !metadata.is_dir() => {
            check(name, CheckStatus::Fail, format!("{display_path} is not a directory"))
        }
        Ok(metadata) => {
            let (mode, owner_uid, euid) =
                (metadata.permissions().mode() & 0o777, metadata.uid(), rustix::process::geteuid().as_raw());
            if owner_uid != euid {
                let detail =
                    format!("{display_path} belongs to the user id {owner_uid}: run the server and this as that user");
                check(name, CheckStatus::Fail, detail)
            } else if mode & 0o077 != 0 {
                check(name, CheckStatus::Fail, format!("{display_path} has mode {mode:03o}: chmod 700 it"))
            } else {
                check(name, CheckStatus::Ok, format!("{display_path} is accessible to its owner only"))
            }
        }
    }
}

fn check_database(store: Option<&crate::store::Result<Store>>) -> DoctorCheck {
    match store {
        None => check("database", CheckStatus::Warning, "there is none yet; the first start of the server creates it"),
        Some(Ok(store)) => match store.users(None, 1) {
            Ok(users) if users.is_empty() => check(
                "database",
                CheckStatus::Warning,
                "it opens and holds no user yet: patgate admin user create LOGIN",
            ),
            Ok(_) => check("database", CheckStatus::Ok, "it opens and is intact"),
            Err(error) => check("database", CheckStatus::Fail, error.to_string()),
        },
        Some(Err(error @ StoreError::SchemaTooOld { .. })) => {
            check("database", CheckStatus::Warning, error.to_string())
        }
        Some(Err(error)) => check("database", CheckStatus::Fail, error.to_string()),
    }
}

fn check_pepper(store: &Store) -> DoctorCheck {
    match SecretHasher::open(store) {
        Ok(_) => check("pepper", CheckStatus::Ok, "it exists; keep it in backups together with the database"),
        Err(error) => check("pepper", CheckStatus::Fail, error.to_string()),
    }
}

fn check_state_disk(store: &Store) -> DoctorCheck {
    let name = "state disk";
    match store.disk_fault() {
        None => check(
            name,
            CheckStatus::Ok,
            "it has free space, and a reserve that keeps revocations possible when it is full",
        ),
        // `admin user create` before the first start makes a state without the reserve, which is no reason to worry.
        Some(DiskFault::BallastMissing) if !store.has_been_served().unwrap_or(true) => {
            check(name, CheckStatus::Warning, "the first start of the server creates the reserve for a full disk")
        }
        Some(problem @ DiskFault::BallastMissing) => check(name, CheckStatus::Warning, problem.message()),
        Some(problem) => check(name, CheckStatus::Fail, problem.message()),
    }
}

fn check_host_keys(state: &Path) -> DoctorCheck {
    let name = "SSH host keys";
    match HostKeys::open_existing(state) {
        Ok(Some(_)) => {
            check(name, CheckStatus::Ok, "they exist; keep them in backups, clients identify the server by them")
        }
        Ok(None) => check(name, CheckStatus::Warning, "some are missing; the next start of the server creates them"),
        Err(error) => check(name, CheckStatus::Fail, format!("{error}; {BROKEN_HOST_KEY_HINT}")),
    }
}

/// Looks for secrets whose own modes let other users read them, should the state directory be opened to them.
fn check_secret_modes(state: &Path) -> Option<DoctorCheck> {
    let is_secret_file = |name: &str| name == "pepper" || name.starts_with("ssh_host_");
    let readable_secret = |entry: fs::DirEntry| {
        let (name, mode) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?.mode());
        (is_secret_file(&name) && mode & 0o077 != 0).then_some(name)
    };
    let mut names: Vec<_> = fs::read_dir(state).ok()?.flatten().filter_map(readable_secret).collect();
    names.sort();
    let detail = format!("other users may read {}: chmod 600 them", names.join(", "));
    (!names.is_empty()).then(|| check("secrets", CheckStatus::Fail, detail))
}

fn check_certificate(files: &TlsFiles) -> DoctorCheck {
    let problem = net::server_config(&files.certificate, &files.key, &[]);
    let display_path = files.certificate.display();
    match problem.and_then(|_| net::check_certificate(&files.certificate)) {
        Ok(None) => {
            let (status, expiry) = describe_expiry(&files.certificate);
            check("certificate", status, format!("{display_path} and its key can be used{expiry}"))
        }
        Ok(Some(problem)) => {
            let detail = format!("{display_path}: {problem}: clients refuse it; set tls_cert to another one");
            check("certificate", CheckStatus::Fail, detail)
        }
        Err(error) => check("certificate", CheckStatus::Fail, error.to_string()),
    }
}

/// Describes for how long a certificate is valid.
fn describe_expiry(certificate: &Path) -> (CheckStatus, String) {
    let Ok(Some(validity)) = net::certificate_validity(certificate) else { return (CheckStatus::Ok, String::new()) };
    let days = validity.days_left(SystemTime::now());
    let status = if days < EXPIRY_WARNING_DAYS { CheckStatus::Warning } else { CheckStatus::Ok };
    (status, format!(", for {days} more days"))
}

fn check_acme_certificate(state: &Path) -> DoctorCheck {
    let file = state.join("acme/certificate.pem");
    if !file.exists() {
        let detail = "the certificate authority has issued none yet: the log of the server says why";
        return check("certificate", CheckStatus::Warning, detail);
    }
    check_certificate(&TlsFiles { certificate: file.clone(), key: file })
}

fn check_served_directory(store: Option<&Store>, local: &LocalConfig) -> Vec<DoctorCheck> {
    // As for `node` and `admin`: the directory of the last `serve` comes before the configured one.
    let stored = store.and_then(|store| store.served_root().ok().flatten());
    let Some(root) = stored.or_else(|| local.root.clone()) else {
        return vec![check("served folder", CheckStatus::Warning, "none yet: patgate serve --root DIR sets it")];
    };
    let display_path = root.display();
    match fs::metadata(&root) {
        Err(error) => vec![check("served folder", CheckStatus::Fail, format!("{display_path}: {error}"))],
        Ok(metadata) if !metadata.is_dir() => {
            vec![check("served folder", CheckStatus::Fail, format!("{display_path} is not a directory"))]
        }
        Ok(metadata) => {
            let mut checks = vec![check_root_access(&root), check_birth_times(&metadata)];
            checks.extend(store.and_then(|store| check_tree_marker(&root, store)));
            checks.extend(check_staging(&root));
            checks.extend(Tree::supports_flock(&root).map(report_locks));
            checks
        }
    }
}

fn check_root_access(root: &PathBuf) -> DoctorCheck {
    use rustix::fs::Access;
    let display_path = root.display();
    let can_access = |access| rustix::fs::access(root, access).is_ok();
    if !can_access(Access::READ_OK | Access::EXEC_OK) {
        return check("served folder", CheckStatus::Fail, format!("this user can't read {display_path}"));
    }
    if !can_access(Access::WRITE_OK) {
        return check(
            "served folder",
            CheckStatus::Warning,
            format!("this user can't write to {display_path}: uploads fail"),
        );
    }
    check("served folder", CheckStatus::Ok, format!("this user can read and write {display_path}"))
}

/// Checks whether the served directory is the one that grants and scopes were created for.
fn check_tree_marker(root: &Path, store: &Store) -> Option<DoctorCheck> {
    let name = "tree";
    match Tree::verify_root(root, store) {
        Ok(()) => Some(check(name, CheckStatus::Ok, "it is the folder that grants and scopes were created for")),
        Err(error @ tree::Error::TreeMismatch) => {
            Some(check(name, CheckStatus::Fail, format!("{error}; {OTHER_TREE_HINT}")))
        }
        // Other checks of the served directory report this.
        Err(_) => None,
    }
}

fn check_staging(root: &Path) -> Option<DoctorCheck> {
    let problem = Tree::reserved_directory_fault(root)?;
    Some(check("staging", CheckStatus::Fail, format!("{} {problem}", root.join(".patgate").display())))
}

fn report_locks(supported: bool) -> DoctorCheck {
    match supported {
        true => {
            check("locks", CheckStatus::Ok, "they work on the file system: a second server on the folder is refused")
        }
        false => check(
            "locks",
            CheckStatus::Warning,
            "they don't work on the file system: a second server on the folder is not detected, so don't start one; \
             files of a killed server stay in .patgate",
        ),
    }
}

fn check_birth_times(root: &fs::Metadata) -> DoctorCheck {
    match root.created() {
        Ok(_) => check(
            "birth times",
            CheckStatus::Ok,
            "the file system records them: a directory that was replaced behind patgate's back is detected",
        ),
        Err(_) => check(
            "birth times",
            CheckStatus::Warning,
            "the file system records none: directories are identified by inode and path, so one that was replaced \
             behind patgate's back may not be detected",
        ),
    }
}

/// Checks whether the kernel supports `openat2` with `RESOLVE_BENEATH` (Linux 5.6).
fn check_openat2() -> DoctorCheck {
    let opened = rustix::fs::openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
    match opened {
        Ok(_) => check("kernel", CheckStatus::Ok, "openat2 works"),
        Err(error) => {
            let detail = format!(
                "openat2 fails ({error}): Linux 5.6 or later is required, and a sandbox must allow the system call"
            );
            check("kernel", CheckStatus::Fail, detail)
        }
    }
}

/// Checks whether a server started from here would be confined, and why not.
fn check_sandbox(local: &LocalConfig, listen_config: &ListenConfig, store: Option<&Store>) -> DoctorCheck {
    let name = "sandbox";
    if local.sandbox == SandboxSetting::Off {
        return check(name, CheckStatus::Warning, "sandbox = \"off\": the server can read whatever its user can");
    }
    let stored = store.and_then(|store| store.served_root().ok().flatten());
    let root = local.root.clone().or(stored).unwrap_or_else(|| local.state.clone());
    let files = SandboxFiles {
        root: &root,
        state: &local.state,
        config_file: None,
        tls: listen_config.tls.as_ref(),
        logs: Vec::new(),
        resolves_names: listen_config.acme,
        acme_ca: None,
    };
    match sandbox::check_support().and_then(|()| SandboxPaths::new(files, local.sandbox)) {
        Ok(_) => check(name, CheckStatus::Ok, "the server reaches its own files alone (Landlock)"),
        Err(error) => check(name, CheckStatus::Warning, format!("the server would not be confined: {error}")),
    }
}

/// Checks whether the limit on open files suffices for the configured connections.
fn check_open_file_limit(listen_config: &ListenConfig) -> DoctorCheck {
    let allowed = rlimit::hard_open_file_limit();
    match (rlimit::limit_warning(allowed, listen_config), allowed) {
        (Some(shortage), _) => check("open files", CheckStatus::Warning, shortage),
        (None, Some(allowed)) => check("open files", CheckStatus::Ok, format!("the limit is {allowed}")),
        (None, None) => check("open files", CheckStatus::Ok, "there is no limit"),
    }
}

fn check_clock(now: UnixMillis, checkpoint: Option<&ClockCheckpoint>) -> DoctorCheck {
    if now.as_millis() < EARLIEST_PLAUSIBLE_MILLIS {
        return check("clock", CheckStatus::Fail, format!("it shows {now}: tokens would expire too late; set it"));
    }
    let hours = |millis: u64| millis.div_ceil(3_600_000);
    let Some(checkpoint) = checkpoint else { return check("clock", CheckStatus::Ok, format!("it shows {now}")) };
    if let Some(last_jump) = checkpoint.jumps.last() {
        let direction = if last_jump.by_ms < 0 { "back" } else { "forward" };
        let detail = format!(
            "it shows {now} and jumped {direction} by {} h: if that is wrong, set it; nothing is deleted by age for {} h of \
             running time",
            hours(last_jump.by_ms.unsigned_abs()),
            hours(last_jump.left_ms)
        );
        return check("clock", CheckStatus::Warning, detail);
    }
    if now.saturating_add(CLOCK_TOLERANCE) < checkpoint.wall_time {
        let detail = format!("it shows {now}, but the server has seen it at {}: set it", checkpoint.wall_time);
        return check("clock", CheckStatus::Warning, detail);
    }
    check("clock", CheckStatus::Ok, format!("it shows {now}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_open_to_others_fails() {
        let folder = tempfile::tempdir().expect("folder");
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("mode");
        set(0o755);
        assert_eq!(check_state_directory(folder.path()).status, CheckStatus::Fail);
        set(0o700);
        assert_eq!(check_state_directory(folder.path()).status, CheckStatus::Ok);
        assert_eq!(check_state_directory(&folder.path().join("none")).status, CheckStatus::Warning);
    }

    #[test]
    fn clock_before_2026_fails() {
        assert_eq!(check_clock(UnixMillis::from_millis(0), None).status, CheckStatus::Fail);
        assert_eq!(check_clock(UnixMillis::from_millis(EARLIEST_PLAUSIBLE_MILLIS), None).status, CheckStatus::Ok);
    }
}
