//! Tests of renames, copies and removals of whole directories, within a file system and across two. Crashes during them
//! are in `killed.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::moved_source::CopiedEntries;
use super::*;
use crate::domain::{EntryName, Permission, TreeOperation, TreePath};
use crate::tree::fs::{DirectoryFd, Errno, Stat};
use crate::tree::{AttributeChanges, DeadProperty, OverwriteMode, PropertyChange, PropertyName};

const RW: Permission = Permission::RW;

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box/a/b", "/box/c"]);
    fixture.create_user("alice", &[("/", RW)]);
    write_outside_gateway(&fixture, "/box/a/b/file", "deep");
    write_outside_gateway(&fixture, "/box/a/file", "shallow");
    let view = fixture.view("alice");
    (fixture, view)
}

fn rename(view: &View, from: &str, to: &str, overwrite: OverwriteMode) -> Result<bool> {
    view.rename(&tree_path(from), &tree_path(to), overwrite, &NO_CONDITIONS)
}

fn copy(view: &View, from: &str, to: &str, overwrite: OverwriteMode) -> Result<bool> {
    view.copy(&tree_path(from), &tree_path(to), true, overwrite, &NO_CONDITIONS)
}

fn set_tag(view: &View, path: &str, text: &str) {
    let name = PropertyName { namespace: "urn:x".into(), name: "tag".into() };
    let changes = [PropertyChange::Set(DeadProperty { name, value: format!("<tag xmlns=\"urn:x\">{text}</tag>") })];
    view.set_properties(&tree_path(path), &changes, &AttributeChanges::default(), &NO_CONDITIONS).expect("set");
}

fn tag_values(view: &View, path: &str) -> Vec<String> {
    view.properties(&tree_path(path)).expect("read").into_iter().map(|property| property.value).collect()
}

#[test]
fn move_or_copy_into_itself_or_onto_ancestor_is_refused() {
    let (fixture, view) = fixture();
    for overwrite in [OverwriteMode::Replace, OverwriteMode::Refuse, OverwriteMode::Posix] {
        for (from, to) in [("/box/a", "/box/a/b/x"), ("/box/a/b", "/box/a"), ("/box/a", "/box/a/b"), ("/box", "/box/x")]
        {
            assert_eq!(outcome_name(rename(&view, from, to, overwrite)), "overlap", "{from} {to}");
            assert_eq!(outcome_name(copy(&view, from, to, overwrite)), "overlap", "{from} {to}");
        }
        assert_eq!(outcome_name(copy(&view, "/box/a", "/box/a", overwrite)), "overlap");
    }
    assert_eq!(outcome_name(rename(&view, "/box/a", "/box/a", OverwriteMode::Replace)), "overlap");
    assert_eq!(outcome_name(rename(&view, "/box/a", "/box/a", OverwriteMode::Posix)), "ok");
    symlink("a", host_path(&fixture, "/box/link")).expect("link");
    assert_eq!(outcome_name(rename(&view, "/box/a", "/box/link/b/x", OverwriteMode::Replace)), "overlap");
    assert_eq!(outcome_name(copy(&view, "/box/link", "/box/a/b/x", OverwriteMode::Replace)), "overlap");
    assert_eq!(outcome_name(rename(&view, "/", "/box/x", OverwriteMode::Replace)), "forbidden");
    assert_eq!(outcome_name(copy(&view, "/box/a", "/", OverwriteMode::Replace)), "forbidden");
    assert_eq!(outcome_name(view.remove_all(&tree_path("/"), &NO_CONDITIONS)), "forbidden");
    assert_eq!(read_outside_gateway(&fixture, "/box/a/b/file"), "deep");
    assert_no_staged_entries(&fixture);
}

fn assert_no_staged_entries(fixture: &TreeFixture) {
    fixture.tree.wait_for_background_deletes();
    assert_eq!(staged_entries(fixture).len(), 0);
}

#[test]
fn target_is_replaced_according_to_overwrite_mode() {
    use OverwriteMode::{Posix, Refuse, Replace};
    let table = [
        ("/box/a/file", "/box/new", Refuse, "ok", false),
        ("/box/a/file", "/box/a/b/file", Refuse, "exists", false),
        ("/box/a/file", "/box/a/b/file", Replace, "ok", true),
        ("/box/a/file", "/box/a/b/file", Posix, "ok", true),
        ("/box/a/file", "/box/c", Refuse, "exists", false),
        ("/box/a/file", "/box/c", Posix, "is directory", false),
        ("/box/a/file", "/box/c", Replace, "ok", true),
        ("/box/c", "/box/a/file", Posix, "not directory", false),
        ("/box/c", "/box/a/file", Replace, "ok", true),
        ("/box/a", "/box/c", Posix, "ok", true),
        ("/box/c", "/box/a", Posix, "not empty", false),
        ("/box/c", "/box/a", Replace, "ok", true),
        ("/box/none", "/box/x", Replace, "absent", false),
        ("/box/c", "/box/none/x", Replace, "no parent", false),
        ("/box/c", "/box/a/file/x", Replace, "no parent", false),
    ];
    for (from, to, overwrite, outcome, replaced) in table {
        let (fixture, view) = fixture();
        let result = rename(&view, from, to, overwrite);
        assert_eq!(result.as_ref().ok().copied().unwrap_or_default(), replaced, "{from} {to} {overwrite:?}");
        assert_eq!(outcome_name(result), outcome, "{from} {to} {overwrite:?}");
        assert_eq!(
            host_path(&fixture, from).exists(),
            outcome != "ok" && from != "/box/none",
            "{from} {to} {overwrite:?}"
        );
        assert_no_staged_entries(&fixture);
        if overwrite != Posix {
            let (fixture, view) = self::fixture();
            assert_eq!(outcome_name(copy(&view, from, to, overwrite)), outcome, "copy {from} {to} {overwrite:?}");
            assert_eq!(host_path(&fixture, from).exists(), from != "/box/none");
            assert_no_staged_entries(&fixture);
        }
    }
}

#[test]
fn replaced_target_is_never_missing() {
    let (fixture, view) = fixture();
    let stop = AtomicBool::new(false);
    let target = host_path(&fixture, "/box/c");
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut checks = 0u64;
            while !stop.load(Ordering::Relaxed) {
                assert!(target.exists());
                checks += 1;
            }
            checks
        });
        for round in 0..100 {
            copy(&view, "/box/a", "/box/c", OverwriteMode::Replace).expect("copy");
            let next = format!("/box/{round}");
            copy(&view, "/box/a", &next, OverwriteMode::Refuse).expect("copy");
            rename(&view, &next, "/box/c", OverwriteMode::Replace).expect("rename");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(watch.join().expect("watch") > 0);
    });
    assert_staging_empty(&fixture);
}

#[test]
fn move_onto_hard_link_of_same_file_leaves_one_name() {
    let (fixture, view) = fixture();
    view.hard_link(&tree_path("/box/a/file"), &tree_path("/box/twin"), &NO_CONDITIONS).expect("link");
    assert!(rename(&view, "/box/a/file", "/box/twin", OverwriteMode::Replace).expect("rename"));
    assert!(!host_path(&fixture, "/box/a/file").exists());
    assert_eq!(read_outside_gateway(&fixture, "/box/twin"), "shallow");
}

#[test]
fn copy_is_complete_and_includes_only_contained_symlinks() {
    let (fixture, view) = fixture();
    symlink("b/file", host_path(&fixture, "/box/a/inside")).expect("link");
    symlink("../c", host_path(&fixture, "/box/a/beside")).expect("link");
    symlink("/etc", host_path(&fixture, "/box/a/out")).expect("link");
    let _socket = std::os::unix::net::UnixListener::bind(host_path(&fixture, "/box/a/socket")).expect("socket");
    fs::create_dir_all(host_path(&fixture, "/box/a/.patgate/x")).expect("created");
    assert!(!copy(&view, "/box/a", "/box/copy", OverwriteMode::Refuse).expect("copy"));
    let mut found: Vec<_> =
        fs::read_dir(host_path(&fixture, "/box/copy")).expect("list").map(|e| e.expect("entry").file_name()).collect();
    found.sort();
    assert_eq!(found, ["b", "file", "inside"]);
    assert_eq!(read_outside_gateway(&fixture, "/box/copy/inside"), "deep");
    assert!(
        !view
            .copy(&tree_path("/box/a"), &tree_path("/box/shallow"), false, OverwriteMode::Refuse, &NO_CONDITIONS)
            .expect("copy")
    );
    assert_eq!(fs::read_dir(host_path(&fixture, "/box/shallow")).expect("list").count(), 0);
}

#[test]
fn properties_follow_rename_and_copy() {
    let (fixture, view) = fixture();
    set_tag(&view, "/box/a/b/file", "one");
    let node = view.node_id(&tree_path("/box/a/b/file")).expect("node");
    rename(&view, "/box/a", "/box/moved", OverwriteMode::Refuse).expect("rename");
    assert_eq!(view.node_id(&tree_path("/box/moved/b/file")).expect("node"), node);
    assert_eq!(fixture.tree.locate(node).expect("located"), Some(tree_path("/box/moved/b/file")));
    copy(&view, "/box/moved", "/box/copy", OverwriteMode::Refuse).expect("copy");
    assert_eq!(tag_values(&view, "/box/copy/b/file"), tag_values(&view, "/box/moved/b/file"));
    assert_ne!(view.node_id(&tree_path("/box/copy/b/file")).expect("node"), node);
    put(&view, "/box/moved/b/file", "new").expect("put");
    assert_eq!(view.node_id(&tree_path("/box/moved/b/file")).expect("node"), node);
    view.remove_all(&tree_path("/box/moved"), &NO_CONDITIONS).expect("removed");
    assert_eq!(fixture.tree.locate(node).expect("located"), None);
    fs::create_dir_all(host_path(&fixture, "/box/moved/b")).expect("created");
    write_outside_gateway(&fixture, "/box/moved/b/file", "another");
    assert!(tag_values(&view, "/box/moved/b/file").is_empty());
}

#[test]
fn deep_directory_is_removed_in_one_step_and_completely() {
    let (fixture, view) = fixture();
    let mut deep = host_path(&fixture, "/box/c");
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).expect("created");
    for number in 0..300 {
        fs::write(host_path(&fixture, "/box/c").join(number.to_string()), "x").expect("write");
    }
    copy(&view, "/box/c", "/box/copy", OverwriteMode::Refuse).expect("copy");
    view.remove_all(&tree_path("/box/c"), &NO_CONDITIONS).expect("removed");
    assert!(!host_path(&fixture, "/box/c").exists());
    view.remove_all(&tree_path("/box/copy"), &NO_CONDITIONS).expect("removed");
    assert_staging_empty(&fixture);
}

/// Moves an entry as to another file system: nothing can be mounted in a unit test, so the cross-device move is called
/// directly.
pub(super) fn move_cross_device(view: &View, from: &str, to: &str, overwrite: OverwriteMode) -> Result<bool> {
    let (source, stat) = view.removal_slot(crate::domain::TreeOperation::Move, &tree_path(from))?;
    view.move_cross_device(&source, &stat, &view.create_slot(&tree_path(to))?, overwrite, &NO_CONDITIONS)
}

#[test]
fn cross_device_move_copies_everything_and_removes_source() {
    let (fixture, view) = fixture();
    let replaced = move_cross_device(&view, "/box/a", "/box/c", OverwriteMode::Replace).expect("moved");
    assert!(replaced && !host_path(&fixture, "/box/a").exists());
    assert_eq!(read_outside_gateway(&fixture, "/box/c/b/file"), "deep");
    assert_staging_empty(&fixture);
}

#[test]
fn cross_device_move_refuses_symlinks_leading_out() {
    let fixture = TreeFixture::new(&["/box/0/1/2", "/box/0/d", "/secret"]);
    fixture.create_user("alice", &[("/box", RW)]);
    let view = fixture.view("alice");
    view.symlink(b"../../../secret", &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside");
    for (from, to) in [("/box/0/1/2/l", "/box/l"), ("/box/0/1/2", "/box/2"), ("/box/0/1", "/box/1")] {
        assert_eq!(outcome_name(move_cross_device(&view, from, to, OverwriteMode::Refuse)), "forbidden", "{from}");
        assert!(fs::symlink_metadata(host_path(&fixture, to)).is_err(), "{to}");
    }
    symlink("/etc/passwd", host_path(&fixture, "/box/0/1/2/absolute")).expect("link");
    move_cross_device(&view, "/box/0/1/2", "/box/0/d/2", OverwriteMode::Refuse).expect("as deep as before");
    assert_eq!(
        fs::read_link(host_path(&fixture, "/box/0/d/2/l")).expect("a link"),
        std::path::Path::new("../../../secret")
    );
    assert_staging_empty(&fixture);
}

#[test]
fn nodes_grants_and_properties_follow_cross_device_move() {
    let (fixture, view) = fixture();
    fixture.create_user("bob", &[("/box/a/b", Permission::R)]);
    let bob = fixture.view("bob");
    set_tag(&view, "/box/a/b/file", "one");
    let [top, directory, file, replaced] =
        ["/box/a", "/box/a/b", "/box/a/b/file", "/box/c"].map(|path| view.node_id(&tree_path(path)).expect("named"));
    move_cross_device(&view, "/box/a", "/box/c", OverwriteMode::Replace).expect("moved");
    let path_of = |id| fixture.tree.locate(id).expect("located").map(|path| path.to_string());
    let paths = [top, directory, file, replaced].map(path_of);
    assert_eq!(paths, [Some("/box/c".into()), Some("/box/c/b".into()), Some("/box/c/b/file".into()), None]);
    assert_eq!(tag_values(&view, "/box/c/b/file").len(), 1);
    assert_eq!(get(&bob, "/box/c/b/file").expect("granted"), "deep");
    move_cross_device(&view, "/box/c/b/file", "/box/file", OverwriteMode::Refuse).expect("moved");
    assert_eq!(path_of(file).as_deref(), Some("/box/file"));
    assert_eq!(tag_values(&view, "/box/file").len(), 1);
    assert_eq!(outcome_name(get(&bob, "/box/file")), "absent");
}

#[test]
fn cross_device_move_gives_swapped_directory_no_node_id() {
    let (fixture, view) = fixture();
    fixture.create_user("bob", &[("/box/a/b", Permission::R)]);
    let node = view.node_id(&tree_path("/box/a/b")).expect("named");
    fs::rename(host_path(&fixture, "/box/a/b"), host_path(&fixture, "/box/old")).expect("renamed");
    fs::create_dir(host_path(&fixture, "/box/a/b")).expect("created");
    write_outside_gateway(&fixture, "/box/a/b/file", "of another");
    move_cross_device(&view, "/box/a", "/box/c", OverwriteMode::Replace).expect("moved");
    assert_eq!(fixture.tree.locate(node).expect("located"), None);
    assert_eq!(outcome_name(get(&fixture.view("bob"), "/box/c/b/file")), "absent");
}

#[test]
fn change_during_cross_device_copy_is_not_lost() {
    let (fixture, view) = fixture();
    let changes: [&dyn Fn(); 5] = [
        &|| write_outside_gateway(&fixture, "/box/a/b/new", "new"),
        &|| put(&view, "/box/a/b/file", "DEEP").expect("put"),
        &|| fs::remove_file(host_path(&fixture, "/box/a/b/file")).expect("removed"),
        &|| fs::rename(host_path(&fixture, "/box/a/b"), host_path(&fixture, "/box/a/d")).expect("renamed"),
        &|| {},
    ];
    for (number, change) in changes.iter().enumerate() {
        let (source, stat) =
            view.removal_slot(crate::domain::TreeOperation::Move, &tree_path("/box/a")).expect("there");
        let target = view.create_slot(&tree_path("/box/c")).expect("there");
        let copied = view.copy_cross_device(&source, &stat, &target).expect("copied");
        change();
        let moved = view.commit_cross_device(copied, &source, &target, OverwriteMode::Replace, &NO_CONDITIONS);
        assert_eq!(outcome_name(moved), if number < 4 { "precondition" } else { "ok" }, "{number}");
        assert_eq!(host_path(&fixture, "/box/a/file").exists(), number < 4);
        assert_eq!(host_path(&fixture, "/box/c/file").exists(), number == 4);
    }
    assert_staging_empty(&fixture);
}

#[test]
fn change_during_cross_device_source_removal_is_not_lost() {
    for target in ["/box/c", "/box/new"] {
        let (fixture, view) = fixture();
        let late = || {
            write_outside_gateway(&fixture, "/box/a/b/late", "late");
            Ok(())
        };
        let (source, stat) =
            view.removal_slot(crate::domain::TreeOperation::Move, &tree_path("/box/a")).expect("there");
        let conditions = WriteConditions { lock_tokens: &[], evaluate: &late };
        let moved = view.move_cross_device(
            &source,
            &stat,
            &view.create_slot(&tree_path(target)).expect("there"),
            OverwriteMode::Replace,
            &conditions,
        );
        assert_eq!(outcome_name(moved), "precondition");
        assert_eq!(read_outside_gateway(&fixture, "/box/a/b/late"), "late");
        assert_eq!(read_outside_gateway(&fixture, "/box/a/b/file"), "deep");
        assert!(host_path(&fixture, "/box/c").exists());
        assert!(!host_path(&fixture, target).join("b").exists(), "the copy is taken back");
        assert_no_staged_entries(&fixture);
    }
}

#[test]
fn file_renamed_away_and_back_during_cross_device_move_is_not_lost() {
    let (fixture, view) = fixture();
    let [inside, outside, moved] =
        ["/box/a/b/file", "/box/c/file", "/box/new/b/file"].map(|path| host_path(&fixture, path));
    for round in 0..100 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Fails while the directory is moved.
                    let _ = fs::rename(&inside, &outside);
                    let _ = fs::rename(&outside, &inside);
                }
            });
            let outcome = move_cross_device(&view, "/box/a", "/box/new", OverwriteMode::Refuse);
            stop.store(true, Ordering::Relaxed);
            assert!(matches!(outcome, Ok(false) | Err(Error::PreconditionFailed)), "{outcome:?}");
        });
        // A rename that was under way when the source was removed leaves the file beside its copy.
        assert!([&inside, &outside, &moved].into_iter().any(|path| path.exists()), "{round}");
        let _ = fs::rename(host_path(&fixture, "/box/new"), host_path(&fixture, "/box/a"));
        let _ = fs::rename(&outside, &inside);
    }
}

#[test]
fn entries_that_arrive_in_a_compared_source_go_back_to_its_path() {
    // By directory that gets a late file, if any, and whether the name of the source is taken again.
    for (late_in, is_taken) in [(None, false), (Some("/b"), false), (Some("/"), false), (Some("/b"), true)] {
        let (fixture, view) = fixture();
        let (source, _) = view.removal_slot(TreeOperation::Move, &tree_path("/box/a")).expect("a source");
        let staged =
            view.staging(&source).expect("a staging").move_in(&source.directory, &source.name).expect("staged");
        let (staging, name) = staged.directory_and_name();
        let top = staging.open_directory(&TreePath::root().child(name)).expect("opened");
        let mut copied = CopiedEntries::default();
        let visit = |_: &DirectoryFd, parent: &TreePath, name: &EntryName, stat: &Stat| {
            copied.add(&parent.child(name), stat);
            Ok::<_, Errno>(())
        };
        top.walk(|| Ok(()), visit).expect("walked");
        if let Some(path) = late_in {
            let late = EntryName::new(b"late").expect("a name");
            top.open_directory(&tree_path(path)).and_then(|parent| parent.create_file(&late, 0o600)).expect("created");
        }
        if is_taken {
            fs::create_dir(host_path(&fixture, "/box/a")).expect("created");
        }
        view.remove_moved_source(staged, &copied.sorted(), &source);
        let at = |path: &str| host_path(&fixture, path);
        let back = if is_taken { "/box/a (1)" } else { "/box/a" };
        if let Some(path) = late_in {
            assert!(at(&format!("{back}{path}/late")).exists(), "{path} {is_taken}");
        }
        assert_eq!(at(back).exists(), late_in.is_some(), "{late_in:?} {is_taken}");
        assert!(!at(&format!("{back}/b/file")).exists() && !at(&format!("{back}/file")).exists(), "{late_in:?}");
        assert_no_staged_entries(&fixture);
    }
}

#[test]
fn cross_device_move_replaces_like_posix_rename() {
    let table = [
        ("/box/a/file", "/box/a/b/file", "ok"),
        ("/box/a/file", "/box/c", "is directory"),
        ("/box/c", "/box/a/file", "not directory"),
        ("/box/a", "/box/c", "ok"),
        ("/box/c", "/box/a", "not empty"),
    ];
    for (from, to, outcome) in table {
        let (fixture, view) = fixture();
        assert_eq!(outcome_name(move_cross_device(&view, from, to, OverwriteMode::Posix)), outcome, "{from} {to}");
        assert_eq!(host_path(&fixture, from).exists(), outcome != "ok", "{from} {to}");
        assert!(host_path(&fixture, to).exists(), "{from} {to}");
        assert_no_staged_entries(&fixture);
    }
}

#[test]
fn cross_device_move_refuses_directory_with_uncopyable_entry() {
    let (fixture, view) = fixture();
    let inside = host_path(&fixture, "/box/a/b");
    let socket = || drop(std::os::unix::net::UnixListener::bind(inside.join("odd")).expect("bound"));
    let reserved = || fs::create_dir(inside.join(".patgate")).expect("created");
    let cases: [(&dyn Fn(), &str); 2] = [(&socket, "odd"), (&reserved, ".patgate")];
    for (create_entry, name) in cases {
        create_entry();
        assert_eq!(
            outcome_name(move_cross_device(&view, "/box/a", "/box/c", OverwriteMode::Replace)),
            "unsupported",
            "{name}"
        );
        assert!(inside.join(name).exists() && !host_path(&fixture, "/box/c/file").exists(), "{name}");
        let _ = fs::remove_file(inside.join(name));
    }
    fs::remove_dir(inside.join(".patgate")).expect("removed");
    move_cross_device(&view, "/box/a", "/box/c", OverwriteMode::Replace).expect("moved");
    assert_no_staged_entries(&fixture);
}

#[test]
fn rename_exceeding_path_limit_of_a_named_node_is_refused_before_any_change() {
    let deep = format!("/box/n{}", format!("/{}", "d".repeat(250)).repeat(16));
    let fixture = TreeFixture::new(&[&deep]);
    fixture.create_user("alice", &[("/", RW)]);
    let view = fixture.view("alice");
    let node = fixture.tree.assign_node_id(&tree_path(&deep)).expect("named");
    let long = format!("/box/{}", "n".repeat(100));
    let refused = rename(&view, "/box/n", &long, OverwriteMode::Refuse);
    assert!(matches!(refused, Err(Error::PathTooLong)), "{refused:?}");
    assert_eq!(fixture.tree.locate(node).expect("located"), Some(tree_path(&deep)));
    assert!(rename(&view, "/box/n", "/box/nn", OverwriteMode::Refuse).is_ok());
    assert_eq!(fixture.tree.locate(node).expect("located"), Some(tree_path(&deep.replace("/n/", "/nn/"))));
}

#[test]
fn replaced_directory_with_too_long_paths_is_never_placed_at_source() {
    let nested = |depth: usize| format!("/{}", "d".repeat(250)).repeat(depth);
    let fixture = TreeFixture::new(&[&format!("/box{}", nested(9)), &format!("/old{}", nested(8))]);
    fixture.create_user("alice", &[("/", RW)]);
    let view = fixture.view("alice");
    let source = format!("/box{}/new", nested(9));
    view.create_directory(&tree_path(&source), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    assert!(rename(&view, &source, "/old", OverwriteMode::Replace).expect("moved"));
    assert!(list_names(&view, "/old").expect("listed").is_empty());
    assert_no_staged_entries(&fixture);
}
