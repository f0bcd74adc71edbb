//! Reports about modes, times and owners that SFTP clients set before, during and after an upload, by handle and by
//! path.

use super::{
    APPEND, CREATE, EXCLUSIVE, PERMISSION_DENIED, READ, REPLACE, TRUNCATE, WRITE, start_with_alice, status_code,
};
use crate::support::{Fixture, SftpClient, SftpError, encode_string};

async fn start_sftp() -> (Fixture, SftpClient) {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, sftp)
}

/// Target of attributes: SETSTAT of a path, or FSETSTAT of a handle.
#[derive(Clone, Copy)]
enum SetstatTarget<'a> {
    Path(&'a str),
    Handle(&'a [u8]),
}

/// Sets attributes that are written as their flags and numbers.
async fn set_attributes(sftp: &mut SftpClient, target: SetstatTarget<'_>, attributes: &[u32]) -> Result<(), SftpError> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|number| number.to_be_bytes()).collect();
    let (kind, path_or_handle) = match target {
        SetstatTarget::Path(path) => (9, encode_string(path.as_bytes())),
        SetstatTarget::Handle(handle) => (10, encode_string(handle)),
    };
    sftp.request(kind, &[&path_or_handle, &attributes]).await.map(drop)
}

async fn modification_time(sftp: &mut SftpClient, path: &str) -> u32 {
    sftp.stat(path).await.expect(path).times.expect("times").1
}

const ATTR_UIDGID: u32 = 2;
const ATTR_PERMISSIONS: u32 = 4;
const ATTR_ACMODTIME: u32 = 8;
/// The number of every owner and group, as it is shown.
const REPORTED_UID: u32 = 1000;

/// phpseclib's and sshfs' chgrp or chown sends the number that is to stay as -1: what is so already is no change. A
/// foreign owner is refused, and the rest of the request is set, as OpenSSH does (`cp -p` lost modes and times).
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_owner_is_accepted_and_other_attributes_are_still_set() {
    let (gateway, mut sftp) = start_sftp().await;
    gateway.write_host_file("/file", "x");
    gateway.create_host_directory("/folder");
    let open = sftp.open_file(b"/file", WRITE).await.expect("opened");
    for target in [SetstatTarget::Path("/file"), SetstatTarget::Path("/folder"), SetstatTarget::Handle(&open)] {
        for owner in
            [(REPORTED_UID, REPORTED_UID), (u32::MAX, REPORTED_UID), (REPORTED_UID, u32::MAX), (u32::MAX, u32::MAX)]
        {
            set_attributes(&mut sftp, target, &[ATTR_UIDGID, owner.0, owner.1]).await.expect("nothing changes");
            let all = [ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_ACMODTIME, owner.0, owner.1, 0o601, 9, 10];
            set_attributes(&mut sftp, target, &all).await.expect("the rest changes");
        }
        for owner in [(0, 0), (u32::MAX, 0), (1, REPORTED_UID)] {
            set_attributes(&mut sftp, target, &[ATTR_PERMISSIONS | ATTR_ACMODTIME, 0o644, 1, 2]).await.expect("set");
            let all = [ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_ACMODTIME, owner.0, owner.1, 0o601, 9, 10];
            assert_eq!(status_code(set_attributes(&mut sftp, target, &all).await), PERMISSION_DENIED, "{owner:?}");
            let path = if let SetstatTarget::Path(path) = target { path } else { "/file" };
            let now = sftp.stat(path).await.expect("there");
            assert_eq!((now.mode.map(|mode| mode & 0o777), now.times), (Some(0o601), Some((9, 10))), "{path}");
        }
    }
    sftp.close(&open).await.expect("closed");
}

/// SFTPGo, a Node library, ProFTPD and sshj: modes and times come before the data, after it and after CLOSE, by handle and
/// by path, also for a file that is made read only; each is taken.
#[tokio::test(flavor = "multi_thread")]
async fn modes_and_times_can_be_set_before_during_and_after_an_upload() {
    let (gateway, mut sftp) = start_sftp().await;
    let open = async |sftp: &mut SftpClient, path: &str, mode: u32| {
        let attributes = [ATTR_PERMISSIONS.to_be_bytes(), mode.to_be_bytes()].concat();
        let (_, body) = sftp
            .request(3, &[&encode_string(path.as_bytes()), &REPLACE.to_be_bytes(), &attributes])
            .await
            .expect("opened");
        crate::support::take_string(&mut &body[..]).to_vec()
    };
    let handle = open(&mut sftp, "/a", 0o666).await;
    set_attributes(&mut sftp, SetstatTarget::Handle(&handle), &[ATTR_PERMISSIONS, 0o666])
        .await
        .expect("FSETSTAT before the data");
    set_attributes(&mut sftp, SetstatTarget::Path("/a"), &[ATTR_PERMISSIONS, 0o666])
        .await
        .expect("SETSTAT before the data");
    sftp.write_at(&handle, 0, b"x").await.expect("written");
    set_attributes(&mut sftp, SetstatTarget::Handle(&handle), &[ATTR_ACMODTIME, 5, 6]).await.expect("after the data");
    sftp.close(&handle).await.expect("closed");
    set_attributes(&mut sftp, SetstatTarget::Path("/a"), &[ATTR_PERMISSIONS, 0o640]).await.expect("after CLOSE");
    let now = sftp.stat("/a").await.expect("there");
    assert_eq!((now.mode, now.times, now.size), (Some(0o100_640), Some((5, 6)), Some(1)));
    set_attributes(&mut sftp, SetstatTarget::Path("/a"), &[ATTR_ACMODTIME, 7, 8]).await.expect("after CLOSE");
    assert_eq!(modification_time(&mut sftp, "/a").await, 8);
    let reader = sftp.open_file(b"/a", READ).await.expect("opened");
    set_attributes(&mut sftp, SetstatTarget::Handle(&reader), &[ATTR_ACMODTIME, 9, 10])
        .await
        .expect("of a handle to read");
    sftp.close(&reader).await.expect("closed");
    assert_eq!(modification_time(&mut sftp, "/a").await, 10);
    let handle = open(&mut sftp, "/read-only", 0o444).await;
    sftp.write_at(&handle, 0, b"x").await.expect("its first handle writes it");
    sftp.close(&handle).await.expect("closed");
    assert_eq!(std::fs::read(gateway.host_path("/read-only")).expect("there"), b"x");
    assert_eq!(sftp.stat("/read-only").await.expect("there").mode, Some(0o100_444));
}

/// sshfs (`cp -p`, `install -p`, `tar x`) sets times by path while the file is open: what was set last stands after CLOSE,
/// however the file was opened.
#[tokio::test(flavor = "multi_thread")]
async fn last_set_time_is_kept_after_close() {
    let (gateway, mut sftp) = start_sftp().await;
    for flags in [REPLACE, WRITE | CREATE | EXCLUSIVE, WRITE | CREATE, WRITE | TRUNCATE, WRITE | APPEND, READ | WRITE] {
        let path = format!("/{flags}");
        if flags & CREATE == 0 {
            gateway.write_host_file(&path, "before");
        }
        let handle = sftp.open_file(path.as_bytes(), flags).await.expect("opened");
        sftp.write_at(&handle, 0, b"data").await.expect("written");
        set_attributes(&mut sftp, SetstatTarget::Path(&path), &[ATTR_ACMODTIME, 1000, 1000]).await.expect("by path");
        sftp.close(&handle).await.expect("closed");
        assert_eq!(modification_time(&mut sftp, &path).await, 1000, "{flags}: by path");
        let again = flags & !EXCLUSIVE;
        let handle = sftp.open_file(path.as_bytes(), again).await.expect("opened");
        sftp.write_at(&handle, 0, b"data").await.expect("written");
        set_attributes(&mut sftp, SetstatTarget::Handle(&handle), &[ATTR_ACMODTIME, 2000, 2000])
            .await
            .expect("by handle");
        sftp.close(&handle).await.expect("closed");
        assert_eq!(modification_time(&mut sftp, &path).await, 2000, "{flags}: by handle");
        let handle = sftp.open_file(path.as_bytes(), again).await.expect("opened");
        set_attributes(&mut sftp, SetstatTarget::Path(&path), &[ATTR_ACMODTIME, 3000, 3000]).await.expect("by path");
        sftp.write_at(&handle, 0, b"more").await.expect("written");
        sftp.close(&handle).await.expect("closed");
        assert!(modification_time(&mut sftp, &path).await > 1_000_000_000, "{flags}: a write after it moves it");
    }
    sftp.put("/empty", b"").await.expect("put");
    set_attributes(&mut sftp, SetstatTarget::Path("/empty"), &[ATTR_ACMODTIME, 1000, 1000]).await.expect("set");
    sftp.chmod("/empty", 0o600).await.expect("set");
    assert_eq!(modification_time(&mut sftp, "/empty").await, 1000);
    let handle = sftp.open_file(b"/empty", WRITE | TRUNCATE).await.expect("opened");
    sftp.close(&handle).await.expect("closed");
    assert!(modification_time(&mut sftp, "/empty").await > 1_000_000_000, "truncation moves it");
}
