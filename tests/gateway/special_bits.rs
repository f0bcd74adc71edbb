//! Set-user-ID, set-group-ID and sticky bits: a write clears them on a file, no client can set them, and directories
//! keep theirs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::{DavClient, Fixture, SftpClient, encode_string};

const READ_WRITE: u32 = 3;
const TRUNCATE: u32 = 0x10;
const ATTR_SIZE: u32 = 1;
const SPECIAL_AND_ALL_PERMISSIONS: u32 = 0o7755;

struct SpecialBitsEnv {
    gateway: Fixture,
    dav: DavClient,
    sftp: SftpClient,
}

impl SpecialBitsEnv {
    async fn new() -> Self {
        let gateway = Fixture::start().await;
        let token = gateway.create_user_and_token("alice", "/:rw");
        let (dav, sftp) = (gateway.dav("alice", &token), gateway.sftp("alice", &token).await);
        Self { gateway, dav, sftp }
    }

    /// Writes a file with all special bits.
    fn write_with_special_bits(&self, path: &str) {
        self.gateway.write_host_file(path, "content");
        fs::set_permissions(self.gateway.host_path(path), Permissions::from_mode(SPECIAL_AND_ALL_PERMISSIONS))
            .expect("mode");
        assert_eq!(self.mode(path), SPECIAL_AND_ALL_PERMISSIONS, "the file system of the test keeps the bits");
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.gateway.host_path(path)).expect("stat").permissions().mode() & 0o7777
    }

    async fn set_size(&mut self, path: &str, size: u64) {
        let path = encode_string(path.as_bytes());
        self.sftp.request(9, &[&path, &ATTR_SIZE.to_be_bytes(), &size.to_be_bytes()]).await.expect("set");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_write_clears_special_bits_of_a_file() {
    let mut env = SpecialBitsEnv::new().await;
    env.write_with_special_bits("/f");
    let handle = env.sftp.open_file(b"/f", READ_WRITE).await.expect("open");
    env.sftp.write_at(&handle, 0, b"C").await.expect("write");
    assert_eq!(env.mode("/f"), 0o755, "before the handle is closed");
    env.write_with_special_bits("/f");
    env.sftp.write_at(&handle, 1, b"O").await.expect("write");
    assert_eq!(env.mode("/f"), 0o755, "each write");
    env.write_with_special_bits("/f");
    let size = [&encode_string(&handle)[..], &ATTR_SIZE.to_be_bytes(), &7u64.to_be_bytes()].concat();
    env.sftp.request(10, &[&size]).await.expect("the size that it has");
    assert_eq!(env.mode("/f"), 0o755);
    env.sftp.close(&handle).await.expect("close");

    env.write_with_special_bits("/g");
    env.set_size("/g", 3).await;
    assert_eq!(env.mode("/g"), 0o755);

    env.write_with_special_bits("/h");
    let handle = env.sftp.open_file(b"/h", READ_WRITE | TRUNCATE).await.expect("open");
    env.sftp.write_at(&handle, 0, b"new").await.expect("write");
    env.sftp.close(&handle).await.expect("close");
    assert_eq!(env.mode("/h"), 0o755);

    env.write_with_special_bits("/i");
    env.sftp.put("/i", b"new").await.expect("put");
    assert_eq!(env.mode("/i"), 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_replacement_clears_special_bits_of_a_file() {
    let env = SpecialBitsEnv::new().await;
    env.write_with_special_bits("/put");
    assert_eq!(env.dav.put("/dav/put", "new").await.status, 204);
    assert_eq!(env.mode("/put"), 0o755);

    env.write_with_special_bits("/patched");
    let range = [("x-update-range", "bytes=0-2"), ("content-type", "application/x-sabredav-partialupdate")];
    assert_eq!(env.dav.send("PATCH", "/dav/patched", &range, "new").await.status, 204);
    assert_eq!(env.mode("/patched"), 0o755);

    env.write_with_special_bits("/source");
    env.write_with_special_bits("/target");
    for (target, status) in [("/dav/copy", 201), ("/dav/target", 204)] {
        let destination = env.dav.url(target);
        let copied = env.dav.send("COPY", "/dav/source", &[("destination", &destination)], "").await;
        assert_eq!(copied.status, status, "{target}");
        assert_eq!(env.mode(target.trim_start_matches("/dav")), 0o755, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_sets_no_special_bits_and_directories_keep_theirs() {
    let mut env = SpecialBitsEnv::new().await;
    env.gateway.write_host_file("/f", "x");
    env.sftp.chmod("/f", 0o7751).await.expect("chmod");
    assert_eq!(env.mode("/f"), 0o751);
    env.write_with_special_bits("/g");
    env.sftp.chmod("/g", 0o640).await.expect("chmod");
    assert_eq!(env.mode("/g"), 0o640);
    env.gateway.create_host_directory("/d");
    env.sftp.chmod("/d", 0o7750).await.expect("chmod");
    assert_eq!(env.mode("/d"), 0o750);
    fs::set_permissions(env.gateway.host_path("/d"), Permissions::from_mode(0o3770)).expect("mode");
    env.sftp.chmod("/d", 0o750).await.expect("chmod");
    env.sftp.put("/d/f", b"x").await.expect("put");
    assert_eq!(env.mode("/d"), 0o3750, "files in it still get its group");
}

#[tokio::test(flavor = "multi_thread")]
async fn readlink_of_a_regular_file_fails() {
    let mut env = SpecialBitsEnv::new().await;
    env.gateway.write_host_file("/f", "x");
    env.gateway.create_host_directory("/d");
    let _being_written = env.sftp.open_file(b"/new", 0x1a).await.expect("open");
    for (path, code) in [("/f", 4), ("/d", 4), ("/", 4), ("/new", 4), ("/missing", 2), ("/f/x", 2)] {
        assert_eq!(env.sftp.readlink(path).await.map_err(|error| error.code()), Err(code), "{path}");
    }
}
