//! Reports about SFTP directory listings: pipelined requests, and removals during the listing.

use std::collections::BTreeSet;

use super::{STATUS_EOF, start_with_alice};
use crate::support::{SftpError, encode_string, take_string, take_u32};

/// The names in a NAME reply, in order.
fn names(mut body: &[u8]) -> Vec<String> {
    let count = take_u32(&mut body);
    (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(take_string(&mut body)).into_owned();
            take_string(&mut body);
            let flags = take_u32(&mut body);
            let fields = [(1, 8), (2, 8), (4, 4), (8, 8)];
            let size: usize = fields.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, size)| size).sum();
            body = &body[size..];
            name
        })
        .collect()
}

/// FileZilla sends many READDIR at once: each name comes once, and what is left is answered with the end.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_readdir_returns_each_name_once() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    for number in 0..900 {
        gateway.write_host_file(&format!("/d/name-that-is-longer-{number:05}"), "");
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    let (_, handle) = sftp.request(11, &[&encode_string(b"/d")]).await.expect("OPENDIR");
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(sftp.send(12, &[&handle]).await.expect("sent"));
    }
    let (mut seen, mut ends) = (Vec::new(), 0);
    for id in ids {
        let (kind, body) = sftp.receive(id).await.expect("answered");
        match kind {
            104 => {
                assert_eq!(ends, 0, "no name after the end");
                seen.extend(names(&body));
            }
            _ => {
                assert_eq!((kind, take_u32(&mut &body[..])), (101, STATUS_EOF));
                ends += 1;
            }
        }
    }
    assert!(ends > 0);
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (902, 902), "with . and ..");
}

/// `rm -r` of clients that remove what a listing has shown before they ask for more of it: nothing is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn removals_during_readdir_skip_no_name() {
    let (gateway, dav) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    for number in 0..900 {
        gateway.write_host_file(&format!("/d/name-that-is-longer-{number:05}"), "");
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    let mut other = gateway.sftp("alice", &token).await;
    let (_, handle) = sftp.request(11, &[&encode_string(b"/d")]).await.expect("OPENDIR");
    let mut seen = BTreeSet::new();
    loop {
        match sftp.request(12, &[&handle]).await {
            Ok((_, body)) => {
                for name in names(&body).into_iter().filter(|name| name != "." && name != "..") {
                    // By the session itself, by another, and over the other protocol.
                    match seen.len() % 3 {
                        0 => sftp.remove(&format!("/d/{name}")).await.expect(&name),
                        1 => other.remove(&format!("/d/{name}")).await.expect(&name),
                        _ => assert_eq!(dav.status("DELETE", &format!("/dav/d/{name}")).await, 204, "{name}"),
                    }
                    seen.insert(name);
                }
            }
            Err(SftpError::Status(STATUS_EOF, _)) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(seen.len(), 900);
    assert_eq!(sftp.list("/d").await, Ok(vec![]));
    sftp.rmdir("/d").await.expect("empty");
}
