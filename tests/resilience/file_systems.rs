//! Unusual file systems: mounted twice, overlayfs, FAT, btrfs subvolumes, coarse timestamps. All are served, with
//! distinct ETags and unchanged access.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use crate::mounts::{MountGuard, can_mount, create_image};
use crate::support::server::{ServerProcess, create_token, run_cli, staged_entries};
use crate::support::{DavClient, SftpClient};

/// A folder whose `files` are served.
fn mounted_directory() -> Option<tempfile::TempDir> {
    can_mount().then(|| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        folder
    })
}

fn create_user_and_token(folder: &Path, login: &str, grant: &str) -> String {
    run_cli(folder, &["admin", "user", "create", login, "--no-home", "--grant", grant]);
    create_token(folder, login)
}

async fn etag(dav: &DavClient, path: &str) -> String {
    let answer = dav.send("HEAD", path, &[], "").await;
    assert_eq!(answer.status, 200, "{path}");
    answer.header("etag").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn file_system_mounted_twice_and_within_itself_is_served() {
    let Some(folder) = mounted_directory() else { return };
    let folder = folder.path();
    let disk = folder.join("disk");
    std::fs::create_dir_all(disk.join("inner")).expect("folders");
    let files = folder.join("files");
    let _one = MountGuard::bind(&disk, &files.join("one"));
    let _two = MountGuard::bind(&disk, &files.join("two"));
    let _memory = MountGuard::tmpfs(&files.join("one/inner"));
    let _itself = MountGuard::bind(&files.join("one/inner"), &files.join("inner"));
    // Left by an earlier run.
    std::fs::create_dir(disk.join(".patgate")).expect("a folder");
    std::fs::write(disk.join(".patgate/debris"), "left").expect("written");
    let mut token = None;
    for round in 0..2 {
        let server = ServerProcess::start(folder);
        let token = token.get_or_insert_with(|| create_user_and_token(folder, "alice", "/:rw"));
        let dav = DavClient::new(server.http, "alice", token);
        for prefix in ["", "one/", "two/", "one/inner/", "inner/"] {
            let path = format!("/dav/{prefix}file-{round}");
            assert!([201, 204].contains(&dav.put(&path, "content").await.status), "{path}");
            assert_eq!(dav.get(&path).await.text(), "content");
            let moved = dav.send("MOVE", &path, &[("destination", &format!("/dav/{prefix}moved-{round}"))], "").await;
            assert!([201, 204].contains(&moved.status), "{path}: {}", moved.text());
        }
        assert_eq!(dav.get(&format!("/dav/two/moved-{round}")).await.text(), "content");
        let across = [("destination", format!("/dav/two/across-{round}"))];
        let across = [(across[0].0, across[0].1.as_str())];
        assert_eq!(dav.send("MOVE", &format!("/dav/moved-{round}"), &across, "").await.status, 201);
        assert_eq!(dav.status("DELETE", &format!("/dav/one/across-{round}")).await, 204);
        assert_eq!(dav.get("/readyz").await.status, 200);
        crate::mounts::wait_until("debris goes", async || {
            staged_entries(&disk).is_empty() && staged_entries(&files).is_empty()
        })
        .await;
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlayfs_copy_up_of_a_directory_keeps_access() {
    let Some(folder) = mounted_directory() else { return };
    let folder = folder.path();
    let _memory = MountGuard::tmpfs(&folder.join("layers"));
    let layer = |name: &str| folder.join("layers").join(name);
    for name in ["lower/alice/deep", "upper", "work"] {
        std::fs::create_dir_all(layer(name)).expect("folders");
    }
    std::fs::write(layer("lower/alice/old"), "from below").expect("written");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layer("lower").display(),
        layer("upper").display(),
        layer("work").display()
    );
    let mount = || MountGuard::with_arguments(&["-t", "overlay", "overlay", "-o", &options], &folder.join("files"));
    let mounted = mount();
    let server = ServerProcess::start(folder);
    let token = create_user_and_token(folder, "alice", "/alice:rw");
    let deep = create_user_and_token(folder, "bob", "/alice/deep:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    let bob = DavClient::new(server.http, "bob", &deep);
    assert_eq!(dav.get("/dav/alice/old").await.text(), "from below");
    assert_eq!(dav.put("/dav/alice/new", "new").await.status, 201);
    assert_eq!(bob.put("/dav/alice/deep/file", "new").await.status, 201);
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let before = etag(&dav, "/dav/alice/old").await;
    let handle = sftp.open_file(b"/alice/old", 2).await.expect("opened");
    sftp.write_at(&handle, 0, b"FROM").await.expect("written");
    sftp.close(&handle).await.expect("closed");
    assert_ne!(etag(&dav, "/dav/alice/old").await, before);
    assert_eq!(dav.get("/dav/alice/old").await.text(), "FROM below");
    assert_eq!(dav.send("MOVE", "/dav/alice/new", &[("destination", "/dav/alice/deep/moved")], "").await.status, 201);
    assert_eq!(bob.get("/dav/alice/deep/moved").await.text(), "new");
    server.stop();
    // The same layers, mounted anew: another device, and the same tree.
    drop(mounted);
    let _mounted = mount();
    let server = ServerProcess::start(folder);
    let (dav, bob) = (DavClient::new(server.http, "alice", &token), DavClient::new(server.http, "bob", &deep));
    assert_eq!(dav.get("/dav/alice/old").await.text(), "FROM below");
    assert_eq!(bob.get("/dav/alice/deep/file").await.text(), "new");
}

/// Changes one file in every way with the same size and time; every content has a tag of its own, also over a restart.
async fn assert_etags_distinguish_contents(folder: &Path) {
    let server = ServerProcess::start(folder);
    let token = create_user_and_token(folder, "alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let mut seen = HashSet::new();
    let time = [("x-oc-mtime", "1600000000")];
    for round in 0..20_u8 {
        let content = format!("round {round:02}");
        let answer = dav.send("PUT", "/dav/file", &time, content).await;
        assert!([201, 204].contains(&answer.status));
        assert!(seen.insert(answer.header("etag").to_owned()), "an upload with the same time and size");
        let handle = sftp.open_file(b"/file", 2).await.expect("opened");
        sftp.write_at(&handle, 0, b"ROUND").await.expect("written");
        sftp.close(&handle).await.expect("closed");
        let written = etag(&dav, "/dav/file").await;
        assert!(seen.insert(written.clone()), "a write in place");
        // Setting a time is no change of content.
        let set = "<propertyupdate xmlns='DAV:'><set><prop><getlastmodified>Sun, 13 Sep 2020 12:26:40 GMT\
             </getlastmodified></prop></set></propertyupdate>";
        assert_eq!(dav.send("PROPPATCH", "/dav/file", &[], set).await.status, 207);
        assert_eq!(etag(&dav, "/dav/file").await, written, "a time that is set");
        let copied = dav.send("COPY", "/dav/file", &[("destination", "/dav/copy")], "").await;
        assert!([201, 204].contains(&copied.status));
        assert!(seen.insert(etag(&dav, "/dav/copy").await), "a copy over a copy");
    }
    let last = etag(&dav, "/dav/file").await;
    assert!(dav.send("PROPFIND", "/dav/file", &[("depth", "0")], "").await.text().contains(last.trim_matches('"')));
    let unchanged = dav.send("GET", "/dav/file", &[("if-none-match", &*last)], "").await;
    assert_eq!(unchanged.status, 304);
    server.stop();
    let server = ServerProcess::start(folder);
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(etag(&dav, "/dav/file").await, last, "the same content after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn etags_differ_on_a_file_system_with_one_second_timestamps() {
    let Some(folder) = mounted_directory() else { return };
    let Some(image) = create_image(folder.path(), 16, &["mkfs.ext2", "-q", "-I", "128"]) else { return };
    let files = folder.path().join("files");
    let _mounted = MountGuard::image_file(&image, &files);
    std::fs::write(files.join("probe"), "").expect("written");
    let probe = std::fs::metadata(files.join("probe")).expect("there");
    assert_eq!(std::os::unix::fs::MetadataExt::mtime_nsec(&probe), 0, "it keeps whole seconds");
    assert_etags_distinguish_contents(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etags_differ_on_a_file_system_with_nanosecond_timestamps() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    assert_etags_distinguish_contents(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fat_file_system_is_served() {
    let Some(folder) = mounted_directory() else { return };
    let kernel = std::fs::read_to_string("/proc/filesystems").expect("Linux tells");
    if !kernel.lines().any(|line| line.trim() == "vfat") {
        eprintln!("not tested: the kernel has no vfat");
        return;
    }
    let Some(image) = create_image(folder.path(), 16, &["mkfs.vfat"]) else { return };
    let _mounted = MountGuard::image_file(&image, &folder.path().join("files"));
    assert_etags_distinguish_contents(folder.path()).await;
}

/// NFS, or a file system without flock(2), can't be made here: a folder on one is served where it is named.
#[tokio::test(flavor = "multi_thread")]
async fn network_file_system_is_served() {
    let Some(network) = std::env::var_os("RESILIENCE_NETWORK_FOLDER") else {
        eprintln!("not tested: RESILIENCE_NETWORK_FOLDER names no folder on NFS or a file system without flock");
        return;
    };
    let Some(folder) = mounted_directory() else { return };
    let _bound = MountGuard::bind(Path::new(&network), &folder.path().join("files"));
    assert_etags_distinguish_contents(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn btrfs_subvolumes_are_served_as_one_tree() {
    let Some(folder) = mounted_directory() else { return };
    let Some(image) = create_image(folder.path(), 128, &["mkfs.btrfs", "-q"]) else { return };
    let files = folder.path().join("files");
    let _mounted = MountGuard::image_file(&image, &files);
    let output = Command::new("btrfs").args(["subvolume", "create"]).arg(files.join("sub")).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut first_etag = None;
    for round in 0..2 {
        let server = ServerProcess::start(folder.path());
        let (token, sub) = first_etag.get_or_insert_with(|| {
            (
                create_user_and_token(folder.path(), "alice", "/:rw"),
                create_user_and_token(folder.path(), "bob", "/sub:rw"),
            )
        });
        let (dav, bob) = (DavClient::new(server.http, "alice", token), DavClient::new(server.http, "bob", sub));
        assert_eq!(dav.status("MKCOL", &format!("/dav/folder-{round}")).await, 201);
        assert_eq!(dav.put(&format!("/dav/folder-{round}/file"), "content").await.status, 201);
        let to = format!("/dav/sub/folder-{round}");
        let moved = dav.send("MOVE", &format!("/dav/folder-{round}"), &[("destination", &*to)], "").await;
        assert_eq!(moved.status, 201, "{}", moved.text());
        assert_eq!(bob.get(&format!("/dav/sub/folder-{round}/file")).await.text(), "content");
        assert_eq!(bob.put("/dav/sub/own", "content").await.status, if round == 0 { 201 } else { 204 });
        assert_eq!(dav.get("/readyz").await.status, 200);
        server.stop();
    }
}
