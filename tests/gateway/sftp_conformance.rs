//! Conformance of SFTP: every packet of version 3, every extension, hashes, names as bytes, times and `longname`. What
//! clients do with them is in `sftp_files.rs`.

use sha2::Digest;

use crate::support::{Fixture, SftpClient, SftpError, encode_string, status_code};

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const REPLACE: u32 = WRITE | CREATE | 16;

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

async fn start_sftp() -> (Fixture, String, SftpClient) {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, token, sftp)
}

fn acmodtime_attributes(accessed: u32, modified: u32) -> Vec<u8> {
    [8, accessed, modified].map(u32::to_be_bytes).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_version_3_is_answered() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", "content");
    let (none, number) = ([0; 4], |n: u32| n.to_be_bytes());
    let file = sftp.open_file(b"/f", READ | WRITE).await.expect("opens");
    let (_, folder) = sftp.request(11, &[&encode_string(b"/")]).await.expect("opens");
    let file = encode_string(&file);
    let path = |path: &str| encode_string(path.as_bytes());
    let start = 0u64.to_be_bytes();
    for (kind, body, answer) in [
        (3, vec![path("/new"), number(REPLACE).to_vec(), none.to_vec()], HANDLE),
        (5, vec![file.clone(), start.to_vec(), number(4).to_vec()], DATA),
        (6, vec![file.clone(), start.to_vec(), encode_string(b"C")], STATUS),
        (7, vec![path("/f")], ATTRS),
        (8, vec![file.clone()], ATTRS),
        (9, vec![path("/f"), acmodtime_attributes(1, 2)], STATUS),
        (10, vec![file.clone(), acmodtime_attributes(3, 4)], STATUS),
        (11, vec![path("/")], HANDLE),
        (12, vec![folder], NAME),
        (14, vec![path("/d"), none.to_vec()], STATUS),
        (16, vec![path("d/..")], NAME),
        (17, vec![path("/f")], ATTRS),
        (20, vec![path("f"), path("/l")], STATUS),
        (19, vec![path("/l")], NAME),
        (18, vec![path("/f"), path("/d/f")], STATUS),
        (4, vec![file.clone()], STATUS),
        (13, vec![path("/d/f")], STATUS),
        (15, vec![path("/d")], STATUS),
    ] {
        let fields: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
        let answered = sftp.request(kind, &fields).await.unwrap_or_else(|error| panic!("type {kind}: {error:?}"));
        assert_eq!(answered.0, answer, "type {kind}");
    }
    assert_eq!(status_code(sftp.request(5, &[&file, &start, &number(4)]).await), 4, "a closed handle");
    for kind in [0, 2, 21, 99, 101, 199, 201, 255] {
        assert_eq!(status_code(sftp.request(kind, &[&path("/")]).await), 8, "type {kind} is none of a client's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_extension_is_answered() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", "content");
    let (from, to) = (sftp.open_file(b"/f", READ).await, sftp.open_file(b"/g", REPLACE).await);
    let (from, to) = (encode_string(&from.expect("opens")), encode_string(&to.expect("opens")));
    let hashes = [encode_string(b"md5"), vec![0; 20]].concat();
    let mut announced = std::mem::take(&mut sftp.extensions);
    let path = |path: &str| encode_string(path.as_bytes());
    let arguments = [
        ("copy-data", [from.clone(), vec![0; 16], to.clone(), vec![0; 8]].concat(), STATUS),
        ("statvfs@openssh.com", path("/"), EXTENDED_REPLY),
        ("fstatvfs@openssh.com", from.clone(), EXTENDED_REPLY),
        ("fsync@openssh.com", to, STATUS),
        ("lsetstat@openssh.com", [path("/f"), acmodtime_attributes(5, 6)].concat(), STATUS),
        ("hardlink@openssh.com", [path("/f"), path("/h")].concat(), STATUS),
        ("posix-rename@openssh.com", [path("/h"), path("/i")].concat(), STATUS),
        ("limits@openssh.com", Vec::new(), EXTENDED_REPLY),
        ("expand-path@openssh.com", path("~"), NAME),
        ("home-directory", path("alice"), NAME),
        ("users-groups-by-id@openssh.com", [encode_string(&[]), encode_string(&[])].concat(), EXTENDED_REPLY),
        ("check-file", [from.clone(), hashes.clone()].concat(), EXTENDED_REPLY),
        ("check-file-handle", [from, hashes.clone()].concat(), EXTENDED_REPLY),
        ("check-file-name", [path("/f"), hashes].concat(), EXTENDED_REPLY),
    ];
    for (name, argument, answer) in &arguments {
        let answered = sftp.request(200, &[&encode_string(name.as_bytes()), argument]).await;
        assert_eq!(answered.unwrap_or_else(|error| panic!("{name}: {error:?}")).0, *answer, "{name}");
    }
    let mut known: Vec<_> = arguments.iter().map(|(name, ..)| (*name).to_owned()).collect();
    announced.sort();
    known.sort();
    assert_eq!(announced, known);
}

/// Asks for hashes: where, which, from which offset, how many bytes, in blocks of how many.
async fn check_file(
    sftp: &mut SftpClient,
    (extension, place): (&str, &[u8]),
    algorithms: &str,
    offset: u64,
    length: u64,
    block: u32,
) -> Result<(String, Vec<u8>), SftpError> {
    let numbers = [&offset.to_be_bytes()[..], &length.to_be_bytes(), &block.to_be_bytes()].concat();
    let (name, algorithms) = (encode_string(extension.as_bytes()), encode_string(algorithms.as_bytes()));
    let (kind, body) = sftp.request(200, &[&name, &encode_string(place), &algorithms, &numbers]).await?;
    assert_eq!(kind, EXTENDED_REPLY);
    let rest = body.strip_prefix(&encode_string(b"check-file")[..]).expect("the name of the answer");
    let length = u32::from_be_bytes(rest[..4].try_into().expect("a length")) as usize;
    let used = String::from_utf8(rest[4..4 + length].to_vec()).expect("text");
    Ok((used, rest[4 + length..].to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_match_the_content() {
    let (gateway, _, mut sftp) = start_sftp().await;
    let content: Vec<u8> = (0..700_001u32).map(|n| (n / 3) as u8).collect();
    gateway.write_host_file("/f", &content);
    gateway.write_host_file("/empty", "");
    let handle = sftp.open_file(b"/f", READ).await.expect("opens");
    let targets: [(&str, &[u8]); 3] =
        [("check-file-name", b"/f"), ("check-file-handle", &handle), ("check-file", &handle)];
    let sha256 = |bytes: &[u8]| sha2::Sha256::digest(bytes).to_vec();
    for target in targets {
        for (algorithm, hash) in [
            ("md5", md5::compute(&content).0.to_vec()),
            ("sha1", sha1::Sha1::digest(&content).to_vec()),
            ("sha256", sha256(&content)),
            ("sha384", sha2::Sha384::digest(&content).to_vec()),
            ("sha512", sha2::Sha512::digest(&content).to_vec()),
        ] {
            let answered = check_file(&mut sftp, target, algorithm, 0, 0, 0).await.expect(algorithm);
            assert_eq!(answered, (algorithm.to_owned(), hash), "{target:?}");
        }
        let blocks: Vec<u8> = content[10..600_010].chunks(65_536).flat_map(sha256).collect();
        let answered = check_file(&mut sftp, target, "crc32,sha256,md5", 10, 600_000, 65_536).await.expect("blocks");
        assert_eq!(answered, ("sha256".to_owned(), blocks));
        let tail = check_file(&mut sftp, target, "sha256", 700_000, 9_999_999, 0).await.expect("up to the end").1;
        assert_eq!(tail, sha256(&content[700_000..]));
    }
    let empty = check_file(&mut sftp, ("check-file-name", b"/empty"), "sha256", 0, 0, 0).await.expect("of nothing").1;
    assert_eq!(empty, sha256(b""));
    let empty = check_file(&mut sftp, ("check-file-name", b"/empty"), "md5", 0, 0, 256).await.expect("no block").1;
    assert!(empty.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_an_open_upload_match_the_bytes_written_so_far() {
    let (_gateway, _, mut sftp) = start_sftp().await;
    let handle = sftp.open_file(b"/f", REPLACE | READ).await.expect("opens");
    sftp.write_at(&handle, 0, b"staged").await.expect("writes");
    for target in [("check-file-handle", &handle[..]), ("check-file-name", b"/f")] {
        let hash = check_file(&mut sftp, target, "md5", 0, 0, 0).await.expect("a hash").1;
        assert_eq!(hash, md5::compute(b"staged").0, "{target:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_file_on_unhashable_path_is_refused_without_leaking_a_handle() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", vec![7; 4_000_000]);
    gateway.create_host_directory("/d");
    let name = ("check-file-name", &b"/f"[..]);
    let writer = sftp.open_file(b"/w", REPLACE).await.expect("opens");
    for round in 0..700 {
        assert_eq!(status_code(check_file(&mut sftp, name, "crc32", 0, 0, 0).await), 8, "{round}");
        assert_eq!(status_code(check_file(&mut sftp, name, "md5", 0, 0, 255).await), 4);
        assert_eq!(status_code(check_file(&mut sftp, name, "md5", 4_000_001, 0, 0).await), 1, "past the end");
    }
    assert_eq!(status_code(check_file(&mut sftp, name, "sha512", 0, 0, 256).await), 4, "more than an answer holds");
    assert_eq!(status_code(check_file(&mut sftp, ("check-file-name", b"/d"), "md5", 0, 0, 0).await), 4);
    assert_eq!(status_code(check_file(&mut sftp, ("check-file-name", b"/none"), "md5", 0, 0, 0).await), 2);
    assert_eq!(
        status_code(check_file(&mut sftp, ("check-file-handle", &writer), "md5", 0, 0, 0).await),
        4,
        "write only"
    );
    assert_eq!(status_code(check_file(&mut sftp, ("check-file-handle", b"12345678"), "md5", 0, 0, 0).await), 4);
    let box_only = gateway.create_user_and_token("bob", "/:w");
    let mut bob = gateway.sftp("bob", &box_only).await;
    assert_eq!(status_code(check_file(&mut bob, name, "md5", 0, 0, 0).await), 3, "a hash needs what reading needs");
}

#[tokio::test(flavor = "multi_thread")]
async fn non_utf8_names_round_trip_over_both_protocols() {
    let (gateway, token, mut sftp) = start_sftp().await;
    let dav = gateway.dav("alice", &token);
    sftp.request(14, &[&encode_string(b"/d\xe9"), &[0; 4]]).await.expect("MKDIR");
    assert_eq!(dav.put("/dav/d%E9/f%FFg", "from dav").await.status, 201);
    let handle = sftp.open_file(b"/d\xe9/f\xffg", READ).await.expect("the bytes that were meant");
    assert_eq!(sftp.read_at(&handle, 0, 100).await.as_deref(), Ok(&b"from dav"[..]));
    sftp.close(&handle).await.expect("closes");
    sftp.request(18, &[&encode_string(b"/d\xe9/f\xffg"), &encode_string(b"/d\xe9/\x80")]).await.expect("RENAME");
    assert_eq!(dav.list_hrefs("/dav/d%E9/").await, Ok(vec!["/dav/d%E9/%80".to_owned()]));
    assert_eq!(dav.get("/dav/d%E9/%80").await.text(), "from dav");
    let target = dav.url("/dav/d%E9/%C3%28");
    assert_eq!(dav.send("MOVE", "/dav/d%E9/%80", &[("destination", &target)], "").await.status, 201);
    let (_, folder) = sftp.request(11, &[&encode_string(b"/d\xe9")]).await.expect("OPENDIR");
    let (_, names) = sftp.request(12, &[&folder]).await.expect("READDIR");
    let expected = encode_string(b"\xc3\x28");
    assert!(names.windows(expected.len()).any(|part| part == expected), "{names:?}");
    assert!(names.windows(3).any(|part| part == b" \xc3\x28"), "in the long name, too");
    assert_eq!(dav.status("DELETE", "/dav/d%E9/%C3%28").await, 204);
    sftp.request(15, &[&encode_string(b"/d\xe9")]).await.expect("RMDIR");
}

#[tokio::test(flavor = "multi_thread")]
async fn append_ignores_the_offset_and_writes_at_the_end() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", "one");
    let first = sftp.open_file(b"/f", WRITE | APPEND).await.expect("opens");
    let second = sftp.open_file(b"/f", WRITE | APPEND | CREATE).await.expect("opens");
    sftp.write_at(&first, 0, b" two").await.expect("writes");
    sftp.write_at(&second, 0, b" three").await.expect("writes");
    sftp.write_at(&first, 1, b" four").await.expect("writes");
    sftp.close(&first).await.expect("closes");
    sftp.close(&second).await.expect("closes");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"one two three four"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_is_resumed_and_size_can_be_set() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", "0123");
    let handle = sftp.open_file(b"/f", WRITE | CREATE).await.expect("opens");
    let size = sftp.stat("/f").await.expect("there").size.expect("a size");
    sftp.write_at(&handle, size, b"4567").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234567"[..]));
    let size = |bytes: u64| [&1u32.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    sftp.request(9, &[&encode_string(b"/f"), &size(5)]).await.expect("SETSTAT cuts");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234"[..]));
    let handle = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.request(10, &[&encode_string(&handle), &size(7)]).await.expect("FSETSTAT draws out");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234\0\0"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_set_by_any_request_are_stored_and_shown_over_webdav() {
    let (gateway, token, mut sftp) = start_sftp().await;
    let dav = gateway.dav("alice", &token);
    gateway.write_host_file("/f", "old");
    gateway.create_host_directory("/d");
    let editor = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.write_at(&editor, 0, b"new").await.expect("writes");
    sftp.request(10, &[&encode_string(&editor), &acmodtime_attributes(7, 981_173_106)])
        .await
        .expect("FSETSTAT on an edit");
    sftp.close(&editor).await.expect("closes");
    assert_eq!(sftp.stat("/f").await.expect("there").times, Some((7, 981_173_106)));
    assert_eq!(dav.get("/dav/f").await.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    let reader = sftp.open_file(b"/f", READ).await.expect("opens");
    sftp.request(10, &[&encode_string(&reader), &acmodtime_attributes(8, 1_000_000_000)])
        .await
        .expect("FSETSTAT on what is read");
    assert_eq!(sftp.stat("/f").await.expect("there").times.map(|(_, modified)| modified), Some(1_000_000_000));
    sftp.request(9, &[&encode_string(b"/d"), &acmodtime_attributes(9, 1_100_000_000)])
        .await
        .expect("SETSTAT on a folder");
    assert_eq!(sftp.stat("/d").await.expect("there").times, Some((9, 1_100_000_000)));
    let upload = sftp.open_file(b"/u", REPLACE).await.expect("opens");
    sftp.request(9, &[&encode_string(b"/u"), &acmodtime_attributes(10, 1_200_000_000)])
        .await
        .expect("SETSTAT on an upload");
    sftp.close(&upload).await.expect("commits");
    assert_eq!(sftp.stat("/u").await.expect("there").times, Some((10, 1_200_000_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn longname_has_the_format_of_ls() {
    let (gateway, _, mut sftp) = start_sftp().await;
    gateway.write_host_file("/f", "content");
    sftp.chmod("/f", 0o640).await.expect("SETSTAT");
    sftp.request(9, &[&encode_string(b"/f"), &acmodtime_attributes(0, 981_173_106)]).await.expect("SETSTAT");
    let (_, folder) = sftp.request(11, &[&encode_string(b"/")]).await.expect("OPENDIR");
    let (_, names) = sftp.request(12, &[&folder]).await.expect("READDIR");
    let expected = encode_string(b"-rw-r-----   1 alice    alice           7 Feb  3  2001 f");
    assert!(names.windows(expected.len()).any(|part| part == expected), "{}", String::from_utf8_lossy(&names));
}
