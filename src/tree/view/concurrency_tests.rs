//! Tests of operations of many sessions at once: they don't deadlock, and leave no dangling node or lock.

use std::sync::mpsc;
use std::time::Duration;

use super::{OverwriteMode, View, WriteConditions};
use crate::domain::Permission;
use crate::tree::testing::{TreeFixture, tree_path};
use crate::tree::{AttributeChanges, DeadProperty, Error, LockRequest, PropertyChange, PropertyName};

const OPERATIONS_PER_THREAD: u32 = 200;

/// Runs an operation that depends on `number` alone; a refusal is no failure.
fn run_operation(view: &View, number: u32) -> Result<(), Error> {
    let directory_path = |n: u32| tree_path(["/x", "/x/a", "/y", "/y/a", "/x/b", "/y/b"][n as usize % 6]);
    let (directory, other_directory) = (directory_path(number / 10), directory_path(number / 60));
    let file = directory.join(&tree_path("f"));
    let conditions = WriteConditions::none();
    match number % 10 {
        0 | 7 | 8 => view.create_directory(&directory, &AttributeChanges::default(), &conditions).map(drop),
        1 => view.rename(&directory, &other_directory, OverwriteMode::Replace, &conditions).map(drop),
        2 | 9 => {
            let upload = view.stage(&file, None, &conditions)?;
            upload.write_at(b"x", 0)?;
            upload.commit(&conditions).map(drop)
        }
        3 => {
            let name = PropertyName { namespace: String::new(), name: "p".to_owned() };
            let change = PropertyChange::Set(DeadProperty { name, value: number.to_string() });
            view.set_properties(&directory, &[change], &AttributeChanges::default(), &conditions)
        }
        4 => {
            let request = LockRequest {
                exclusive: number.is_multiple_of(2),
                depth_infinity: true,
                owner: String::new(),
                timeout: Duration::from_secs(60),
            };
            let lock = view.lock(&file, &request, &conditions)?.lock;
            view.unlock(&file, &lock.token)
        }
        5 => view.copy(&directory, &other_directory, true, OverwriteMode::Replace, &conditions).map(drop),
        _ => view.remove_all(&directory, &conditions),
    }
}

#[test]
fn concurrent_operations_finish_and_leave_no_dangling_node() {
    let fixture = TreeFixture::new(&["/x/a", "/y/b"]);
    fixture.create_user("ann", &[("/", Permission::RW)]);
    let (sender, receiver) = mpsc::channel();
    for thread in 0..6 {
        let (view, sender) = (fixture.view("ann"), sender.clone());
        std::thread::spawn(move || {
            let mut number: u32 = 77 + thread;
            for _ in 0..OPERATIONS_PER_THREAD {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match run_operation(&view, number >> 8) {
                    Err(error @ (Error::Filesystem(_) | Error::Store(_))) => sender.send(Err(error.to_string())),
                    Ok(()) | Err(_) => Ok(()),
                }
                .expect("sent");
            }
            sender.send(Ok(())).expect("sent");
        });
    }
    for _ in 0..6 {
        let outcome = receiver.recv_timeout(Duration::from_secs(120)).expect("no deadlock");
        assert_eq!(outcome, Ok(()));
    }
    fixture.tree.wait_for_background_deletes();
    let named = fixture.tree.nodes(&tree_path("/")).expect("read");
    assert!(named.iter().all(|node| !node.dangling), "{named:?}");
    assert!(fixture.store.intents().expect("read").is_empty());
    assert!(fixture.view("ann").locks(&tree_path("/x")).expect("read").is_empty());
}

#[test]
fn one_of_concurrent_ensure_directory_calls_reports_creation() {
    let fixture = TreeFixture::new(&[]);
    for round in 0..50 {
        let path = tree_path(&format!("/a/{round}"));
        let created: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.tree.ensure_directory(&path))).collect();
            threads.into_iter().map(|thread| thread.join().expect("thread").expect("there")).collect()
        });
        assert_eq!(created.iter().filter(|created| **created).count(), 1, "{round}");
    }
}
