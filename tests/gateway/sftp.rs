//! SFTP at the level of packets: framing, open flags, staging of uploads, renames, symbolic links and raw names. Every
//! packet and extension is in `sftp_conformance.rs`, longer sequences on files in `sftp_files.rs`, open handles in
//! `open_files.rs`.

use russh::ChannelMsg;

use crate::support::{Fixture, LOCK_BODY, SftpClient, SftpError, encode_packet, encode_string};

async fn start_sftp() -> (Fixture, String, SftpClient) {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, token, sftp)
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_home_is_the_deepest_common_directory_of_all_permissions() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/scope/a/file", "a");
    gateway.create_host_directory("/t/scope/b");
    gateway.create_user("alice", &["/:rw"]);
    let one = gateway.create_token("alice", &["-e", "1h", "-s", "path:/t/scope/a:r"]);
    let two = gateway.create_token("alice", &["-e", "1h", "-s", "path:/t/scope/a:r,path:/t/scope/b:rw"]);
    let mut sftp = gateway.sftp("alice", &one).await;
    assert_eq!(sftp.realpath(".").await.as_deref(), Ok("/t/scope/a"));
    assert_eq!(sftp.get("file").await.as_deref(), Ok(&b"a"[..]));
    assert_eq!(sftp.realpath("../../..").await.as_deref(), Ok("/"));
    let mut sftp = gateway.sftp("alice", &two).await;
    assert_eq!(sftp.realpath("").await.as_deref(), Ok("/t/scope"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_request_is_answered_with_its_id() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "content");
    assert_eq!(sftp.request(99, &[b"anything"]).await.map(drop).map_err(|e| e.code()), Err(8));
    assert_eq!(sftp.extended("nobody@example.org", &[b"x"]).await.map(drop).map_err(|e| e.code()), Err(8));
    assert_eq!(sftp.request(17, &[&[0, 0, 0, 99], b"short"]).await.map(drop).map_err(|e| e.code()), Err(5));
    assert_eq!(sftp.request(4, &[&encode_string(b"no such handle")]).await.map(drop).map_err(|e| e.code()), Err(4));
    assert_eq!(sftp.get("/file").await.as_deref(), Ok(&b"content"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn packet_of_zero_or_excessive_length_closes_the_session() {
    for length in [0u32, 1 << 20, u32::MAX] {
        let (_gateway, _, mut sftp) = start_sftp().await;
        let _ = sftp.send_raw(&length.to_be_bytes()).await;
        assert_eq!(sftp.receive(7).await, Err(SftpError::ConnectionLost), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_visible_only_to_its_session_until_close() {
    let (gateway, token, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "old");
    let mut other = gateway.sftp("alice", &token).await;
    let handle = sftp.open_file(b"/file", 2 | 8 | 16).await.expect("staged");
    let new = sftp.open_file(b"/new", 2 | 8 | 16).await.expect("staged");
    sftp.write_at(&handle, 0, b"new content").await.expect("written");
    assert_eq!(sftp.stat("/file").await.expect("there").size, Some(11));
    assert_eq!(sftp.stat("/new").await.expect("there").size, Some(0));
    assert_eq!(sftp.list("/").await, Ok(vec!["file".to_owned(), "new".to_owned()]));
    assert_eq!(other.get("/file").await.as_deref(), Ok(&b"old"[..]));
    assert_eq!(other.stat("/new").await.map_err(|e| e.code()), Err(2));
    assert_eq!(other.list("/").await, Ok(vec!["file".to_owned()]));
    sftp.close(&handle).await.expect("committed");
    sftp.close(&new).await.expect("committed");
    assert_eq!(other.get("/file").await.as_deref(), Ok(&b"new content"[..]));
    assert_eq!(other.list("/").await, Ok(vec!["file".to_owned(), "new".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_session_discards_its_staged_uploads() {
    let (gateway, token, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "old");
    let handle = sftp.open_file(b"/file", 2 | 8 | 16).await.expect("staged");
    sftp.write_at(&handle, 0, b"half").await.expect("written");
    sftp.drop_connection();
    while !gateway.staged_entries().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    assert_eq!(sftp.get("/file").await.as_deref(), Ok(&b"old"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_flags_are_honoured() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "0123456789");
    let middle = sftp.open_file(b"/file", 2).await.expect("opened");
    sftp.write_at(&middle, 4, b"xx").await.expect("written");
    sftp.close(&middle).await.expect("closed");
    let end = sftp.open_file(b"/file", 2 | 4).await.expect("opened");
    sftp.write_at(&end, 0, b"end").await.expect("written");
    sftp.close(&end).await.expect("closed");
    assert_eq!(sftp.get("/file").await.as_deref(), Ok(&b"0123xx6789end"[..]));
    assert_eq!(sftp.open_file(b"/file", 2 | 8 | 32).await.map_err(|e| e.code()), Err(4));
    let lock = sftp.open_file(b"/lock", 2 | 8 | 32).await.expect("made");
    assert!(gateway.host_path("/lock").exists(), "an exclusive file excludes from its opening on");
    sftp.close(&lock).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_rename_refuses_an_existing_target_that_posix_rename_replaces() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/a", "a");
    gateway.write_host_file("/b", "b");
    assert_eq!(sftp.rename("/a", "/b").await.map_err(|e| e.code()), Err(4));
    sftp.posix_rename("/a", "/b").await.expect("replaced");
    assert_eq!(sftp.get("/b").await.as_deref(), Ok(&b"a"[..]));
    assert_eq!(sftp.get("/a").await.map_err(|e| e.code()), Err(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_cannot_leave_the_root() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/folder/file", "content");
    std::os::unix::fs::symlink("/etc/passwd", gateway.host_path("/absolute")).expect("a link");
    std::os::unix::fs::symlink("../../../../etc/passwd", gateway.host_path("/outward")).expect("a link");
    std::os::unix::fs::symlink(".patgate", gateway.host_path("/reserved")).expect("a link");
    sftp.symlink("folder/file", "/inside").await.expect("made");
    assert_eq!(sftp.readlink("/inside").await.as_deref(), Ok("folder/file"));
    assert_eq!(sftp.get("/inside").await.as_deref(), Ok(&b"content"[..]));
    for target in ["/etc/passwd", "../../etc/passwd", "folder/../../x", ".patgate/x"] {
        assert_eq!(sftp.symlink(target, "/made").await.map_err(|e| e.code()), Err(3), "{target}");
    }
    for link in ["/absolute", "/outward", "/reserved"] {
        assert_eq!(sftp.readlink(link).await.map_err(|e| e.code()), Err(2), "{link}");
        assert_eq!(sftp.get(link).await.map_err(|e| e.code()), Err(2), "{link}");
        assert_eq!(sftp.lstat(link).await.map_err(|e| e.code()), Err(2), "{link}");
    }
    assert_eq!(sftp.list("/").await, Ok(vec!["folder".to_owned(), "inside".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_lock_refuses_sftp_write_with_a_message() {
    let (gateway, token, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "old");
    let dav = gateway.dav("alice", &token);
    let early = sftp.open_file(b"/file", 2 | 8 | 16).await.expect("before the lock");
    sftp.write_at(&early, 0, b"new").await.expect("before the lock");
    let lock = dav.send("LOCK", "/dav/file", &[("depth", "0")], LOCK_BODY).await;
    assert_eq!(lock.status, 200);
    let refused = |result: Result<(), SftpError>| match result {
        Err(SftpError::Status(3, message)) => message.contains("lock"),
        _ => false,
    };
    assert!(refused(sftp.close(&early).await), "an upload that was open is held back at its commit");
    assert!(refused(sftp.put("/file", b"new").await));
    assert!(refused(sftp.remove("/file").await));
    assert!(refused(sftp.rename("/file", "/other").await));
    assert!(refused(sftp.chmod("/file", 0o600).await));
    assert_eq!(dav.get("/dav/file").await.text(), "old");
    let token = lock.header("lock-token");
    assert_eq!(dav.send("UNLOCK", "/dav/file", &[("lock-token", token)], "").await.status, 204);
    sftp.put("/file", b"new").await.expect("unlocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn non_utf8_names_are_preserved_byte_for_byte() {
    let (gateway, token, mut sftp) = start_sftp().await;
    let handle = sftp.open_file(b"/odd\xff\xfename", 2 | 8 | 16).await.expect("made");
    sftp.write_at(&handle, 0, b"odd").await.expect("written");
    sftp.close(&handle).await.expect("committed");
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.list_hrefs("/dav/").await, Ok(vec!["/dav/odd%FF%FEname".to_owned()]));
    assert_eq!(dav.get("/dav/odd%FF%FEname").await.text(), "odd");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered() {
    let (gateway, _, mut sftp) = start_sftp().await;
    let content: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_be_bytes).collect();
    gateway.write_host_file("/large", &content);
    let handle = sftp.open_file(b"/large", 1).await.expect("opened");
    let mut ids = Vec::new();
    for block in 0..content.len().div_ceil(65536) {
        let offset = (block * 65536) as u64;
        ids.push(
            sftp.send(5, &[&encode_string(&handle), &offset.to_be_bytes(), &65536u32.to_be_bytes()])
                .await
                .expect("sent"),
        );
    }
    let mut read = Vec::new();
    for id in ids {
        let (kind, body) = sftp.receive(id).await.expect("answered");
        assert_eq!(kind, 103);
        read.extend_from_slice(&body[4..]);
    }
    assert!(read == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_accepted_in_any_fragmentation() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "content");
    let body = [&77u32.to_be_bytes()[..], &encode_string(b"/file")].concat();
    for byte in encode_packet(17, &body) {
        sftp.send_raw(&[byte]).await.expect("sent");
    }
    assert_eq!(sftp.receive(77).await.map(|(kind, _)| kind), Ok(105));
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_per_session_are_limited() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "content");
    let mut handles = Vec::new();
    let refused = loop {
        match sftp.open_file(b"/file", 1).await {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
        assert!(handles.len() < 100_000, "handles without end");
    };
    assert_eq!(refused.code(), 4);
    sftp.close(&handles[0]).await.expect("closed");
    sftp.open_file(b"/file", 1).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sftp_subsystem_runs_and_exit_status_is_0() {
    let (_gateway, _, sftp) = start_sftp().await;
    for request in ["exec", "shell", "subsystem"] {
        let mut channel = sftp.channel().await;
        let reply = match request {
            "exec" => channel.exec(true, "id").await,
            "shell" => channel.request_shell(true).await,
            _ => channel.request_subsystem(true, "shell").await,
        };
        reply.expect("sent");
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)), "{request}");
    }
    let mut channel = sftp.channel().await;
    channel.request_subsystem(true, "sftp").await.expect("sent");
    channel.data_bytes(encode_packet(1, &3u32.to_be_bytes())).await.expect("sent");
    channel.eof().await.expect("sent");
    let mut seen = Vec::new();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { .. } => seen.push("reply"),
            ChannelMsg::ExitStatus { exit_status: 0 } => seen.push("status 0"),
            ChannelMsg::Eof => seen.push("eof"),
            ChannelMsg::Close => seen.push("close"),
            _ => {}
        }
    }
    assert_eq!(seen[..3], ["reply", "status 0", "eof"], "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_accepted_by_keyboard_interactive() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    assert!(SftpClient::answer_prompt(gateway.sftp, "alice", &token).await);
    assert!(!SftpClient::answer_prompt(gateway.sftp, "alice", "wrong").await);
    assert!(!SftpClient::answer_prompt(gateway.sftp, "bob", &token).await);
}
