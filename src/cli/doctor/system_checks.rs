//! Checks of kernel, limits and clock.

use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::super::rlimit;
use super::super::sandbox::{self, SandboxFiles, SandboxPaths};
use super::check::{CheckStatus, DoctorCheck, check};
use crate::config::{ListenConfig, LocalConfig, SandboxSetting};
use crate::domain::UnixMillis;
use crate::store::{self, ClockCheckpoint, Store};

/// 2026-01-01 in milliseconds since 1970; a clock that shows less is wrong.
const EARLIEST_PLAUSIBLE_MILLIS: i64 = 1_767_225_600_000;
/// Time that a clock may lie behind the last one that the server saw without a warning.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// Reports the versions of the program and what it runs on.
pub(super) fn check_versions() -> DoctorCheck {
    let kernel = rustix::system::uname();
    let detail = format!(
        "patgate {}, SQLite {}, {} {}",
        env!("CARGO_PKG_VERSION"),
        store::sqlite_version(),
        kernel.sysname().to_string_lossy(),
        kernel.release().to_string_lossy()
    );
    check("versions", CheckStatus::Ok, detail)
}

/// Checks whether the kernel supports `openat2` with `RESOLVE_BENEATH` (Linux 5.6).
pub(super) fn check_openat2() -> DoctorCheck {
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
pub(super) fn check_sandbox(local: &LocalConfig, listen_config: &ListenConfig, store: Option<&Store>) -> DoctorCheck {
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
        notices: Vec::new(),
    };
    match sandbox::check_support().and_then(|()| SandboxPaths::new(files, local.sandbox)) {
        Ok(_) => check(name, CheckStatus::Ok, "the server reaches its own files alone (Landlock)"),
        Err(error) => check(name, CheckStatus::Warning, format!("the server would not be confined: {error}")),
    }
}

/// Checks whether the limit on open files suffices for the configured connections.
pub(super) fn check_open_file_limit(listen_config: &ListenConfig) -> DoctorCheck {
    let allowed = rlimit::hard_open_file_limit();
    match (rlimit::limit_warning(allowed, listen_config), allowed) {
        (Some(shortage), _) => check("open files", CheckStatus::Warning, shortage),
        (None, Some(allowed)) => check("open files", CheckStatus::Ok, format!("the limit is {allowed}")),
        (None, None) => check("open files", CheckStatus::Ok, "there is no limit"),
    }
}

pub(super) fn check_clock(now: UnixMillis, checkpoint: Option<&ClockCheckpoint>) -> DoctorCheck {
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
    fn clock_before_2026_fails() {
        assert_eq!(check_clock(UnixMillis::from_millis(0), None).status, CheckStatus::Fail);
        assert_eq!(check_clock(UnixMillis::from_millis(EARLIEST_PLAUSIBLE_MILLIS), None).status, CheckStatus::Ok);
    }
}
