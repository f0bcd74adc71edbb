//! Tests of crash safety: when the process is killed at any step, or the host refuses any step, a change and its node
//! ids are complete or undone after the next start.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::domain::{NodeId, Permission, TreeOperation};
use crate::tree::fs::fault_injection::{disable_exchange, fail_after, kill_after};
use crate::tree::{OpenRequest, OverwriteMode, SessionFiles};

/// Environment variable with the child's task: the change, its setup, the number of crash points to pass, and the
/// directory.
const CHILD_ORDER_VARIABLE: &str = "PATGATE_TEST_ORDER";

type TreeChange = fn(&View) -> Result<()>;

/// Request that opens a file to be replaced.
const REPLACE: OpenRequest = OpenRequest {
    read: false,
    write: true,
    append: false,
    create: true,
    truncate: true,
    exclusive: false,
    mode: None,
    size: None,
};

/// Changes that are one step on the host.
const SINGLE_STEP_CHANGES: [(&str, TreeChange); 14] = [
    ("a file over a file", |view| rename(view, "/one", "/two", OverwriteMode::Replace)),
    ("a file over a file as POSIX does it", |view| rename(view, "/one", "/two", OverwriteMode::Posix)),
    ("a directory to a new name", |view| rename(view, "/s", "/t/new", OverwriteMode::Refuse)),
    ("removal of a directory", |view| view.remove_all(&tree_path("/s"), &NO_CONDITIONS)),
    ("removal of a file", |view| view.remove_file(&tree_path("/one"), &NO_CONDITIONS)),
    ("a copy over a directory", |view| {
        view.copy(&tree_path("/s"), &tree_path("/t"), true, OverwriteMode::Replace, &NO_CONDITIONS).map(drop)
    }),
    ("a copy over a file", |view| {
        view.copy(&tree_path("/s"), &tree_path("/one"), true, OverwriteMode::Replace, &NO_CONDITIONS).map(drop)
    }),
    ("a link to another directory", |view| rename(view, "/s/b/l", "/t/l", OverwriteMode::Refuse)),
    ("a link over a file", |view| rename(view, "/s/b/l", "/t/old/f", OverwriteMode::Replace)),
    ("a directory of links to another directory", |view| rename(view, "/s/b", "/t/b", OverwriteMode::Refuse)),
    ("a new link", |view| view.symlink(b"../one", &tree_path("/s/new"), &NO_CONDITIONS)),
    ("an upload that is renamed before CLOSE", |view| {
        upload(view, "/one", |files| files.rename(&tree_path("/one"), &tree_path("/three"), OverwriteMode::Refuse))
    }),
    ("an upload of a new name that is renamed over another before CLOSE", |view| {
        upload(view, "/new", |files| files.rename(&tree_path("/new"), &tree_path("/two"), OverwriteMode::Posix))
    }),
    ("an upload that gets a second name before CLOSE", |view| {
        upload(view, "/one", |files| files.hard_link(&tree_path("/one"), &tree_path("/three")))
    }),
];

/// Changes that are several steps on the host.
const MULTI_STEP_CHANGES: [(&str, TreeChange); 7] = [
    ("a directory over a directory", |view| rename(view, "/s", "/t", OverwriteMode::Replace)),
    ("a file over a directory", |view| rename(view, "/one", "/t", OverwriteMode::Replace)),
    ("a directory over a file", |view| rename(view, "/s", "/one", OverwriteMode::Replace)),
    ("a directory over a directory across devices", |view| move_cross_device(view, "/s", "/t", OverwriteMode::Replace)),
    ("a directory to a new name across devices", |view| move_cross_device(view, "/s", "/t/new", OverwriteMode::Refuse)),
    ("a file over a file across devices", |view| move_cross_device(view, "/one", "/two", OverwriteMode::Posix)),
    ("a file over a directory across devices", |view| move_cross_device(view, "/one", "/t", OverwriteMode::Replace)),
];

/// Change that is refused, since a file is created in the directory meanwhile.
const CONCURRENT_CHANGE: (&str, TreeChange) =
    ("a directory across devices that changes", move_cross_device_with_late_file);

const NAMED_PATHS: [&str; 8] = ["/s", "/s/b", "/s/b/f", "/t", "/t/old", "/t/old/f", "/one", "/two"];

fn rename(view: &View, from: &str, to: &str, overwrite: OverwriteMode) -> Result<()> {
    view.rename(&tree_path(from), &tree_path(to), overwrite, &NO_CONDITIONS).map(drop)
}

/// Uploads a file over SFTP, and runs an operation that needs it in the tree before it is closed.
fn upload(view: &View, path: &str, operation: impl FnOnce(&SessionFiles) -> Result<()>) -> Result<()> {
    let files = SessionFiles::new(view.clone());
    let file = files.open(&tree_path(path), &REPLACE)?;
    file.write_at(b"uploaded", 0)?;
    operation(&files)?;
    file.close()
}

/// Moves an entry as to another file system.
fn move_cross_device(view: &View, from: &str, to: &str, overwrite: OverwriteMode) -> Result<()> {
    let (source, stat) = view.removal_slot(TreeOperation::Move, &tree_path(from))?;
    view.move_cross_device(&source, &stat, &view.create_slot(&tree_path(to))?, overwrite, &NO_CONDITIONS).map(drop)
}

/// Creates two directories with entries and two files, and writes down their node ids.
fn populated_fixture(directory: &Path, named: bool) -> TreeFixture {
    let fixture = TreeFixture::open_in(directory);
    for path in ["/s/b", "/t/old"] {
        fixture.tree.ensure_directory(&tree_path(path)).expect("created");
    }
    for path in ["/s/b/f", "/s/g", "/t/old/f", "/one", "/two"] {
        write_outside_gateway(&fixture, path, path);
    }
    // Its target is missing once the link is elsewhere.
    std::os::unix::fs::symlink("f", host_path(&fixture, "/s/b/l")).expect("created");
    fixture.create_user("alice", &[("/", Permission::RW)]);
    let named = NAMED_PATHS.iter().filter(|_| named);
    let ids = named.map(|path| format!("{path} {}\n", fixture.tree.assign_node_id(&tree_path(path)).expect("named")));
    fs::write(directory.join("ids"), ids.collect::<String>()).expect("written");
    storage_quotas::set_quota(&fixture, "alice", 1 << 40);
    wait_for_clock_tick(directory);
    fixture
}

/// Checks that what is counted for alice's quota are the bytes of the files.
fn assert_counted_exactly(fixture: &TreeFixture) {
    let (counted, on_host) =
        (storage_quotas::used(fixture, "alice"), storage_quotas::bytes_on_host(&fixture.root_path));
    assert_eq!(counted, on_host);
}

/// Waits for a tick of the host's clock, so that later changes have a later time.
fn wait_for_clock_tick(directory: &Path) {
    let now = || {
        fs::write(directory.join("tick"), "").expect("written");
        fs::metadata(directory.join("tick")).and_then(|tick| tick.modified()).expect("there")
    };
    let before = now();
    while now() == before {}
}

/// Entries in the served directory, and the present paths of nodes by their first ones.
#[derive(Debug, PartialEq)]
struct TreeSnapshot {
    entries: BTreeMap<String, Option<String>>,
    nodes: BTreeMap<String, Option<String>>,
}

/// Opens the tree again, and returns its state.
fn snapshot_after_restart(directory: &Path) -> TreeSnapshot {
    let fixture = TreeFixture::open_in(directory);
    fixture.tree.wait_for_background_deletes();
    assert_eq!(fixture.store.intents().expect("read"), [], "every change is concluded");
    // A kill leaves too much counted at most, until the count that each start asks for.
    let counted = storage_quotas::used(&fixture, "alice");
    assert!(counted >= storage_quotas::bytes_on_host(&fixture.root_path), "{counted}");
    storage_quotas::recount(&fixture);
    assert_counted_exactly(&fixture);
    let ids = fs::read_to_string(directory.join("ids")).expect("read");
    let nodes = ids.lines().filter_map(|line| line.split_once(' ')).map(|(path, id)| {
        let id: NodeId = id.parse().expect("an id");
        (path.to_owned(), fixture.tree.locate(id).expect("located").map(|path| path.to_string()))
    });
    let nodes = nodes.collect();
    let mut entries = BTreeMap::new();
    let mut pending = vec![fixture.root_path.clone()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&fixture.root_path).expect("below").display().to_string();
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            let content = match kind.is_symlink() {
                true => fs::read_link(&path).map(|text| Some(format!("-> {}", text.display()))).expect("read"),
                false => (!kind.is_dir()).then(|| fs::read_to_string(&path).expect("read")),
            };
            entries.insert(name, content);
            if kind.is_dir() {
                pending.push(path);
            }
        }
    }
    entries.remove(".patgate");
    entries.remove(".patgate/tree.id");
    TreeSnapshot { entries, nodes }
}

/// Setup of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ChangeSetup {
    /// No node has an id.
    Unnamed,
    /// All nodes have ids.
    Named,
    /// All nodes have ids, and the file system has no RENAME_EXCHANGE.
    Alone,
}

/// Runs a change in a process that is killed after some crash points; tells whether it completed.
fn run_change_in_child(change: &str, setup: ChangeSetup, points: u32, directory: &Path) -> bool {
    let child = "tree::view::tests::killed::child_process_applies_change_until_killed";
    let child_order = format!("{change}:{setup:?}:{points}:{}", directory.display());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let status = command
        .args(["--exact", child])
        .env(CHILD_ORDER_VARIABLE, child_order)
        .stdout(Stdio::null())
        .status()
        .expect("run");
    assert!(status.success() || status.signal() == Some(9), "{status}");
    status.success()
}

/// Entry of the child process; does nothing in a normal run of the tests.
#[test]
fn child_process_applies_change_until_killed() {
    let Ok(child_order) = std::env::var(CHILD_ORDER_VARIABLE) else { return };
    let words: Vec<&str> = child_order.splitn(4, ':').collect();
    let [change, setup, points, directory] = words[..] else { panic!("{child_order}") };
    let fixture = populated_fixture(Path::new(directory), setup != "Unnamed");
    let view = fixture.view("alice");
    let (_, run_change) = SINGLE_STEP_CHANGES
        .iter()
        .chain(&MULTI_STEP_CHANGES)
        .chain(&[CONCURRENT_CHANGE])
        .find(|(name, _)| *name == change)
        .expect(change);
    if setup == "Alone" {
        disable_exchange();
    }
    kill_after(points.parse().expect("a number"));
    let done = run_change(&view);
    assert!(done.is_ok() || change == CONCURRENT_CHANGE.0, "{done:?}");
}

/// Returns the state after a complete change, if any.
fn snapshot_after_change(change: Option<TreeChange>, named: bool) -> TreeSnapshot {
    let directory = tempfile::tempdir().expect("temporary directory");
    let fixture = populated_fixture(directory.path(), named);
    change.map_or(Ok(()), |change| change(&fixture.view("alice"))).expect("changed");
    fixture.tree.wait_for_background_deletes();
    assert_counted_exactly(&fixture);
    drop(fixture);
    snapshot_after_restart(directory.path())
}

fn check_atomic_under_kill((name, change): (&str, TreeChange), setup: ChangeSetup) {
    let named = setup != ChangeSetup::Unnamed;
    let (old, new) = (snapshot_after_change(None, named), snapshot_after_change(Some(change), named));
    let mut seen = Vec::new();
    for points in 0.. {
        let directory = tempfile::tempdir().expect("temporary directory");
        let completed = run_change_in_child(name, setup, points, directory.path());
        let state = snapshot_after_restart(directory.path());
        if completed {
            assert_eq!(state, new, "{name}");
            break;
        }
        assert!(state == old || state == new, "{name}, {setup:?}, killed at point {points}: {state:#?}");
        seen.push(state == new);
    }
    assert!(old != new && seen.first() == Some(&false) && seen.contains(&true), "{name}: {seen:?}");
}

#[test]
fn file_written_to_source_after_kill_is_not_lost() {
    const CROSS_DEVICE_MOVE: &str = "a directory to a new name across devices";
    let mut seen = 0;
    for points in 0.. {
        let directory = tempfile::tempdir().expect("temporary directory");
        let completed = run_change_in_child(CROSS_DEVICE_MOVE, ChangeSetup::Named, points, directory.path());
        let (source, copy) = (directory.path().join("root/s"), directory.path().join("root/t/new"));
        if !completed && source.exists() && copy.exists() {
            fs::write(source.join("b/f"), "late").expect("written");
            let state = snapshot_after_restart(directory.path());
            let content = |path: &str| state.entries.get(path).cloned().flatten();
            assert_eq!(content("s/b/f").as_deref(), Some("late"));
            assert_eq!(content("t/new/b/f").as_deref(), Some("/s/b/f"));
            seen += 1;
        }
        if completed {
            break;
        }
    }
    assert!(seen > 0, "killed with both there");
}

/// Outcome of a change of which the host may have refused a step.
struct RefusedChange {
    result: Result<()>,
    refused: bool,
    snapshot: TreeSnapshot,
}

/// Runs a change with named nodes, where the host refuses one step after `steps` others.
fn run_with_refused_step(change: TreeChange, steps: u32) -> RefusedChange {
    let directory = tempfile::tempdir().expect("temporary directory");
    let fixture = populated_fixture(directory.path(), true);
    let view = fixture.view("alice");
    fail_after(Some(steps));
    let result = change(&view);
    let refused = fail_after(None);
    fixture.tree.wait_for_background_deletes();
    assert_counted_exactly(&fixture);
    drop((view, fixture));
    RefusedChange { result, refused, snapshot: snapshot_after_restart(directory.path()) }
}

#[test]
fn change_is_atomic_when_host_refuses_one_step() {
    for (name, change) in SINGLE_STEP_CHANGES.into_iter().chain(MULTI_STEP_CHANGES) {
        let (old, new) = (snapshot_after_change(None, true), snapshot_after_change(Some(change), true));
        for steps in 0.. {
            let RefusedChange { result, refused, snapshot: state } = run_with_refused_step(change, steps);
            assert!(refused || result.is_ok(), "{name}: {result:?}");
            assert!(state == new || (refused && state == old), "{name}, step {steps} refused: {state:#?}");
            if !refused {
                assert!(steps > 0, "{name}");
                break;
            }
        }
    }
}

#[test]
fn killed_change_is_complete_or_undone_after_restart() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            SINGLE_STEP_CHANGES
                .into_iter()
                .chain(MULTI_STEP_CHANGES)
                .for_each(|change| check_atomic_under_kill(change, ChangeSetup::Named))
        });
        scope.spawn(|| {
            MULTI_STEP_CHANGES.into_iter().for_each(|change| check_atomic_under_kill(change, ChangeSetup::Unnamed))
        });
        let copies = SINGLE_STEP_CHANGES.into_iter().filter(|(name, _)| name.starts_with("a copy"));
        scope.spawn(|| {
            copies.chain(MULTI_STEP_CHANGES).for_each(|change| check_atomic_under_kill(change, ChangeSetup::Alone))
        });
    });
}

/// Moves a directory as to another file system, while a file is created in it.
fn move_cross_device_with_late_file(view: &View) -> Result<()> {
    let (source, stat) = view.removal_slot(TreeOperation::Move, &tree_path("/s"))?;
    let evaluate = || {
        let directory = view.fs().open_directory(&tree_path("/s/b"))?;
        directory.create_file(&crate::domain::EntryName::new(b"late").expect("a name"), 0o600)?;
        Ok(())
    };
    let conditions = WriteConditions { lock_tokens: &[], evaluate: &evaluate };
    view.move_cross_device(&source, &stat, &view.create_slot(&tree_path("/t"))?, OverwriteMode::Replace, &conditions)
        .map(drop)
}

#[test]
fn refused_cross_device_move_leaves_source_and_target_unchanged() {
    let moves = MULTI_STEP_CHANGES.into_iter().filter(|(name, _)| name.ends_with("across devices"));
    for ((name, change), exchanges) in moves.flat_map(|change| [(change, true), (change, false)]) {
        std::thread::spawn(move || {
            if !exchanges {
                disable_exchange();
            }
            let old = snapshot_after_change(None, true);
            let mut refusals = 0;
            for steps in 0.. {
                let RefusedChange { result, refused, snapshot: state } = run_with_refused_step(change, steps);
                if result.is_err() {
                    refusals += 1;
                    assert_eq!(state, old, "{name}, exchange: {exchanges}, step {steps}");
                }
                if !refused {
                    break;
                }
            }
            assert!(refusals > 1, "{name}");
        })
        .join()
        .expect("as it was");
    }
}

#[test]
fn file_added_to_source_is_not_lost_by_kill_during_removal() {
    for setup in [ChangeSetup::Named, ChangeSetup::Unnamed, ChangeSetup::Alone] {
        let mut late = Vec::new();
        for points in 0.. {
            let directory = tempfile::tempdir().expect("temporary directory");
            let completed = run_change_in_child(CONCURRENT_CHANGE.0, setup, points, directory.path());
            let state = snapshot_after_restart(directory.path());
            let (came, target) = (state.entries.contains_key("s/b/late"), state.entries.contains_key("t/old/f"));
            assert!(
                state.entries.contains_key("s/b/f") && (!came || state.entries.contains_key("s/g")),
                "{setup:?}, {points}"
            );
            assert!(target || state.entries.contains_key("t/b/f"), "{setup:?}, {points}");
            late.push(came);
            if completed {
                assert!(target);
                break;
            }
        }
        assert!(late.is_sorted() && late.ends_with(&[true]), "{setup:?}: once it has come it stays: {late:?}");
    }
}
