//! A store whose process is killed in the middle of a revocation, on a disk that is full: the token is revoked or it is
//! not, and once revoked it stays so.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::testing::{fill_disk, id, kill_after, login, new_token, now};
use super::{AuditContext, EventCursor, EventFilter, Store};
use crate::domain::{Actor, EventKind, TokenExpiry};

/// Tells the child after how many points it is killed, and in which directory.
const ORDER: &str = "PATGATE_TEST_STORE_ORDER";
/// Commits that find the disk full before there is room.
const FULL_COMMITS: u32 = 3;
const TOKEN: &str = "JhxND7ci";

/// Opens a store whose changes are noted in the audit trail.
fn opened(state: &Path) -> Store {
    let author = AuditContext { actor: Actor::Administrator, peer: None, at: now() };
    Store::open(state).expect("opens").with_audit_context(author)
}

/// What the child does; nothing in a run of the tests.
#[test]
fn in_a_process_of_its_own() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (points, state) = order.split_once(':').expect("an order");
    let store = opened(Path::new(state));
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token(TOKEN, "alice", TokenExpiry::Never)).expect("token");
    assert!(store.restore_ballast().expect("made"));
    fill_disk(FULL_COMMITS);
    kill_after(points.parse().expect("a number"));
    store.revoke_tokens(&[id(TOKEN)], now()).expect("revoked");
}

/// Revokes a token in a process that is killed after so many points; tells whether it came to the end.
fn revoke(points: u32, state: &Path) -> bool {
    let child = "store::killed::in_a_process_of_its_own";
    let order = format!("{points}:{}", state.display());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let status = command.args(["--exact", child]).env(ORDER, order).stdout(Stdio::null()).status().expect("run");
    assert!(status.success() || status.signal() == Some(9), "{status}");
    status.success()
}

fn is_revoked(store: &Store) -> bool {
    store.token(id(TOKEN), now()).expect("read").expect("there").revoked_at.is_some()
}

fn told(store: &Store) -> usize {
    let filter = EventFilter { kind: Some(EventKind::TokenRevoked), ..EventFilter::default() };
    store.audit_events(&filter, EventCursor::After(0), 10).expect("read").len()
}

#[test]
fn revocation_that_a_kill_cut_off_while_it_used_the_ballast_is_whole_or_undone() {
    let mut seen = Vec::new();
    for points in 0.. {
        let folder = tempfile::tempdir().expect("folder");
        let ended = revoke(points, folder.path());
        let store = opened(folder.path());
        let revoked = is_revoked(&store);
        assert_eq!(told(&store), usize::from(revoked), "killed at point {points}");
        // A part of the ballast may be gone: nothing but a revocation can do without it, and that can.
        store.revoke_tokens(&[id(TOKEN)], now()).expect("again");
        assert!(is_revoked(&store) && told(&store) == 1, "killed at point {points}");
        assert!(store.restore_ballast().expect("whole again") && store.disk_fault().is_none(), "{points}");
        assert!(revoked || !ended);
        seen.push(revoked);
        if ended {
            break;
        }
    }
    // Killed at each release of the ballast, before the commit, and behind it.
    assert!(
        seen.is_sorted() && seen.iter().filter(|revoked| !**revoked).count() > 2 * FULL_COMMITS as usize,
        "{seen:?}"
    );
    assert!(seen.iter().filter(|revoked| **revoked).count() > 1, "{seen:?}");
}
