//! Tests of a process that is killed during a revocation on a full disk: the token is revoked or it is not, and once
//! revoked it stays so.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::testing::{fill_disk, id, kill_after, login, new_token, now};
use super::{AuditContext, EventCursor, EventFilter, Store};
use crate::domain::{Actor, EventKind, TokenExpiry};

/// Environment variable that gives the child its number of crash points and its state directory.
const ORDER_VARIABLE: &str = "PATGATE_TEST_STORE_ORDER";
/// Number of commits that find the disk full before there is space.
const FULL_COMMITS: u32 = 3;
const TOKEN: &str = "JhxND7ci";

/// Opens a store whose changes are recorded in the audit trail.
fn open_store(state_dir: &Path) -> Store {
    let context = AuditContext { actor: Actor::Administrator, peer: None, at: now() };
    Store::open(state_dir).expect("opens").with_audit_context(context)
}

/// Runs in the child process; does nothing in an ordinary run of the tests.
#[test]
fn child_process_revokes_token_until_killed() {
    let Ok(order) = std::env::var(ORDER_VARIABLE) else { return };
    let (crash_points, state_dir) = order.split_once(':').expect("an order");
    let store = open_store(Path::new(state_dir));
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token(TOKEN, "alice", TokenExpiry::Never)).expect("token");
    assert!(store.restore_ballast().expect("created"));
    fill_disk(FULL_COMMITS);
    kill_after(crash_points.parse().expect("a number"));
    store.revoke_tokens(&[id(TOKEN)], now()).expect("revoked");
}

/// Revokes a token in a process that is killed after a number of crash points; tells whether it completed.
fn revoke(crash_points: u32, state_dir: &Path) -> bool {
    let child = "store::crash_tests::child_process_revokes_token_until_killed";
    let order = format!("{crash_points}:{}", state_dir.display());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let status =
        command.args(["--exact", child]).env(ORDER_VARIABLE, order).stdout(Stdio::null()).status().expect("run");
    assert!(status.success() || status.signal() == Some(9), "{status}");
    status.success()
}

fn is_revoked(store: &Store) -> bool {
    store.token(id(TOKEN), now()).expect("read").expect("there").revoked_at.is_some()
}

fn count_revocation_events(store: &Store) -> usize {
    let filter = EventFilter { kind: Some(EventKind::TokenRevoked), ..EventFilter::default() };
    store.audit_events(&filter, EventCursor::After(0), 10).expect("read").len()
}

#[test]
fn killed_revocation_on_full_disk_is_complete_or_undone() {
    let mut outcomes = Vec::new();
    for crash_points in 0.. {
        let temp_dir = tempfile::tempdir().expect("directory");
        let completed = revoke(crash_points, temp_dir.path());
        let store = open_store(temp_dir.path());
        let revoked = is_revoked(&store);
        assert_eq!(count_revocation_events(&store), usize::from(revoked), "killed at point {crash_points}");
        // A part of the ballast may be gone: nothing but a revocation can do without it, and that can.
        store.revoke_tokens(&[id(TOKEN)], now()).expect("again");
        assert!(is_revoked(&store) && count_revocation_events(&store) == 1, "killed at point {crash_points}");
        assert!(store.restore_ballast().expect("whole again") && store.disk_fault().is_none(), "{crash_points}");
        assert!(revoked || !completed);
        outcomes.push(revoked);
        if completed {
            break;
        }
    }
    // Killed at each release of the ballast, before the commit, and behind it.
    assert!(
        outcomes.is_sorted() && outcomes.iter().filter(|revoked| !**revoked).count() > 2 * FULL_COMMITS as usize,
        "{outcomes:?}"
    );
    assert!(outcomes.iter().filter(|revoked| **revoked).count() > 1, "{outcomes:?}");
}
