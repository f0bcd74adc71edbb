//! Checks of what grants, scopes and mounted file systems refer to, and of the audit trail.

use std::path::Path;

use super::check::{CheckStatus, DoctorCheck, check};
use crate::domain::UnixMillis;
use crate::store::Store;
use crate::tree::{LostAccess, NodeMatch, Tree};

/// Maximum number of entries that a detail names.
const NAMED_ENTRIES: usize = 5;
/// Number of the last row up to which the audit trail is verified here; reading a row takes about 10 µs.
const VERIFIED_ROWS: u64 = 100_000;

/// Looks for file systems with nodes that are not mounted, and for grants and scopes that reach nothing.
pub(super) fn check_access(root: &Path, store: &Store, now: UnixMillis) -> Vec<DoctorCheck> {
    let mounts = match Tree::lost_mounts(root, store) {
        Ok(mounts) => mounts,
        // Other checks of the served directory report this.
        Err(_) => return Vec::new(),
    };
    let lost: Vec<_> = mounts.iter().map(|(path, outage)| format!("{path} ({outage})")).collect();
    let mut checks = Vec::new();
    if !lost.is_empty() {
        let detail = format!(
            "{}: mount it again; if the files are on another file system now, patgate node reattach",
            shorten(&lost)
        );
        checks.push(check("mounts", CheckStatus::Fail, detail));
    }
    match Tree::lost_access(root, store, now) {
        Ok(mut lost) => {
            // What is below a missing mount is there again with it.
            lost.retain(|lost| {
                let path = lost.reference.location.as_ref().map(|(path, _)| path);
                !path.is_some_and(|path| mounts.iter().any(|(mount, _)| path.starts_with(mount)))
            });
            checks.push(report_lost_access(&lost));
        }
        Err(error) => checks.push(check("grants", CheckStatus::Warning, format!("they can't be checked: {error}"))),
    }
    checks
}

fn report_lost_access(lost: &[LostAccess]) -> DoctorCheck {
    if lost.is_empty() {
        return check(
            "grants",
            CheckStatus::Ok,
            "each grant and each scope of a live token leads to its file or folder",
        );
    }
    let describe = |lost: &LostAccess| {
        let reference = &lost.reference;
        let holder = match &reference.token {
            Some(token) => format!("token {token} of {}", reference.login),
            None => reference.login.clone(),
        };
        match (&reference.location, lost.node_match) {
            (Some((path, _)), Some(NodeMatch::Different)) => format!("{holder}: {path} is another entry now"),
            (Some((path, _)), _) => format!("{holder}: nothing is at {path}"),
            (None, _) => format!("{holder}: node {} was removed", reference.node),
        }
    };
    let texts: Vec<_> = lost.iter().map(describe).collect();
    let detail = format!(
        "{}: they reach nothing; revoke them (admin user revoke-grant, apitoken edit), or after a restore bind them to \
         what is at their paths: patgate node reattach",
        shorten(&texts)
    );
    check("grants", CheckStatus::Warning, detail)
}

/// Verifies the hash chain of the audit trail, unless it is too long for that.
pub(super) fn check_audit_trail(store: &Store) -> DoctorCheck {
    let name = "audit trail";
    match store.audit_head() {
        Err(error) => return check(name, CheckStatus::Fail, error.to_string()),
        Ok(head) if head.number > VERIFIED_ROWS => {
            let detail = format!("it has {} rows, which only patgate audit verify reads", head.number);
            return check(name, CheckStatus::Ok, detail);
        }
        Ok(_) => {}
    }
    match store.verify_audit_chain(Vec::new()) {
        Err(error) => check(name, CheckStatus::Fail, error.to_string()),
        Ok(report) => match report.faults.first() {
            None => check(name, CheckStatus::Ok, format!("its chain of {} rows is unbroken", report.rows)),
            Some(fault) => {
                let detail = format!(
                    "it was tampered with: {}; patgate audit verify shows all, docs/audit.md what it means",
                    fault.text
                );
                check(name, CheckStatus::Fail, detail)
            }
        },
    }
}

/// Joins the first few texts.
fn shorten(texts: &[String]) -> String {
    let named = texts.iter().take(NAMED_ENTRIES).map(String::as_str).collect::<Vec<_>>().join("; ");
    match texts.len().checked_sub(NAMED_ENTRIES) {
        Some(more @ 1..) => format!("{named}; and {more} more"),
        Some(0) | None => named,
    }
}
