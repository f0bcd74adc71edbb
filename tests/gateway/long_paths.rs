//! Paths are at most 4,095 bytes long: a move or copy whose result would exceed that is refused before it changes
//! anything.

use crate::support::Fixture;

/// A way down of `depth` directories with names of 200 bytes.
fn nested_path(depth: usize) -> String {
    format!("/{}", "d".repeat(200)).repeat(depth)
}

#[tokio::test(flavor = "multi_thread")]
async fn move_and_copy_exceeding_the_path_limit_are_refused_before_any_change() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let (dav, mut sftp) = (gateway.dav("alice", &token), gateway.sftp("alice", &token).await);
    gateway.create_host_directory(&format!("/a{}", nested_path(10)));
    gateway.write_host_file(&format!("/a{}/f", nested_path(10)), "content");
    gateway.create_host_directory(&format!("/b{}", nested_path(11)));
    gateway.create_host_directory("/c");
    let too_long_destination = format!("/b{}/a", nested_path(11));
    let before = gateway.all_paths();
    for method in ["MOVE", "COPY"] {
        let destination = dav.url(&format!("/dav{too_long_destination}"));
        let answer = dav.send(method, "/dav/a", &[("destination", &destination)], "").await;
        assert_eq!(answer.status, 403, "{method}: {}", answer.text());
        assert!(answer.text().contains("4095 bytes at most"), "{method}: {}", answer.text());
    }
    let renames =
        [sftp.rename("/a", &too_long_destination).await, sftp.posix_rename("/a", &too_long_destination).await];
    for refused in renames {
        assert_eq!(refused.expect_err("refused").code(), 4);
    }
    assert_eq!(gateway.all_paths(), before, "nothing has changed");
    let valid_destination = dav.url("/dav/c/a");
    assert_eq!(dav.send("MOVE", "/dav/a", &[("destination", &valid_destination)], "").await.status, 201);
    assert_eq!(dav.get(&format!("/dav/c/a{}/f", nested_path(10))).await.text(), "content");
}
