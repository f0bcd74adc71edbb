//! Reading what is in memory.

use super::*;
use crate::domain::Permission;

fn read_cached(view: &View, path: &str) -> Option<String> {
    let reader = view.read_cached(&at(path))?;
    let mut buffer = vec![0; usize::try_from(reader.entry().size).expect("small")];
    let count = reader.read_cached_at(&mut buffer, 0).ok()?;
    assert_eq!(count, buffer.len());
    Some(String::from_utf8_lossy(&buffer).into_owned())
}

#[test]
fn what_is_read_without_waiting_is_what_is_read() {
    let house = House::new(&["/a/b"]);
    house.user("alice", &[("/a", Permission::RW)]);
    let view = house.view("alice");
    put(&view, "/a/b/file", "content").expect("put");
    assert_eq!(get(&view, "/a/b/file").as_deref().ok(), Some("content"));
    assert_eq!(read_cached(&view, "/a/b/file").as_deref(), Some("content"), "just written, so in memory");
    let (one, other) = (view.read(&at("/a/b/file")), view.read_cached(&at("/a/b/file")));
    assert_eq!(one.expect("read").entry(), other.expect("in memory").entry());
}

#[test]
fn reading_without_waiting_is_behind_the_same_check() {
    let house = House::new(&["/a/b", "/other"]);
    write(&house, "/a/file", "content");
    write(&house, "/a/b/file", "content");
    write(&house, "/other/file", "content");
    for (link, target) in [("/a/out", "/etc/passwd"), ("/a/up", "../other/file"), ("/a/down", "b/file")] {
        std::os::unix::fs::symlink(target, host(&house, link)).expect("link");
    }
    house.user("dropper", &[("/a", Permission::W)]);
    house.user("reader", &[("/a/b", Permission::R)]);
    house.user("writer", &[("/a", Permission::RW)]);
    let all = ["/a/file", "/a/b/file", "/a/b", "/a/nothing", "/other/file", "/a/out", "/a/up", "/a/down"];
    for (user, readable) in [("dropper", &[][..]), ("reader", &["/a/b/file"]), ("writer", &["/a/file", "/a/b/file"])] {
        let view = house.view(user);
        for path in all {
            let _ = get(&view, path);
            assert_eq!(read_cached(&view, path).is_some(), readable.contains(&path), "{user} {path}");
        }
    }
    let scoped = house.scoped("writer", &[("/a/b", Permission::RW)]);
    assert!(read_cached(&scoped, "/a/b/file").is_some() && read_cached(&scoped, "/a/file").is_none());
    fs::rename(host(&house, "/a/b"), host(&house, "/a/old")).expect("moved");
    fs::create_dir(host(&house, "/a/b")).expect("swapped");
    write(&house, "/a/b/file", "another's");
    assert!(read_cached(&scoped, "/a/b/file").is_none(), "a folder swapped behind the gateway's back");
}
