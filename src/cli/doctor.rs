//! `patgate doctor`: checks state directory, served directory and system.

mod access_checks;
mod check;
mod file_system_checks;
mod folder_checks;
mod health;
mod network_checks;
mod notice_checks;
mod state_checks;
mod system_checks;

use clap::Args;

use super::context::CommandContext;
use super::open_state::has_state;
use super::{CommandError, Result, output};
use crate::auth::Clock;
use crate::config::{Config, ListenConfig, LocalConfig};
use crate::domain::UnixMillis;
use crate::store::Store;

use access_checks::check_audit_trail;
use check::CheckStatus;
pub(super) use check::DoctorCheck;
use file_system_checks::check_state_file_system;
use folder_checks::check_served_directory;
use network_checks::{check_acme_certificate, check_certificate, check_key_mode, check_proxies};
use notice_checks::check_notices;
use state_checks::{
    check_database, check_host_keys, check_pepper, check_secret_modes, check_state_directory, check_state_disk,
};
use system_checks::{check_clock, check_open_file_limit, check_openat2, check_sandbox, check_versions};

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
    let now = Clock::system().now();
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
    checks.extend(unnoticed_faults(&local, &listen_config, store.as_ref(), now));
    checks.extend(listen_config.tls.as_ref().map(check_certificate));
    checks.extend(listen_config.acme.then(|| check_acme_certificate(&local.state)));
    checks.extend(store.as_ref().map(check_notices).unwrap_or_default());
    checks.push(check_openat2());
    checks.push(check_sandbox(&local, &listen_config, store.as_ref()));
    checks.push(check_open_file_limit(&listen_config));
    let checkpoint = store.as_ref().and_then(|store| store.clock_checkpoint().ok().flatten());
    checks.push(check_clock(now, checkpoint.as_ref()));
    checks.push(check_versions());
    Ok(checks)
}

/// Runs the checks of what a server does not notice by itself.
fn unnoticed_faults(
    local: &LocalConfig,
    listen_config: &ListenConfig,
    store: Option<&Store>,
    now: UnixMillis,
) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    checks.extend(check_state_file_system(&local.state));
    checks.extend(check_secret_modes(&local.state));
    checks.extend(store.map(check_audit_trail));
    checks.extend(check_served_directory(store, local, now));
    checks.extend(listen_config.tls.as_ref().and_then(check_key_mode));
    checks.extend(check_proxies(listen_config, &local.state));
    checks
}

/// Logs what a starting server does not notice by itself. It reads the audit trail, and an entry of the served folder for
/// each grant and scope.
pub(super) fn warn_at_start(config: &Config, store: &Store) {
    let checks = unnoticed_faults(&config.local_config(), &config.listen_config(), Some(store), Clock::system().now());
    for DoctorCheck { name, detail, .. } in checks.iter().filter(|check| check.status != CheckStatus::Ok) {
        tracing::warn!("{name}: {detail}");
    }
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
