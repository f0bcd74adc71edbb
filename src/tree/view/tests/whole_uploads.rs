//! Tests of uploads in one step: the system calls that one takes, and what its commit checks again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::domain::Permission;
use crate::store::testing::login;
use crate::tree::fs::fault_injection::{SyscallCounts, set_slot_recheck_grace, take_syscall_counts};
use crate::tree::{CommitDurability, LockRequest, Tree, TreeOptions};

const RW: Permission = Permission::RW;

/// Serves a tree with durability `full`, in which alice may write everywhere.
fn synced_fixture() -> (TreeFixture, Tree, View) {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/", RW)]);
    let session = fixture.view("alice").session().clone();
    let options = TreeOptions { root: fixture.root_path.clone(), durability: CommitDurability::Full };
    let tree = Tree::attach(options, fixture.store.clone(), fixture.clock.clone()).expect("beside");
    let view = tree.view(session);
    // Opens staging, which is done once.
    upload_whole(&view, "/box/first", &NO_CONDITIONS).expect("put");
    (fixture, tree, view)
}

fn upload_whole(view: &View, path: &str, conditions: &WriteConditions<'_>) -> Result<()> {
    view.upload_whole(&tree_path(path), &["new ", "text"], conditions).map(drop)
}

fn counts_of_upload(view: &View, path: &str, grace: Duration) -> SyscallCounts {
    set_slot_recheck_grace(grace);
    take_syscall_counts();
    view.upload_whole(&tree_path(path), &["text"], &NO_CONDITIONS).expect("put");
    take_syscall_counts()
}

#[test]
fn small_upload_takes_few_system_calls() {
    let (_fixture, _tree, view) = synced_fixture();
    // Opens: the directory, the staged file. Metadata: directory, entry, free space, staged file, entry under the lock.
    let fast = SyscallCounts { opens: 2, stats: 5, writes: 1, attribute_changes: 1, name_changes: 1, syncs: 2 };
    assert_eq!(counts_of_upload(&view, "/box/new", Duration::MAX), fast);
    assert_eq!(counts_of_upload(&view, "/box/new", Duration::MAX), fast, "over an existing file");
    // After a wait for a disk, directory and entry are looked up once more.
    let slow = SyscallCounts { opens: 3, stats: 7, ..fast };
    assert_eq!(counts_of_upload(&view, "/box/new", Duration::ZERO), slow);
}

/// Uploads to `/box/new`, and runs a change once all was checked for the first time.
fn upload_with_change(view: &View, change: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    let is_changed = AtomicBool::new(false);
    let change_once = || if is_changed.swap(true, Ordering::Relaxed) { Ok(()) } else { change() };
    upload_whole(view, "/box/new", &WriteConditions { lock_tokens: &[], evaluate: &change_once })
}

#[test]
fn small_upload_is_refused_once_its_directory_was_renamed() {
    let (fixture, _tree, view) = synced_fixture();
    set_slot_recheck_grace(Duration::ZERO);
    let (from, to) = (host_path(&fixture, "/box"), host_path(&fixture, "/other"));
    let rename = || {
        fs::rename(&from, &to).expect("renamed");
        Ok(())
    };
    assert_eq!(outcome_name(upload_with_change(&view, &rename)), "no parent");
    assert!(!to.join("new").exists());
    assert_staging_empty(&fixture);
}

#[test]
fn small_upload_is_refused_once_its_grant_was_revoked() {
    for grace in [Duration::ZERO, Duration::MAX] {
        let (fixture, _tree, view) = synced_fixture();
        set_slot_recheck_grace(grace);
        let root = fixture.tree.assign_node_id(&tree_path("/")).expect("node");
        let store = &fixture.store;
        let revoke = || {
            store.revoke_grant(&login("alice"), root).expect("revoked");
            Ok(())
        };
        // The one by the write, the other by the commit: which of them comes first is a matter of time.
        let outcome = outcome_name(upload_with_change(&view, &revoke));
        assert!(matches!(outcome, "ended" | "forbidden" | "no parent"), "{outcome}");
        assert!(!host_path(&fixture, "/box/new").exists());
        assert_staging_empty(&fixture);
    }
}

#[test]
fn small_upload_is_refused_once_its_directory_was_locked() {
    for grace in [Duration::ZERO, Duration::MAX] {
        let (fixture, _tree, view) = synced_fixture();
        set_slot_recheck_grace(grace);
        let timeout = Duration::from_secs(60);
        let request = LockRequest { exclusive: true, depth_infinity: true, owner: String::new(), timeout };
        let lock = || view.lock(&tree_path("/box"), &request, &NO_CONDITIONS).map(drop);
        assert_eq!(outcome_name(upload_with_change(&view, &lock)), "locked");
        assert!(!host_path(&fixture, "/box/new").exists());
        assert_staging_empty(&fixture);
    }
}

#[test]
fn small_upload_over_private_file_is_private() {
    let (fixture, _tree, view) = synced_fixture();
    let file = host_path(&fixture, "/box/first");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("made private");
    upload_whole(&view, "/box/first", &NO_CONDITIONS).expect("put");
    assert_eq!(fs::metadata(&file).expect("stat").permissions().mode() & 0o7777, 0o600);
    assert_eq!(get(&view, "/box/first").expect("read"), "new text");
}

#[test]
fn blocks_are_written_in_order_whether_or_not_the_file_system_takes_them_at_once() {
    let (_fixture, _tree, view) = synced_fixture();
    let blocks = [vec![1; 100_000], vec![2; 100_000], vec![3; 1]];
    let upload = view.stage(&tree_path("/box/new"), None, &NO_CONDITIONS).expect("staged");
    // All of it in memory; nothing, or a part, on a disk.
    let written = upload.write_cached_at(&blocks, 0).expect("written");
    let content = blocks.concat();
    upload.write_at(&content[written..], written as u64).expect("written");
    upload.commit(&NO_CONDITIONS).expect("committed");
    let mut read = vec![0; content.len() + 1];
    assert_eq!(view.read(&tree_path("/box/new")).expect("opened").read_at(&mut read, 0).expect("read"), content.len());
    assert!(read.starts_with(&content));
}
