//! An open SFTP directory handle stays on the directory that was opened, with the permissions and locks of the place
//! where that directory is now. File handles are in `open_files.rs`.

use std::os::unix::fs::PermissionsExt;

use crate::support::{
    Fixture, LOCK_BODY, SftpAttributes, SftpClient, SftpError, encode_string, status_code, take_attrs, take_string,
};

const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;

/// Opens a directory, and returns its handle as requests carry it.
async fn opendir(sftp: &mut SftpClient, path: &str) -> Vec<u8> {
    let (_, body) = sftp.request(11, &[&encode_string(path.as_bytes())]).await.expect("OPENDIR");
    encode_string(take_string(&mut &body[..]))
}

async fn fstat(sftp: &mut SftpClient, handle: &[u8]) -> Result<SftpAttributes, SftpError> {
    sftp.request(8, &[handle]).await.map(|(_, body)| take_attrs(&mut &body[..]))
}

/// Sets the permission bits by FSETSTAT.
async fn fchmod(sftp: &mut SftpClient, handle: &[u8], mode: u32) -> Result<(), SftpError> {
    sftp.request(10, &[handle, &4u32.to_be_bytes(), &mode.to_be_bytes()]).await.map(drop)
}

async fn fstatvfs(sftp: &mut SftpClient, handle: &[u8]) -> Result<(), SftpError> {
    sftp.request(200, &[&encode_string(b"fstatvfs@openssh.com"), handle]).await.map(drop)
}

/// Creates a directory with mode 0755, whatever the umask is.
fn create_directory(gateway: &Fixture, path: &str) {
    gateway.create_host_directory(path);
    set_mode(gateway, path, 0o755);
}

fn set_mode(gateway: &Fixture, path: &str, mode: u32) {
    std::fs::set_permissions(gateway.host_path(path), std::fs::Permissions::from_mode(mode)).expect("set");
}

fn mode(gateway: &Fixture, path: &str) -> u32 {
    std::fs::metadata(gateway.host_path(path)).expect(path).permissions().mode() & 0o7777
}

fn rename(gateway: &Fixture, from: &str, to: &str) {
    std::fs::rename(gateway.host_path(from), gateway.host_path(to)).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_by_handle_are_those_of_the_renamed_directory() {
    let gateway = Fixture::start().await;
    // A drop box too: nothing in it is listed, and its owner may change it.
    for (login, grant) in [("alice", "/:rw"), ("dropper", "/:w")] {
        let token = gateway.create_user_and_token(login, grant);
        let (mut sftp, mut other) = (gateway.sftp(login, &token).await, gateway.sftp(login, &token).await);
        let (path, renamed) = (format!("/{login}-d"), format!("/{login}-renamed"));
        create_directory(&gateway, &path);
        let handle = opendir(&mut sftp, &path).await;
        other.rename(&path, &renamed).await.expect("renamed");
        create_directory(&gateway, &path);
        fchmod(&mut sftp, &handle, 0o700).await.expect("FSETSTAT");
        assert_eq!((mode(&gateway, &path), mode(&gateway, &renamed)), (0o755, 0o700), "{login}");
        let times = [8u32, 1_000_000_000, 981_173_106].map(u32::to_be_bytes).concat();
        sftp.request(10, &[&handle, &times]).await.expect("FSETSTAT of times");
        if login == "alice" {
            let attributes = fstat(&mut sftp, &handle).await.expect("FSTAT");
            assert_eq!((attributes.mode, attributes.times), (Some(0o040_700), Some((1_000_000_000, 981_173_106))));
        }
        fstatvfs(&mut sftp, &handle).await.expect("fstatvfs");
        sftp.request(4, &[&handle]).await.expect("CLOSE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_handle_has_the_permission_of_its_present_path() {
    let gateway = Fixture::start().await;
    for path in ["/open/d", "/closed", "/hidden", "/open/e"] {
        create_directory(&gateway, path);
    }
    gateway.create_user("alice", &["/open:rw", "/closed:r"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    let handle = opendir(&mut sftp, "/open/d").await;
    rename(&gateway, "/open/d", "/closed/d");
    // What has taken its path may be written, and is not touched.
    rename(&gateway, "/open/e", "/open/d");
    assert_eq!(status_code(fchmod(&mut sftp, &handle, 0o700).await), PERMISSION_DENIED);
    assert_eq!((mode(&gateway, "/open/d"), mode(&gateway, "/closed/d")), (0o755, 0o755));
    set_mode(&gateway, "/closed/d", 0o750);
    assert_eq!(fstat(&mut sftp, &handle).await.expect("FSTAT").mode, Some(0o040_750));
    rename(&gateway, "/closed/d", "/hidden/d");
    assert_eq!(status_code(fstat(&mut sftp, &handle).await), PERMISSION_DENIED);
    assert_eq!(status_code(fchmod(&mut sftp, &handle, 0o700).await), PERMISSION_DENIED);
    assert_eq!(status_code(fstatvfs(&mut sftp, &handle).await), PERMISSION_DENIED);
    assert_eq!(status_code(sftp.request(12, &[&handle]).await), PERMISSION_DENIED, "no end: nothing was listed");
    assert_eq!(mode(&gateway, "/hidden/d"), 0o750);
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_handle_obeys_locks_of_its_present_path() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let (mut sftp, dav) = (gateway.sftp("alice", &token).await, gateway.dav("alice", &token));
    create_directory(&gateway, "/d");
    let handle = opendir(&mut sftp, "/d").await;
    sftp.rename("/d", "/renamed").await.expect("renamed");
    create_directory(&gateway, "/d");
    assert_eq!(dav.send("LOCK", "/dav/d", &[("Depth", "0")], LOCK_BODY).await.status, 200);
    fchmod(&mut sftp, &handle, 0o700).await.expect("another directory is locked");
    assert_eq!(dav.send("LOCK", "/dav/renamed", &[("Depth", "0")], LOCK_BODY).await.status, 200);
    assert_eq!(status_code(fchmod(&mut sftp, &handle, 0o711).await), PERMISSION_DENIED);
    assert_eq!((mode(&gateway, "/d"), mode(&gateway, "/renamed")), (0o755, 0o700));
}

#[tokio::test(flavor = "multi_thread")]
async fn handle_of_a_removed_or_only_visible_directory_changes_nothing() {
    let gateway = Fixture::start().await;
    create_directory(&gateway, "/way/granted/d");
    set_mode(&gateway, "/way", 0o755);
    let token = gateway.create_user_and_token("alice", "/way/granted:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    let (visible, removed) = (opendir(&mut sftp, "/way").await, opendir(&mut sftp, "/way/granted/d").await);
    sftp.rmdir("/way/granted/d").await.expect("removed");
    create_directory(&gateway, "/way/granted/d");
    assert_eq!(status_code(fchmod(&mut sftp, &removed, 0o700).await), NO_SUCH_FILE);
    assert_eq!(mode(&gateway, "/way/granted/d"), 0o755, "another directory with its path");
    fstat(&mut sftp, &removed).await.expect("FSTAT");
    assert_eq!(status_code(fchmod(&mut sftp, &visible, 0o700).await), PERMISSION_DENIED);
    assert_eq!(mode(&gateway, "/way"), 0o755);
    assert_eq!(fstat(&mut sftp, &visible).await.expect("FSTAT").times, Some((0, 0)), "constants");
    sftp.request(12, &[&visible]).await.expect("READDIR");
    assert_eq!(status_code(sftp.request(12, &[&visible]).await), EOF);
    // A size is none of a directory's attributes, and a directory has no content to sync.
    let handle = opendir(&mut sftp, "/way/granted/d").await;
    let size = [&1u32.to_be_bytes()[..], &7u64.to_be_bytes()].concat();
    assert_eq!(status_code(sftp.request(10, &[&handle, &size]).await), FAILURE);
    assert_eq!(status_code(sftp.request(200, &[&encode_string(b"fsync@openssh.com"), &handle]).await), FAILURE);
}
