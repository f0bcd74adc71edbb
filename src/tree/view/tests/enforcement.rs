//! Tests that `TreeOperation::authorize`, which explains access, agrees with the views, which enforce it, and that
//! denials are audited.

use proptest::prelude::*;

use super::*;
use crate::domain::{AuditEvent, EventKind, TreeOperation};
use crate::domain::{Permission, TreePath};
use crate::store::{EventCursor, EventFilter};
use crate::tree::{AttributeChanges, DirectoryListing, OverwriteMode};

const DIRECTORIES: [&str; 5] = ["/", "/a", "/a/b", "/a/b/c", "/d"];

/// Creates a tree in which every directory holds the files `f`, which may be granted, and `plain`, which is not.
fn populated_fixture() -> TreeFixture {
    let fixture = TreeFixture::new(&DIRECTORIES[1..]);
    for directory in DIRECTORIES {
        for name in ["f", "plain"] {
            std::fs::write(fixture.root_path.join(&directory[1..]).join(name), "text").expect("file");
        }
    }
    fixture
}

fn child_path(directory: &str, name: &str) -> TreePath {
    tree_path(&format!("{}/{name}", directory.trim_end_matches('/')))
}

/// Tells whether a view allows an operation. Nothing is changed: the conditions fail just before the effect.
fn is_allowed(view: &View, operation: TreeOperation, path: &TreePath) -> bool {
    let stop = WriteConditions { lock_tokens: &[], evaluate: &|| Err(Error::PreconditionFailed) };
    let parent = path.parent().unwrap_or_default();
    let sibling = child_path(&parent.to_string(), "new");
    let is_allowed = |result: Result<()>| matches!(result, Ok(()) | Err(Error::PreconditionFailed));
    match operation {
        TreeOperation::Stat => is_allowed(view.stat(path).map(drop)),
        TreeOperation::List => {
            view.list(path, false).is_ok_and(|listing| listed_names(listing).contains(&"plain".to_owned()))
        }
        TreeOperation::Read => is_allowed(view.read(path).map(drop)),
        TreeOperation::Copy => is_allowed(view.copy(path, &sibling, true, OverwriteMode::Replace, &stop).map(drop)),
        TreeOperation::Write => is_allowed(view.set_properties(path, &[], &AttributeChanges::default(), &stop)),
        TreeOperation::Create => is_allowed(view.stage(&sibling, None, &stop).map(drop)),
        TreeOperation::Delete => is_allowed(view.remove_all(path, &stop)),
        TreeOperation::Move => is_allowed(view.rename(path, &sibling, OverwriteMode::Replace, &stop).map(drop)),
        TreeOperation::Link => is_allowed(view.hard_link(path, &sibling, &stop)),
    }
}

fn listed_names(listing: DirectoryListing) -> Vec<String> {
    listing.map(|entry| String::from_utf8_lossy(&entry.expect("entry").name).into_owned()).collect()
}

fn any_grants() -> impl Strategy<Value = Vec<(String, Permission)>> {
    let path = prop_oneof![
        proptest::sample::select(&DIRECTORIES[..]).prop_map(str::to_owned),
        proptest::sample::select(&DIRECTORIES[..]).prop_map(|directory| child_path(directory, "f").to_string()),
    ];
    let one = (path, 1u8..4).prop_map(|(path, bits)| (path, Permission::from_bits(bits).expect("bits")));
    proptest::collection::vec(one, 0..4)
}

fn audit_events(fixture: &TreeFixture, kind: EventKind) -> Vec<AuditEvent> {
    fixture.auth.flush();
    let filter = EventFilter { kind: Some(kind), ..EventFilter::default() };
    let stored = fixture.store.audit_events(&filter, EventCursor::After(0), 10_000).expect("read");
    stored.into_iter().map(|stored| stored.event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn explanation_matches_enforcement(grants in any_grants(), scopes in proptest::option::of(any_grants())) {
        let fixture = populated_fixture();
        fn as_str_pairs(rights: &[(String, Permission)]) -> Vec<(&str, Permission)> {
            rights.iter().map(|(path, permission)| (path.as_str(), *permission)).collect()
        }
        fixture.create_user("alice", &as_str_pairs(&grants));
        let view = match &scopes {
            None => fixture.view("alice"),
            Some(scopes) => fixture.scoped_view("alice", &as_str_pairs(scopes)),
        };
        let access = view.session().access().expect("valid session");
        let permits = |operation: TreeOperation, path: &TreePath| operation.authorize(&access, path).is_ok();
        for directory in DIRECTORIES {
            let file = child_path(directory, "f");
            let sibling = child_path(directory, "new");
            for operation in TreeOperation::ALL {
                let path = if operation == TreeOperation::List { tree_path(directory) } else { file.clone() };
                let is_allowed = is_allowed(&view, operation, &path);
                match operation {
                    TreeOperation::Copy => {
                        let both = permits(operation, &path) && permits(TreeOperation::Create, &sibling);
                        prop_assert_eq!(is_allowed, both, "{} {}", operation, path);
                    }
                    TreeOperation::Link => prop_assert!(!is_allowed || permits(operation, &path), "{} {}", operation, path),
                    TreeOperation::Create => prop_assert_eq!(is_allowed, permits(operation, &sibling), "{} {}", operation, path),
                    _ => prop_assert_eq!(is_allowed, permits(operation, &path), "{} {}", operation, path),
                }
            }
        }
    }
}

#[test]
fn denied_operation_is_audited_and_missing_file_is_not() {
    let fixture = populated_fixture();
    fixture.create_user("alice", &[("/a", Permission::R), ("/d/f", Permission::W)]);
    let view = fixture.view("alice");
    let conditions = WriteConditions::none();
    view.stat(&tree_path("/a/f")).expect("seen");
    view.read(&tree_path("/a/f")).expect("read");
    view.read(&tree_path("/a/none")).map(drop).expect_err("missing");
    view.stage(&tree_path("/d/f"), None, &conditions).map(drop).expect("a granted file in a directory that is not");
    view.list(&tree_path("/d"), false).map(drop).expect("the way down");
    view.properties(&tree_path("/d/f")).expect_err("not asked for by name");
    assert!(audit_events(&fixture, EventKind::AccessDenied).is_empty());

    view.stage(&tree_path("/a/new"), None, &conditions).map(drop).expect_err("only r");
    view.remove_file(&tree_path("/a/f"), &conditions).expect_err("only r");
    view.remove_file(&tree_path("/a/b/c/f"), &conditions).expect_err("only r");
    view.remove_file(&tree_path("/a/b/c/plain"), &conditions).expect_err("only r");
    view.read(&tree_path("/d/f")).map(drop).expect_err("only w");
    view.read(&tree_path("/d/plain")).map(drop).expect_err("hidden");
    view.rename(&tree_path("/d/f"), &tree_path("/d/g"), OverwriteMode::Refuse, &conditions)
        .expect_err("a granted file stays");
    let events = audit_events(&fixture, EventKind::AccessDenied);
    let denials: Vec<_> = events
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
        assert!(denials.contains(&(operation.to_owned(), path.to_owned(), count)), "{operation} {path}: {denials:?}");
    }
    assert_eq!(denials.len(), 6, "{denials:?}");
    assert_eq!(events[0].user, Some(crate::store::testing::login("alice")));
}

#[test]
fn move_to_where_content_would_become_readable_is_audited() {
    let fixture = populated_fixture();
    fixture.create_user("bob", &[("/a", Permission::RW), ("/d", Permission::W)]);
    let (view, conditions) = (fixture.view("bob"), WriteConditions::none());
    view.rename(&tree_path("/d/f"), &tree_path("/a/moved"), OverwriteMode::Refuse, &conditions).expect_err("only w");
    let events = audit_events(&fixture, EventKind::AccessDenied);
    let denials: Vec<_> = events.iter().map(|event| (event.detail.as_deref(), event.path.as_deref())).collect();
    assert_eq!(denials, [(Some("move: content that may not be read would become readable"), Some("/d/f"))]);
}
