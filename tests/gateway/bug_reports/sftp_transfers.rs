//! Reports about SFTP uploads that are not closed, are interrupted, are refused late, or whose directory is renamed or
//! removed meanwhile.

use std::time::Duration;

use super::{FAILURE, NO_SUCH_FILE, PERMISSION_DENIED, READ, REPLACE, WRITE, start_with_alice, status_code};
use crate::support::ssh_packets::RawSsh;
use crate::support::{DavClient, Fixture, SftpClient, encode_packet, encode_string};

async fn wait_for_file(gateway: &Fixture, path: &str) -> Vec<u8> {
    for _ in 0..1000 {
        if let Ok(content) = std::fs::read(gateway.host_path(path)) {
            return content;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} does not appear");
}

/// A gateway, a token, and two sessions beside a WebDAV client.
async fn two_sessions() -> (Fixture, String, SftpClient, SftpClient, DavClient) {
    let (gateway, dav) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let (first, second) = (gateway.sftp("alice", &token).await, gateway.sftp("alice", &token).await);
    (gateway, token, first, second, dav)
}

/// A Node library's and sshj's users leave without SSH_FXP_CLOSE, but in an orderly way: end of data, the close of the
/// channel, or SSH_MSG_DISCONNECT. What was acknowledged is there, under its name.
#[tokio::test(flavor = "multi_thread")]
async fn upload_is_stored_after_eof_without_close() {
    let (gateway, token, mut ending, mut leaving, _) = two_sessions().await;
    for (sftp, path) in [(&mut ending, "/end"), (&mut leaving, "/disconnect")] {
        let handle = sftp.open_file(path.as_bytes(), REPLACE).await.expect("opened");
        sftp.write_at(&handle, 0, b"complete").await.expect("acknowledged");
    }
    ending.close_channel().await;
    leaving.disconnect().await;
    let mut ssh = RawSsh::logged_in(&gateway, &token).await;
    let channel = ssh.open_session(1 << 20, 1 << 15).await;
    ssh.request_sftp(channel, true).await;
    let open = [&1u32.to_be_bytes()[..], &encode_string(b"/close"), &REPLACE.to_be_bytes(), &[0; 4]].concat();
    ssh.send_channel_data(channel, &[encode_packet(1, &3u32.to_be_bytes()), encode_packet(3, &open)].concat()).await;
    let mut received = Vec::new();
    assert_eq!(ssh.read_sftp_packet(&mut received).await.0, 2);
    let (kind, handle) = ssh.read_sftp_packet(&mut received).await;
    assert_eq!(kind, 102);
    let write = [&2u32.to_be_bytes()[..], &handle[4..], &[0; 8], &encode_string(b"complete")].concat();
    ssh.send_channel_data(channel, &encode_packet(6, &write)).await;
    let (kind, status) = ssh.read_sftp_packet(&mut received).await;
    assert_eq!((kind, &status[4..8]), (101, &[0; 4][..]), "acknowledged");
    ssh.close_channel(channel).await;
    for path in ["/end", "/disconnect", "/close"] {
        assert_eq!(wait_for_file(&gateway, path).await, b"complete", "{path}");
    }
}

/// paramiko, Node's ssh2, TGPuttyLib and WinSCP: the line breaks in the middle of a put. The client comes back, finds as
/// much as was acknowledged, and goes on there, under the last name or the one for parts.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_is_resumed() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let content: Vec<u8> = (0..500_000u32).map(|n| (n / 7) as u8).collect();
    for (name, last) in [("up.filepart", Some("up")), ("other", None)] {
        let path = format!("/{name}");
        let mut broken = gateway.sftp("alice", &token).await;
        let handle = broken.open_file(path.as_bytes(), REPLACE).await.expect("opened");
        for at in (0..300_000).step_by(30_000) {
            broken.write_at(&handle, at as u64, &content[at..at + 30_000]).await.expect("acknowledged");
        }
        broken.drop_connection();
        let mut sftp = gateway.sftp("alice", &token).await;
        let mut size = None;
        for _ in 0..1000 {
            size = sftp.stat(&path).await.ok().and_then(|found| found.size);
            if size.is_some() {
                break;
            }
            // The server may still be about to notice.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(size, Some(300_000), "what was acknowledged, of {path}");
        let handle = sftp.open_file(path.as_bytes(), WRITE).await.expect("opened to go on");
        sftp.write_at(&handle, 300_000, &content[300_000..400_000]).await.expect("written");
        sftp.write_at(&handle, 400_000, &content[400_000..]).await.expect("written");
        sftp.close(&handle).await.expect("closed");
        let path = match last {
            Some(last) => {
                sftp.rename(&path, &format!("/{last}")).await.expect("renamed");
                format!("/{last}")
            }
            None => path,
        };
        assert!(std::fs::read(gateway.host_path(&path)).expect("whole") == content, "{path}");
    }
}

/// curl, pscp, paramiko's `open` and PHP's ssh2 swallow what CLOSE says: a type of file that the token may not write is
/// refused by a WRITE, as soon as the first bytes tell, so that their users hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn forbidden_mime_type_is_refused_at_the_write_that_reveals_it() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h", "--mime", "image/*"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    let text = b"words, no picture\n".repeat(60);
    for (path, content) in [("/a.png", &text[..]), ("/b.png", b"PK\x03\x04\x14\0\0\0\x08\0")] {
        let handle = sftp.open_file(path.as_bytes(), REPLACE).await.expect("opened");
        assert_eq!(status_code(sftp.write_at(&handle, 0, content).await), PERMISSION_DENIED, "{path}");
        assert!(sftp.close(&handle).await.is_err(), "{path}: and at CLOSE once more");
    }
    // As curl does it: all blocks are sent before any answer is read.
    let handle = sftp.open_file(b"/many.png", REPLACE).await.expect("opened");
    let block = vec![b'x'; 32_200];
    let mut ids = Vec::new();
    for at in (0..8).map(|number: u64| number * 32_200) {
        ids.push(
            sftp.send(6, &[&encode_string(&handle), &at.to_be_bytes(), &encode_string(&block)]).await.expect("sent"),
        );
    }
    let mut codes = Vec::new();
    for id in ids {
        let (_, status) = sftp.receive(id).await.expect("answered");
        codes.push(status[3]);
    }
    assert!(codes.contains(&3), "{codes:?}");
    assert!(sftp.close(&handle).await.is_err());
    for path in ["/a.png", "/b.png", "/many.png"] {
        assert_eq!(status_code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
    }
    // Blocks out of order are judged when nothing is missing before them.
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".as_slice(), &[0; 1000]].concat();
    let handle = sftp.open_file(b"/c.png", REPLACE).await.expect("opened");
    sftp.write_at(&handle, 600, &png[600..]).await.expect("written");
    sftp.write_at(&handle, 0, &png[..600]).await.expect("written");
    sftp.close(&handle).await.expect("a picture");
}

/// Somebody else sorts folders while an upload is under way: it ends up in the folder that it was begun in, wherever
/// that is by now, over either protocol.
#[tokio::test(flavor = "multi_thread")]
async fn upload_follows_a_directory_renamed_by_another_session() {
    let (gateway, _, mut first, mut second, dav) = two_sessions().await;
    for (turn, by_webdav) in [("sftp", false), ("webdav", true)] {
        let (before, after) = (format!("/{turn}"), format!("/{turn}-done"));
        first.mkdir(&before).await.expect("made");
        let handle = first.open_file(format!("{before}/f").as_bytes(), REPLACE).await.expect("opened");
        first.write_at(&handle, 0, b"hello").await.expect("written");
        if by_webdav {
            let to = format!("/dav{after}");
            let moved = dav.send("MOVE", &format!("/dav{before}"), &[("destination", &to)], "").await;
            assert_eq!(moved.status, 201, "{}", moved.text());
        } else {
            second.rename(&before, &after).await.expect("renamed");
        }
        first.write_at(&handle, 5, b" there").await.expect("it goes on");
        first.close(&handle).await.expect("committed");
        assert_eq!(second.get(&format!("{after}/f")).await, Ok(b"hello there".to_vec()), "{turn}");
        assert!(!gateway.host_path(&before).exists(), "{turn}");
    }
}

/// The same with a removal: a directory into which somebody uploads is not empty, although others don't see the file yet.
#[tokio::test(flavor = "multi_thread")]
async fn directory_with_an_upload_under_way_is_not_removed() {
    let (gateway, _, mut first, mut second, dav) = two_sessions().await;
    first.mkdir("/in").await.expect("made");
    first.mkdir("/other").await.expect("made");
    let handle = first.open_file(b"/in/f", READ | REPLACE).await.expect("opened");
    first.write_at(&handle, 0, b"hello").await.expect("written");
    assert_eq!(status_code(second.rmdir("/in").await), FAILURE);
    assert_eq!(status_code(first.rmdir("/in").await), FAILURE);
    assert_eq!(status_code(second.posix_rename("/other", "/in").await), FAILURE);
    let answer = dav.send("DELETE", "/dav/in", &[], "").await;
    assert_eq!((answer.status, answer.text().contains("upload")), (409, true), "{answer:?}");
    let over = [("Destination", "/dav/in"), ("Overwrite", "T")];
    assert_eq!(dav.send("MOVE", "/dav/other", &over, "").await.status, 409);
    first.close(&handle).await.expect("committed");
    assert_eq!(std::fs::read(gateway.host_path("/in/f")).expect("there"), b"hello");
    assert_eq!(dav.send("DELETE", "/dav/in", &[], "").await.status, 204);
}

/// rclone and asyncssh send the WRITEs of one upload in any order, hundreds at once, and blocks of up to 255 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn upload_accepts_writes_in_any_order_and_size() {
    let (_gateway, _, mut sftp, _, _) = two_sessions().await;
    let content: Vec<u8> = (0..8u32 << 20).map(|n| (n / 5) as u8).collect();
    let blocks = content.len() / 32_768;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opened");
    // 101 has no divisor in common with the number of blocks: each comes once, far from the one before.
    let writes: Vec<u8> = (0..blocks)
        .flat_map(|turn| {
            let at = turn * 101 % blocks * 32_768;
            let id = u32::try_from(turn).expect("few");
            let data = encode_string(&content[at..at + 32_768]);
            encode_packet(
                6,
                &[&id.to_be_bytes()[..], &encode_string(&handle), &(at as u64).to_be_bytes(), &data].concat(),
            )
        })
        .collect();
    for (_, kind, status) in sftp.exchange(&writes, blocks).await.expect("answered") {
        assert_eq!((kind, &status[..4]), (101, &[0; 4][..]));
    }
    sftp.close(&handle).await.expect("closed");
    assert!(sftp.get("/f").await == Ok(content));
    let handle = sftp.open_file(b"/g", REPLACE).await.expect("opened");
    sftp.write_at(&handle, 1 << 20, &[b'q'; 261_120]).await.expect("255 KiB at once, beyond the end");
    sftp.close(&handle).await.expect("closed");
    let whole = sftp.get("/g").await.expect("there");
    assert_eq!(whole.len(), (1 << 20) + 261_120);
    assert!(whole[..1 << 20].iter().all(|&byte| byte == 0) && whole[1 << 20..].iter().all(|&byte| byte == b'q'));
}
