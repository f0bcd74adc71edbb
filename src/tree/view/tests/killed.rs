//! Killed at any step on the host, or refused one: what stands after the next start is the old or the new, whole,
//! and so are the names of nodes.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::domain::{NodeId, Permission, TreeOperation};
use crate::tree::host::doom::{doom, no_exchange, refuse_after};
use crate::tree::{OpenRequest, Overwrite, SessionFiles};

/// Tells the child what to do: which change, how, after how many points it is killed, and in which folder.
const ORDER: &str = "PATGATE_TEST_ORDER";

type Act = fn(&View) -> Result<()>;

/// How a file is opened to be replaced.
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

/// What the host does in one step.
const SIMPLE: [(&str, Act); 14] = [
    ("a file over a file", |view| rename(view, "/one", "/two", Overwrite::Yes)),
    ("a file over a file as POSIX does it", |view| rename(view, "/one", "/two", Overwrite::Posix)),
    ("a folder to a new name", |view| rename(view, "/s", "/t/new", Overwrite::No)),
    ("removal of a folder", |view| view.remove_all(&at("/s"), &NONE)),
    ("removal of a file", |view| view.remove_file(&at("/one"), &NONE)),
    ("a copy over a folder", |view| view.copy(&at("/s"), &at("/t"), true, Overwrite::Yes, &NONE).map(drop)),
    ("a copy over a file", |view| view.copy(&at("/s"), &at("/one"), true, Overwrite::Yes, &NONE).map(drop)),
    ("a link to another folder", |view| rename(view, "/s/b/l", "/t/l", Overwrite::No)),
    ("a link over a file", |view| rename(view, "/s/b/l", "/t/old/f", Overwrite::Yes)),
    ("a folder of links to another folder", |view| rename(view, "/s/b", "/t/b", Overwrite::No)),
    ("a new link", |view| view.symlink(b"../one", &at("/s/new"), &NONE)),
    ("an upload that is renamed before CLOSE", |view| {
        upload(view, "/one", |files| files.rename(&at("/one"), &at("/three"), Overwrite::No))
    }),
    ("an upload of a new name that is renamed over another before CLOSE", |view| {
        upload(view, "/new", |files| files.rename(&at("/new"), &at("/two"), Overwrite::Posix))
    }),
    ("an upload that gets a second name before CLOSE", |view| {
        upload(view, "/one", |files| files.hard_link(&at("/one"), &at("/three")))
    }),
];

/// What takes the host more than one.
const STEPWISE: [(&str, Act); 7] = [
    ("a folder over a folder", |view| rename(view, "/s", "/t", Overwrite::Yes)),
    ("a file over a folder", |view| rename(view, "/one", "/t", Overwrite::Yes)),
    ("a folder over a file", |view| rename(view, "/s", "/one", Overwrite::Yes)),
    ("a folder over a folder elsewhere", |view| across(view, "/s", "/t", Overwrite::Yes)),
    ("a folder to a new name elsewhere", |view| across(view, "/s", "/t/new", Overwrite::No)),
    ("a file over a file elsewhere", |view| across(view, "/one", "/two", Overwrite::Posix)),
    ("a file over a folder elsewhere", |view| across(view, "/one", "/t", Overwrite::Yes)),
];

/// What is refused, since something comes into the folder meanwhile.
const CHANGING: (&str, Act) = ("a folder elsewhere that changes", across_with_more);

const NAMED: [&str; 8] = ["/s", "/s/b", "/s/b/f", "/t", "/t/old", "/t/old/f", "/one", "/two"];

fn rename(view: &View, from: &str, to: &str, overwrite: Overwrite) -> Result<()> {
    view.rename(&at(from), &at(to), overwrite, &NONE).map(drop)
}

/// Uploads a file over SFTP, and asks for something that needs it in the tree before it is closed.
fn upload(view: &View, path: &str, ask: impl FnOnce(&SessionFiles) -> Result<()>) -> Result<()> {
    let files = SessionFiles::new(view.clone());
    let file = files.open(&at(path), &REPLACE)?;
    file.write_at(b"uploaded", 0)?;
    ask(&files)?;
    file.close()
}

/// Moves as to another file system.
fn across(view: &View, from: &str, to: &str, overwrite: Overwrite) -> Result<()> {
    let (source, stat) = view.removable(TreeOperation::Move, &at(from))?;
    view.move_across(&source, &stat, &view.spot(&at(to))?, overwrite, &NONE).map(drop)
}

/// Makes two folders with something in them and two files, and writes down what their nodes are called.
fn furnish(folder: &Path, named: bool) -> House {
    let house = House::within(folder);
    for path in ["/s/b", "/t/old"] {
        house.tree.ensure_folder(&at(path)).expect("made");
    }
    for path in ["/s/b/f", "/s/g", "/t/old/f", "/one", "/two"] {
        write(&house, path, path);
    }
    // It leads to where nothing is, once it stands elsewhere.
    std::os::unix::fs::symlink("f", host(&house, "/s/b/l")).expect("made");
    house.user("alice", &[("/", Permission::RW)]);
    let named = NAMED.iter().filter(|_| named);
    let ids = named.map(|path| format!("{path} {}\n", house.tree.mint(&at(path)).expect("named")));
    fs::write(folder.join("ids"), ids.collect::<String>()).expect("written");
    tick(folder);
    house
}

/// Goes on once the host's clock tells what comes from what was.
fn tick(folder: &Path) {
    let now = || {
        fs::write(folder.join("tick"), "").expect("written");
        fs::metadata(folder.join("tick")).and_then(|tick| tick.modified()).expect("there")
    };
    let before = now();
    while now() == before {}
}

/// What stands in the served folder, and where what was named at first is now.
#[derive(Debug, PartialEq)]
struct State {
    entries: BTreeMap<String, Option<String>>,
    nodes: BTreeMap<String, Option<String>>,
}

/// Looks at what stands after the next start.
fn state(folder: &Path) -> State {
    let house = House::within(folder);
    house.tree.settle();
    assert_eq!(house.store.intents().expect("read"), [], "every change is concluded");
    let ids = fs::read_to_string(folder.join("ids")).expect("read");
    let nodes = ids.lines().filter_map(|line| line.split_once(' ')).map(|(path, id)| {
        let id: NodeId = id.parse().expect("an id");
        (path.to_owned(), house.tree.locate(id).expect("located").map(|path| path.to_string()))
    });
    let nodes = nodes.collect();
    let mut entries = BTreeMap::new();
    let mut left = vec![house.root.clone()];
    while let Some(place) = left.pop() {
        for entry in fs::read_dir(&place).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&house.root).expect("below").display().to_string();
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            let content = match kind.is_symlink() {
                true => fs::read_link(&path).map(|text| Some(format!("-> {}", text.display()))).expect("read"),
                false => (!kind.is_dir()).then(|| fs::read_to_string(&path).expect("read")),
            };
            entries.insert(name, content);
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    entries.remove(".patgate");
    entries.remove(".patgate/tree.id");
    State { entries, nodes }
}

/// How a change is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Nothing is named.
    Unnamed,
    /// All is named.
    Named,
    /// All is named, and the file system can't exchange two entries.
    Alone,
}

/// Makes a change in a process that is killed after some points; tells whether it came to the end.
fn make(change: &str, how: How, points: u32, folder: &Path) -> bool {
    let child = "tree::view::tests::killed::in_a_process_of_its_own";
    let order = format!("{change}:{how:?}:{points}:{}", folder.display());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let status = command.args(["--exact", child]).env(ORDER, order).stdout(Stdio::null()).status().expect("run");
    assert!(status.success() || status.signal() == Some(9), "{status}");
    status.success()
}

/// What the child does; nothing in a run of the tests.
#[test]
fn in_a_process_of_its_own() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = order.splitn(4, ':').collect();
    let [change, how, points, folder] = words[..] else { panic!("{order}") };
    let house = furnish(Path::new(folder), how != "Unnamed");
    let view = house.view("alice");
    let (_, act) = SIMPLE.iter().chain(&STEPWISE).chain(&[CHANGING]).find(|(name, _)| *name == change).expect(change);
    if how == "Alone" {
        no_exchange();
    }
    doom(points.parse().expect("a number"));
    let done = act(&view);
    assert!(done.is_ok() || change == CHANGING.0, "{done:?}");
}

/// Returns what stands when a change, if any, came to its end.
fn outcome(change: Option<Act>, named: bool) -> State {
    let folder = tempfile::tempdir().expect("folder");
    let house = furnish(folder.path(), named);
    change.map_or(Ok(()), |act| act(&house.view("alice"))).expect("changed");
    house.tree.settle();
    drop(house);
    state(folder.path())
}

fn whole_or_undone((name, act): (&str, Act), how: How) {
    let named = how != How::Unnamed;
    let (old, new) = (outcome(None, named), outcome(Some(act), named));
    let mut seen = Vec::new();
    for points in 0.. {
        let folder = tempfile::tempdir().expect("folder");
        let ended = make(name, how, points, folder.path());
        let state = state(folder.path());
        if ended {
            assert_eq!(state, new, "{name}");
            break;
        }
        assert!(state == old || state == new, "{name}, {how:?}, killed at point {points}: {state:#?}");
        seen.push(state == new);
    }
    assert!(old != new && seen.first() == Some(&false) && seen.contains(&true), "{name}: {seen:?}");
}

#[test]
fn what_comes_to_a_source_after_a_kill_is_not_lost() {
    const MOVE: &str = "a folder to a new name elsewhere";
    let mut seen = 0;
    for points in 0.. {
        let folder = tempfile::tempdir().expect("folder");
        let ended = make(MOVE, How::Named, points, folder.path());
        let (source, copy) = (folder.path().join("root/s"), folder.path().join("root/t/new"));
        if !ended && source.exists() && copy.exists() {
            fs::write(source.join("b/f"), "late").expect("written");
            let state = state(folder.path());
            let content = |path: &str| state.entries.get(path).cloned().flatten();
            assert_eq!(content("s/b/f").as_deref(), Some("late"));
            assert_eq!(content("t/new/b/f").as_deref(), Some("/s/b/f"));
            seen += 1;
        }
        if ended {
            break;
        }
    }
    assert!(seen > 0, "killed with both there");
}

/// What came of a change of which the host may have refused a step.
struct Refusal {
    made: Result<()>,
    refused: bool,
    state: State,
}

/// Makes a change where all is named, and the host refuses this thread one step after so many.
fn refusing(act: Act, steps: u32) -> Refusal {
    let folder = tempfile::tempdir().expect("folder");
    let house = furnish(folder.path(), true);
    let view = house.view("alice");
    refuse_after(Some(steps));
    let made = act(&view);
    let refused = refuse_after(None);
    house.tree.settle();
    drop((view, house));
    Refusal { made, refused, state: state(folder.path()) }
}

#[test]
fn a_change_of_which_the_host_refuses_one_step_is_whole_or_undone() {
    for (name, act) in SIMPLE.into_iter().chain(STEPWISE) {
        let (old, new) = (outcome(None, true), outcome(Some(act), true));
        for steps in 0.. {
            let Refusal { made, refused, state } = refusing(act, steps);
            assert!(refused || made.is_ok(), "{name}: {made:?}");
            assert!(state == new || (refused && state == old), "{name}, step {steps} refused: {state:#?}");
            if !refused {
                assert!(steps > 0, "{name}");
                break;
            }
        }
    }
}

#[test]
fn a_change_that_was_cut_off_is_whole_or_undone_after_the_next_start() {
    std::thread::scope(|scope| {
        scope.spawn(|| SIMPLE.into_iter().chain(STEPWISE).for_each(|change| whole_or_undone(change, How::Named)));
        scope.spawn(|| STEPWISE.into_iter().for_each(|change| whole_or_undone(change, How::Unnamed)));
        let copies = SIMPLE.into_iter().filter(|(name, _)| name.starts_with("a copy"));
        scope.spawn(|| copies.chain(STEPWISE).for_each(|change| whole_or_undone(change, How::Alone)));
    });
}

/// Moves a folder as to another file system, into which something comes meanwhile.
fn across_with_more(view: &View) -> Result<()> {
    let (source, stat) = view.removable(TreeOperation::Move, &at("/s"))?;
    let judge = || {
        let folder = view.host().folder(&at("/s/b"))?;
        folder.make_file(&crate::domain::EntryName::new(b"late").expect("a name"), 0o600)?;
        Ok(())
    };
    let claim = Claim { tokens: &[], judge: &judge };
    view.move_across(&source, &stat, &view.spot(&at("/t"))?, Overwrite::Yes, &claim).map(drop)
}

#[test]
fn a_move_elsewhere_that_is_refused_leaves_both_as_they_were() {
    let moves = STEPWISE.into_iter().filter(|(name, _)| name.ends_with("elsewhere"));
    for ((name, act), exchanges) in moves.flat_map(|change| [(change, true), (change, false)]) {
        std::thread::spawn(move || {
            if !exchanges {
                no_exchange();
            }
            let old = outcome(None, true);
            let mut refusals = 0;
            for steps in 0.. {
                let Refusal { made, refused, state } = refusing(act, steps);
                if made.is_err() {
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
fn what_came_to_a_source_is_not_lost_by_a_kill_while_it_is_taken() {
    for how in [How::Named, How::Unnamed, How::Alone] {
        let mut late = Vec::new();
        for points in 0.. {
            let folder = tempfile::tempdir().expect("folder");
            let ended = make(CHANGING.0, how, points, folder.path());
            let state = state(folder.path());
            let (came, target) = (state.entries.contains_key("s/b/late"), state.entries.contains_key("t/old/f"));
            assert!(
                state.entries.contains_key("s/b/f") && (!came || state.entries.contains_key("s/g")),
                "{how:?}, {points}"
            );
            assert!(target || state.entries.contains_key("t/b/f"), "{how:?}, {points}");
            late.push(came);
            if ended {
                assert!(target);
                break;
            }
        }
        assert!(late.is_sorted() && late.ends_with(&[true]), "{how:?}: once it has come it stays: {late:?}");
    }
}
