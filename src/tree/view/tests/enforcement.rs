//! The rule that explains is the rule that enforces, and what it denies is told.

use proptest::prelude::*;

use super::*;
use crate::domain::{AuditEvent, EventKind, TreeOperation};
use crate::domain::{Permission, TreePath};
use crate::store::{EventCursor, EventFilter};
use crate::tree::{AttributeChanges, DirectoryListing, OverwriteMode};

const DIRECTORIES: [&str; 5] = ["/", "/a", "/a/b", "/a/b/c", "/d"];

/// A tree in which every folder holds the files `f`, which may be granted, and `plain`, which is not.
fn populated_fixture() -> TreeFixture {
    let house = TreeFixture::new(&DIRECTORIES[1..]);
    for folder in DIRECTORIES {
        for name in ["f", "plain"] {
            std::fs::write(house.root_path.join(&folder[1..]).join(name), "text").expect("file");
        }
    }
    house
}

fn child_path(folder: &str, name: &str) -> TreePath {
    tree_path(&format!("{}/{name}", folder.trim_end_matches('/')))
}

/// Whether a view lets an operation pass. Nothing is changed: the claim stops it just before its effect.
fn is_allowed(view: &View, operation: TreeOperation, path: &TreePath) -> bool {
    let stop = WriteConditions { lock_tokens: &[], evaluate: &|| Err(Error::PreconditionFailed) };
    let parent = path.parent().unwrap_or_default();
    let beside = child_path(&parent.to_string(), "new");
    let passes = |result: Result<()>| matches!(result, Ok(()) | Err(Error::PreconditionFailed));
    match operation {
        TreeOperation::Stat => passes(view.stat(path).map(drop)),
        TreeOperation::List => {
            view.list(path, false).is_ok_and(|listing| listed_names(listing).contains(&"plain".to_owned()))
        }
        TreeOperation::Read => passes(view.read(path).map(drop)),
        TreeOperation::Copy => passes(view.copy(path, &beside, true, OverwriteMode::Replace, &stop).map(drop)),
        TreeOperation::Write => passes(view.set_properties(path, &[], &AttributeChanges::default(), &stop)),
        TreeOperation::Create => passes(view.stage(&beside, None, &stop).map(drop)),
        TreeOperation::Delete => passes(view.remove_all(path, &stop)),
        TreeOperation::Move => passes(view.rename(path, &beside, OverwriteMode::Replace, &stop).map(drop)),
        TreeOperation::Link => passes(view.hard_link(path, &beside, &stop)),
    }
}

fn listed_names(listing: DirectoryListing) -> Vec<String> {
    listing.map(|entry| String::from_utf8_lossy(&entry.expect("entry").name).into_owned()).collect()
}

fn any_grants() -> impl Strategy<Value = Vec<(String, Permission)>> {
    let place = prop_oneof![
        proptest::sample::select(&DIRECTORIES[..]).prop_map(str::to_owned),
        proptest::sample::select(&DIRECTORIES[..]).prop_map(|folder| child_path(folder, "f").to_string()),
    ];
    let one = (place, 1u8..4).prop_map(|(place, bits)| (place, Permission::from_bits(bits).expect("bits")));
    proptest::collection::vec(one, 0..4)
}

fn audit_events(house: &TreeFixture, kind: EventKind) -> Vec<AuditEvent> {
    house.auth.flush();
    let filter = EventFilter { kind: Some(kind), ..EventFilter::default() };
    let noted = house.store.audit_events(&filter, EventCursor::After(0), 10_000).expect("read");
    noted.into_iter().map(|noted| noted.event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn explanation_matches_enforcement(grants in any_grants(), scopes in proptest::option::of(any_grants())) {
        let house = populated_fixture();
        fn named(rights: &[(String, Permission)]) -> Vec<(&str, Permission)> {
            rights.iter().map(|(path, permission)| (path.as_str(), *permission)).collect()
        }
        house.create_user("alice", &named(&grants));
        let view = match &scopes {
            None => house.view("alice"),
            Some(scopes) => house.scoped_view("alice", &named(scopes)),
        };
        let access = view.session().access().expect("lives");
        let judged = |operation: TreeOperation, path: &TreePath| operation.authorize(&access, path).is_ok();
        for folder in DIRECTORIES {
            let file = child_path(folder, "f");
            let beside = child_path(folder, "new");
            for operation in TreeOperation::ALL {
                let path = if operation == TreeOperation::List { tree_path(folder) } else { file.clone() };
                let passes = is_allowed(&view, operation, &path);
                match operation {
                    TreeOperation::Copy => {
                        let both = judged(operation, &path) && judged(TreeOperation::Create, &beside);
                        prop_assert_eq!(passes, both, "{} {}", operation, path);
                    }
                    TreeOperation::Link => prop_assert!(!passes || judged(operation, &path), "{} {}", operation, path),
                    TreeOperation::Create => prop_assert_eq!(passes, judged(operation, &beside), "{} {}", operation, path),
                    _ => prop_assert_eq!(passes, judged(operation, &path), "{} {}", operation, path),
                }
            }
        }
    }
}

#[test]
fn denied_operation_is_audited_and_missing_file_is_not() {
    let house = populated_fixture();
    house.create_user("alice", &[("/a", Permission::R), ("/d/f", Permission::W)]);
    let view = house.view("alice");
    let claim = WriteConditions::none();
    view.stat(&tree_path("/a/f")).expect("seen");
    view.read(&tree_path("/a/f")).expect("read");
    view.read(&tree_path("/a/none")).map(drop).expect_err("missing");
    view.stage(&tree_path("/d/f"), None, &claim).map(drop).expect("a granted file in a folder that is not");
    view.list(&tree_path("/d"), false).map(drop).expect("the way down");
    view.properties(&tree_path("/d/f")).expect_err("not asked for by name");
    assert!(audit_events(&house, EventKind::AccessDenied).is_empty());

    view.stage(&tree_path("/a/new"), None, &claim).map(drop).expect_err("only r");
    view.remove_file(&tree_path("/a/f"), &claim).expect_err("only r");
    view.remove_file(&tree_path("/a/b/c/f"), &claim).expect_err("only r");
    view.remove_file(&tree_path("/a/b/c/plain"), &claim).expect_err("only r");
    view.read(&tree_path("/d/f")).map(drop).expect_err("only w");
    view.read(&tree_path("/d/plain")).map(drop).expect_err("hidden");
    view.rename(&tree_path("/d/f"), &tree_path("/d/g"), OverwriteMode::Refuse, &claim)
        .expect_err("a granted file stays");
    let told = audit_events(&house, EventKind::AccessDenied);
    let shown: Vec<_> = told
        .iter()
        .map(|event| {
            let why = event.detail.clone().expect("why");
            let operation = why.split(':').next().expect("operation").to_owned();
            (operation, event.path.clone().expect("path"), event.count)
        })
        .collect();
    for (operation, path, count) in [
        ("write", "/a/new", 1),
        ("delete", "/a/f", 1),
        ("delete", "/a/b/c", 2),
        ("read", "/d/f", 1),
        ("read", "/d/plain", 1),
        ("move", "/d/f", 1),
    ] {
        assert!(shown.contains(&(operation.to_owned(), path.to_owned(), count)), "{operation} {path}: {shown:?}");
    }
    assert_eq!(shown.len(), 6, "{shown:?}");
    assert_eq!(told[0].user, Some(crate::store::testing::login("alice")));
}
