//! Paths are at most 4,095 bytes long: a move or copy whose result would exceed that is refused before it changes
//! anything.

use crate::support::Fixture;

/// A way down of `depth` directories with names of 200 bytes.
fn way(depth: usize) -> String {
    format!("/{}", "d".repeat(200)).repeat(depth)
}

#[tokio::test(flavor = "multi_thread")]
async fn move_and_copy_exceeding_the_path_limit_are_refused_before_any_change() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let (dav, mut sftp) = (gateway.dav("alice", &token), gateway.sftp("alice", &token).await);
    gateway.create_host_directory(&format!("/a{}", way(10)));
    gateway.write_host_file(&format!("/a{}/f", way(10)), "content");
    gateway.create_host_directory(&format!("/b{}", way(11)));
    gateway.create_host_directory("/c");
    let far = format!("/b{}/a", way(11));
    let before = gateway.all_paths();
    for method in ["MOVE", "COPY"] {
        let destination = dav.url(&format!("/dav{far}"));
        let answer = dav.send(method, "/dav/a", &[("destination", &destination)], "").await;
        assert_eq!(answer.status, 403, "{method}: {}", answer.text());
        assert!(answer.text().contains("4095 bytes at most"), "{method}: {}", answer.text());
    }
    let renames = [sftp.rename("/a", &far).await, sftp.posix_rename("/a", &far).await];
    for refused in renames {
        assert_eq!(refused.expect_err("refused").code(), 4);
    }
    assert_eq!(gateway.all_paths(), before, "nothing has changed");
    let near = dav.url("/dav/c/a");
    assert_eq!(dav.send("MOVE", "/dav/a", &[("destination", &near)], "").await.status, 201);
    assert_eq!(dav.get(&format!("/dav/c/a{}/f", way(10))).await.text(), "content");
}
