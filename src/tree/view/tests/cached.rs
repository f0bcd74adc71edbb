//! Tests of reads from the page cache: the same content and the same authorization as an ordinary read.

use super::*;
use crate::domain::Permission;
use crate::tree::fs::fault_injection::take_syscall_counts;

fn read_cached(view: &View, path: &str) -> Option<String> {
    let reader = view.open_cached(&tree_path(path))?.into_reader(view).ok()?;
    let mut buffer = vec![0; usize::try_from(reader.entry().size).expect("small")];
    let count = reader.read_cached_at(&mut buffer, 0).ok()?;
    assert_eq!(count, buffer.len());
    assert_eq!(view.open_cached(&tree_path(path))?.read_whole().ok()?, buffer, "at once as by and by");
    Some(String::from_utf8_lossy(&buffer).into_owned())
}

#[test]
fn cached_read_returns_same_content_as_read() {
    let fixture = TreeFixture::new(&["/a/b"]);
    fixture.create_user("alice", &[("/a", Permission::RW)]);
    let view = fixture.view("alice");
    put(&view, "/a/b/file", "content").expect("put");
    assert_eq!(get(&view, "/a/b/file").as_deref().ok(), Some("content"));
    assert_eq!(read_cached(&view, "/a/b/file").as_deref(), Some("content"), "just written, so in memory");
    let (plain, cached) = (view.read(&tree_path("/a/b/file")), view.open_cached(&tree_path("/a/b/file")));
    assert_eq!(plain.expect("read").entry(), cached.expect("in memory").entry());
}

#[test]
fn cached_read_asks_once_for_the_granted_directory_and_once_for_the_file() {
    let fixture = TreeFixture::new(&["/a"]);
    fixture.create_user("alice", &[("/a", Permission::RW)]);
    let view = fixture.view("alice");
    put(&view, "/a/file", "content").expect("put");
    take_syscall_counts();
    let content = view.open_cached(&tree_path("/a/file")).expect("in memory").read_whole().expect("read");
    assert_eq!((content, take_syscall_counts().stats), (b"content".to_vec(), 2));
}

#[test]
fn cached_read_is_authorized_like_read() {
    let fixture = TreeFixture::new(&["/a/b", "/other"]);
    write_outside_gateway(&fixture, "/a/file", "content");
    write_outside_gateway(&fixture, "/a/b/file", "content");
    write_outside_gateway(&fixture, "/other/file", "content");
    for (link, target) in [("/a/out", "/etc/passwd"), ("/a/up", "../other/file"), ("/a/down", "b/file")] {
        std::os::unix::fs::symlink(target, host_path(&fixture, link)).expect("link");
    }
    fixture.create_user("dropper", &[("/a", Permission::W)]);
    fixture.create_user("reader", &[("/a/b", Permission::R)]);
    fixture.create_user("writer", &[("/a", Permission::RW)]);
    let all = ["/a/file", "/a/b/file", "/a/b", "/a/nothing", "/other/file", "/a/out", "/a/up", "/a/down"];
    for (user, readable) in [("dropper", &[][..]), ("reader", &["/a/b/file"]), ("writer", &["/a/file", "/a/b/file"])] {
        let view = fixture.view(user);
        for path in all {
            let _ = get(&view, path);
            assert_eq!(read_cached(&view, path).is_some(), readable.contains(&path), "{user} {path}");
        }
    }
    let scoped = fixture.scoped_view("writer", &[("/a/b", Permission::RW)]);
    assert!(read_cached(&scoped, "/a/b/file").is_some() && read_cached(&scoped, "/a/file").is_none());
    fs::rename(host_path(&fixture, "/a/b"), host_path(&fixture, "/a/old")).expect("moved");
    fs::create_dir(host_path(&fixture, "/a/b")).expect("swapped");
    write_outside_gateway(&fixture, "/a/b/file", "another's");
    assert!(read_cached(&scoped, "/a/b/file").is_none(), "a directory swapped behind the gateway's back");
}
