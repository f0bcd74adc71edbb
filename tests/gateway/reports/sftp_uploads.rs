//! Modes, times and owners that clients set around an upload: before the data, after it, by handle and by path.

use super::{APPEND, CREATE, EXCLUSIVE, PERMISSION_DENIED, READ, REPLACE, TRUNCATE, WRITE, alice, code};
use crate::support::{Fixture, Sftp, SftpError, string};

async fn started() -> (Fixture, Sftp) {
    let (gateway, _) = alice().await;
    let token = gateway.token("alice", &["-e", "1h"]);
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, sftp)
}

/// Where attributes are set: SETSTAT of a path, or FSETSTAT of a handle.
#[derive(Clone, Copy)]
enum Target<'a> {
    Path(&'a str),
    Handle(&'a [u8]),
}

/// Sets attributes that are written as their flags and numbers.
async fn set(sftp: &mut Sftp, target: Target<'_>, attributes: &[u32]) -> Result<(), SftpError> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|number| number.to_be_bytes()).collect();
    let (kind, place) = match target {
        Target::Path(path) => (9, string(path.as_bytes())),
        Target::Handle(handle) => (10, string(handle)),
    };
    sftp.ask(kind, &[&place, &attributes]).await.map(drop)
}

async fn modified(sftp: &mut Sftp, path: &str) -> u32 {
    sftp.stat(path).await.expect(path).times.expect("times").1
}

const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
/// The number of every owner and group, as it is shown.
const SHOWN: u32 = 1000;

/// phpseclib's and sshfs' chgrp or chown sends the number that is to stay as -1: what is so already is no change. A
/// foreign owner is refused, and the rest of the request is set, as OpenSSH does (`cp -p` lost modes and times).
#[tokio::test(flavor = "multi_thread")]
async fn owner_that_stays_is_no_change_and_the_rest_of_a_refused_request_is_set() {
    let (gateway, mut sftp) = started().await;
    gateway.write("/file", "x");
    gateway.folder("/folder");
    let open = sftp.open_file(b"/file", WRITE).await.expect("opened");
    for target in [Target::Path("/file"), Target::Path("/folder"), Target::Handle(&open)] {
        for owner in [(SHOWN, SHOWN), (u32::MAX, SHOWN), (SHOWN, u32::MAX), (u32::MAX, u32::MAX)] {
            set(&mut sftp, target, &[OWNER, owner.0, owner.1]).await.expect("nothing changes");
            let all = [OWNER | MODE | TIMES, owner.0, owner.1, 0o601, 9, 10];
            set(&mut sftp, target, &all).await.expect("the rest changes");
        }
        for owner in [(0, 0), (u32::MAX, 0), (1, SHOWN)] {
            set(&mut sftp, target, &[MODE | TIMES, 0o644, 1, 2]).await.expect("set");
            let all = [OWNER | MODE | TIMES, owner.0, owner.1, 0o601, 9, 10];
            assert_eq!(code(set(&mut sftp, target, &all).await), PERMISSION_DENIED, "{owner:?}");
            let path = if let Target::Path(path) = target { path } else { "/file" };
            let now = sftp.stat(path).await.expect("there");
            assert_eq!((now.mode.map(|mode| mode & 0o777), now.times), (Some(0o601), Some((9, 10))), "{path}");
        }
    }
    sftp.close(&open).await.expect("closed");
}

/// SFTPGo, a Node library, ProFTPD and sshj: modes and times come before the data, after it and after CLOSE, by handle and
/// by path, also for a file that is made read only; each is taken.
#[tokio::test(flavor = "multi_thread")]
async fn modes_and_times_are_taken_before_the_data_after_it_and_after_close() {
    let (gateway, mut sftp) = started().await;
    let open = async |sftp: &mut Sftp, path: &str, mode: u32| {
        let attributes = [MODE.to_be_bytes(), mode.to_be_bytes()].concat();
        let (_, body) =
            sftp.ask(3, &[&string(path.as_bytes()), &REPLACE.to_be_bytes(), &attributes]).await.expect("opened");
        crate::support::take_string(&mut &body[..]).to_vec()
    };
    let handle = open(&mut sftp, "/a", 0o666).await;
    set(&mut sftp, Target::Handle(&handle), &[MODE, 0o666]).await.expect("FSETSTAT before the data");
    set(&mut sftp, Target::Path("/a"), &[MODE, 0o666]).await.expect("SETSTAT before the data");
    sftp.write_at(&handle, 0, b"x").await.expect("written");
    set(&mut sftp, Target::Handle(&handle), &[TIMES, 5, 6]).await.expect("after the data");
    sftp.close(&handle).await.expect("closed");
    set(&mut sftp, Target::Path("/a"), &[MODE, 0o640]).await.expect("after CLOSE");
    let now = sftp.stat("/a").await.expect("there");
    assert_eq!((now.mode, now.times, now.size), (Some(0o100_640), Some((5, 6)), Some(1)));
    set(&mut sftp, Target::Path("/a"), &[TIMES, 7, 8]).await.expect("after CLOSE");
    assert_eq!(modified(&mut sftp, "/a").await, 8);
    let reader = sftp.open_file(b"/a", READ).await.expect("opened");
    set(&mut sftp, Target::Handle(&reader), &[TIMES, 9, 10]).await.expect("of a handle to read");
    sftp.close(&reader).await.expect("closed");
    assert_eq!(modified(&mut sftp, "/a").await, 10);
    let handle = open(&mut sftp, "/read-only", 0o444).await;
    sftp.write_at(&handle, 0, b"x").await.expect("its first handle writes it");
    sftp.close(&handle).await.expect("closed");
    assert_eq!(std::fs::read(gateway.host("/read-only")).expect("there"), b"x");
    assert_eq!(sftp.stat("/read-only").await.expect("there").mode, Some(0o100_444));
}

/// sshfs (`cp -p`, `install -p`, `tar x`) sets times by path while the file is open: what was set last stands after CLOSE,
/// however the file was opened.
#[tokio::test(flavor = "multi_thread")]
async fn time_that_was_set_last_stands_after_close() {
    let (gateway, mut sftp) = started().await;
    for flags in [REPLACE, WRITE | CREATE | EXCLUSIVE, WRITE | CREATE, WRITE | TRUNCATE, WRITE | APPEND, READ | WRITE] {
        let path = format!("/{flags}");
        if flags & CREATE == 0 {
            gateway.write(&path, "before");
        }
        let handle = sftp.open_file(path.as_bytes(), flags).await.expect("opened");
        sftp.write_at(&handle, 0, b"data").await.expect("written");
        set(&mut sftp, Target::Path(&path), &[TIMES, 1000, 1000]).await.expect("by path");
        sftp.close(&handle).await.expect("closed");
        assert_eq!(modified(&mut sftp, &path).await, 1000, "{flags}: by path");
        let again = flags & !EXCLUSIVE;
        let handle = sftp.open_file(path.as_bytes(), again).await.expect("opened");
        sftp.write_at(&handle, 0, b"data").await.expect("written");
        set(&mut sftp, Target::Handle(&handle), &[TIMES, 2000, 2000]).await.expect("by handle");
        sftp.close(&handle).await.expect("closed");
        assert_eq!(modified(&mut sftp, &path).await, 2000, "{flags}: by handle");
        let handle = sftp.open_file(path.as_bytes(), again).await.expect("opened");
        set(&mut sftp, Target::Path(&path), &[TIMES, 3000, 3000]).await.expect("by path");
        sftp.write_at(&handle, 0, b"more").await.expect("written");
        sftp.close(&handle).await.expect("closed");
        assert!(modified(&mut sftp, &path).await > 1_000_000_000, "{flags}: a write after it moves it");
    }
    sftp.put("/empty", b"").await.expect("put");
    set(&mut sftp, Target::Path("/empty"), &[TIMES, 1000, 1000]).await.expect("set");
    sftp.chmod("/empty", 0o600).await.expect("set");
    assert_eq!(modified(&mut sftp, "/empty").await, 1000);
    let handle = sftp.open_file(b"/empty", WRITE | TRUNCATE).await.expect("opened");
    sftp.close(&handle).await.expect("closed");
    assert!(modified(&mut sftp, "/empty").await > 1_000_000_000, "truncation moves it");
}
