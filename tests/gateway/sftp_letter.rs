//! SFTP to the letter: every packet of version 3, every extension, hashes, names as bytes, times.

use sha2::Digest;

use crate::support::{Fixture, Sftp, SftpError, string};

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

async fn started() -> (Fixture, String, Sftp) {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, token, sftp)
}

fn code<T: std::fmt::Debug>(result: Result<T, SftpError>) -> u32 {
    result.expect_err("refused").code()
}

fn times(accessed: u32, modified: u32) -> Vec<u8> {
    [8, accessed, modified].map(u32::to_be_bytes).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_of_version_3_has_its_answer() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", "content");
    let (none, number) = ([0; 4], |n: u32| n.to_be_bytes());
    let file = sftp.open_file(b"/f", READ | WRITE).await.expect("opens");
    let (_, folder) = sftp.ask(11, &[&string(b"/")]).await.expect("opens");
    let file = string(&file);
    let path = |path: &str| string(path.as_bytes());
    let start = 0u64.to_be_bytes();
    for (kind, body, answer) in [
        (3, vec![path("/new"), number(REPLACE).to_vec(), none.to_vec()], HANDLE),
        (5, vec![file.clone(), start.to_vec(), number(4).to_vec()], DATA),
        (6, vec![file.clone(), start.to_vec(), string(b"C")], STATUS),
        (7, vec![path("/f")], ATTRS),
        (8, vec![file.clone()], ATTRS),
        (9, vec![path("/f"), times(1, 2)], STATUS),
        (10, vec![file.clone(), times(3, 4)], STATUS),
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
        let answered = sftp.ask(kind, &fields).await.unwrap_or_else(|error| panic!("type {kind}: {error:?}"));
        assert_eq!(answered.0, answer, "type {kind}");
    }
    assert_eq!(code(sftp.ask(5, &[&file, &start, &number(4)]).await), 4, "a closed handle");
    for kind in [0, 2, 21, 99, 101, 199, 201, 255] {
        assert_eq!(code(sftp.ask(kind, &[&path("/")]).await), 8, "type {kind} is none of a client's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_extension_that_is_announced_is_answered() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", "content");
    let (from, to) = (sftp.open_file(b"/f", READ).await, sftp.open_file(b"/g", REPLACE).await);
    let (from, to) = (string(&from.expect("opens")), string(&to.expect("opens")));
    let hashes = [string(b"md5"), vec![0; 20]].concat();
    let mut announced = std::mem::take(&mut sftp.extensions);
    let path = |path: &str| string(path.as_bytes());
    let arguments = [
        ("copy-data", [from.clone(), vec![0; 16], to.clone(), vec![0; 8]].concat(), STATUS),
        ("statvfs@openssh.com", path("/"), EXTENDED_REPLY),
        ("fstatvfs@openssh.com", from.clone(), EXTENDED_REPLY),
        ("fsync@openssh.com", to, STATUS),
        ("lsetstat@openssh.com", [path("/f"), times(5, 6)].concat(), STATUS),
        ("hardlink@openssh.com", [path("/f"), path("/h")].concat(), STATUS),
        ("posix-rename@openssh.com", [path("/h"), path("/i")].concat(), STATUS),
        ("limits@openssh.com", Vec::new(), EXTENDED_REPLY),
        ("expand-path@openssh.com", path("~"), NAME),
        ("home-directory", path("alice"), NAME),
        ("users-groups-by-id@openssh.com", [string(&[]), string(&[])].concat(), EXTENDED_REPLY),
        ("check-file", [from.clone(), hashes.clone()].concat(), EXTENDED_REPLY),
        ("check-file-handle", [from, hashes.clone()].concat(), EXTENDED_REPLY),
        ("check-file-name", [path("/f"), hashes].concat(), EXTENDED_REPLY),
    ];
    for (name, argument, answer) in &arguments {
        let answered = sftp.ask(200, &[&string(name.as_bytes()), argument]).await;
        assert_eq!(answered.unwrap_or_else(|error| panic!("{name}: {error:?}")).0, *answer, "{name}");
    }
    let mut known: Vec<_> = arguments.iter().map(|(name, ..)| (*name).to_owned()).collect();
    announced.sort();
    known.sort();
    assert_eq!(announced, known);
}

/// Asks for hashes: where, which, from which offset, how many bytes, in blocks of how many.
async fn check(
    sftp: &mut Sftp,
    (extension, place): (&str, &[u8]),
    algorithms: &str,
    offset: u64,
    length: u64,
    block: u32,
) -> Result<(String, Vec<u8>), SftpError> {
    let numbers = [&offset.to_be_bytes()[..], &length.to_be_bytes(), &block.to_be_bytes()].concat();
    let (name, algorithms) = (string(extension.as_bytes()), string(algorithms.as_bytes()));
    let (kind, body) = sftp.ask(200, &[&name, &string(place), &algorithms, &numbers]).await?;
    assert_eq!(kind, EXTENDED_REPLY);
    let rest = body.strip_prefix(&string(b"check-file")[..]).expect("the name of the answer");
    let length = u32::from_be_bytes(rest[..4].try_into().expect("a length")) as usize;
    let used = String::from_utf8(rest[4..4 + length].to_vec()).expect("text");
    Ok((used, rest[4 + length..].to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_those_of_the_content() {
    let (gateway, _, mut sftp) = started().await;
    let content: Vec<u8> = (0..700_001u32).map(|n| (n / 3) as u8).collect();
    gateway.write("/f", &content);
    gateway.write("/empty", "");
    let handle = sftp.open_file(b"/f", READ).await.expect("opens");
    let places: [(&str, &[u8]); 3] =
        [("check-file-name", b"/f"), ("check-file-handle", &handle), ("check-file", &handle)];
    let sha256 = |bytes: &[u8]| sha2::Sha256::digest(bytes).to_vec();
    for place in places {
        for (algorithm, hash) in [
            ("md5", md5::compute(&content).0.to_vec()),
            ("sha1", sha1::Sha1::digest(&content).to_vec()),
            ("sha256", sha256(&content)),
            ("sha384", sha2::Sha384::digest(&content).to_vec()),
            ("sha512", sha2::Sha512::digest(&content).to_vec()),
        ] {
            let answered = check(&mut sftp, place, algorithm, 0, 0, 0).await.expect(algorithm);
            assert_eq!(answered, (algorithm.to_owned(), hash), "{place:?}");
        }
        let blocks: Vec<u8> = content[10..600_010].chunks(65_536).flat_map(sha256).collect();
        let answered = check(&mut sftp, place, "crc32,sha256,md5", 10, 600_000, 65_536).await.expect("blocks");
        assert_eq!(answered, ("sha256".to_owned(), blocks));
        let tail = check(&mut sftp, place, "sha256", 700_000, 9_999_999, 0).await.expect("up to the end").1;
        assert_eq!(tail, sha256(&content[700_000..]));
    }
    let empty = check(&mut sftp, ("check-file-name", b"/empty"), "sha256", 0, 0, 0).await.expect("of nothing").1;
    assert_eq!(empty, sha256(b""));
    let empty = check(&mut sftp, ("check-file-name", b"/empty"), "md5", 0, 0, 256).await.expect("no block").1;
    assert!(empty.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_an_upload_are_those_of_what_was_written_so_far() {
    let (_gateway, _, mut sftp) = started().await;
    let handle = sftp.open_file(b"/f", REPLACE | READ).await.expect("opens");
    sftp.write_at(&handle, 0, b"staged").await.expect("writes");
    for place in [("check-file-handle", &handle[..]), ("check-file-name", b"/f")] {
        let hash = check(&mut sftp, place, "md5", 0, 0, 0).await.expect("a hash").1;
        assert_eq!(hash, md5::compute(b"staged").0, "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_hashed_is_refused_and_leaks_no_handle() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", vec![7; 4_000_000]);
    gateway.folder("/d");
    let name = ("check-file-name", &b"/f"[..]);
    let writer = sftp.open_file(b"/w", REPLACE).await.expect("opens");
    for round in 0..700 {
        assert_eq!(code(check(&mut sftp, name, "crc32", 0, 0, 0).await), 8, "{round}");
        assert_eq!(code(check(&mut sftp, name, "md5", 0, 0, 255).await), 4);
        assert_eq!(code(check(&mut sftp, name, "md5", 4_000_001, 0, 0).await), 1, "past the end");
    }
    assert_eq!(code(check(&mut sftp, name, "sha512", 0, 0, 256).await), 4, "more than an answer holds");
    assert_eq!(code(check(&mut sftp, ("check-file-name", b"/d"), "md5", 0, 0, 0).await), 4);
    assert_eq!(code(check(&mut sftp, ("check-file-name", b"/none"), "md5", 0, 0, 0).await), 2);
    assert_eq!(code(check(&mut sftp, ("check-file-handle", &writer), "md5", 0, 0, 0).await), 4, "write only");
    assert_eq!(code(check(&mut sftp, ("check-file-handle", b"12345678"), "md5", 0, 0, 0).await), 4);
    let box_only = gateway.login("bob", "/:w");
    let mut bob = gateway.sftp("bob", &box_only).await;
    assert_eq!(code(check(&mut bob, name, "md5", 0, 0, 0).await), 3, "a hash needs what reading needs");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text_go_both_ways_through_both_protocols() {
    let (gateway, token, mut sftp) = started().await;
    let dav = gateway.dav("alice", &token);
    sftp.ask(14, &[&string(b"/d\xe9"), &[0; 4]]).await.expect("MKDIR");
    assert_eq!(dav.put("/dav/d%E9/f%FFg", "from dav").await.status, 201);
    let handle = sftp.open_file(b"/d\xe9/f\xffg", READ).await.expect("the bytes that were meant");
    assert_eq!(sftp.read_at(&handle, 0, 100).await.as_deref(), Ok(&b"from dav"[..]));
    sftp.close(&handle).await.expect("closes");
    sftp.ask(18, &[&string(b"/d\xe9/f\xffg"), &string(b"/d\xe9/\x80")]).await.expect("RENAME");
    assert_eq!(dav.list("/dav/d%E9/").await, Ok(vec!["/dav/d%E9/%80".to_owned()]));
    assert_eq!(dav.get("/dav/d%E9/%80").await.text(), "from dav");
    let target = dav.url("/dav/d%E9/%C3%28");
    assert_eq!(dav.send("MOVE", "/dav/d%E9/%80", &[("destination", &target)], "").await.status, 201);
    let (_, folder) = sftp.ask(11, &[&string(b"/d\xe9")]).await.expect("OPENDIR");
    let (_, names) = sftp.ask(12, &[&folder]).await.expect("READDIR");
    let wanted = string(b"\xc3\x28");
    assert!(names.windows(wanted.len()).any(|part| part == wanted), "{names:?}");
    assert!(names.windows(3).any(|part| part == b" \xc3\x28"), "in the long name, too");
    assert_eq!(dav.status("DELETE", "/dav/d%E9/%C3%28").await, 204);
    sftp.ask(15, &[&string(b"/d\xe9")]).await.expect("RMDIR");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_goes_to_the_end_wherever_the_client_writes_and_others_wrote_meanwhile() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", "one");
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
async fn an_upload_that_broke_off_is_resumed_where_it_stopped_and_a_file_is_cut_and_drawn_out() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", "0123");
    let handle = sftp.open_file(b"/f", WRITE | CREATE).await.expect("opens");
    let size = sftp.stat("/f").await.expect("there").size.expect("a size");
    sftp.write_at(&handle, size, b"4567").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234567"[..]));
    let size = |bytes: u64| [&1u32.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    sftp.ask(9, &[&string(b"/f"), &size(5)]).await.expect("SETSTAT cuts");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234"[..]));
    let handle = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.ask(10, &[&string(&handle), &size(7)]).await.expect("FSETSTAT draws out");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"01234\0\0"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_reach_the_file_however_they_are_set_and_show_over_webdav() {
    let (gateway, token, mut sftp) = started().await;
    let dav = gateway.dav("alice", &token);
    gateway.write("/f", "old");
    gateway.folder("/d");
    let editor = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.write_at(&editor, 0, b"new").await.expect("writes");
    sftp.ask(10, &[&string(&editor), &times(7, 981_173_106)]).await.expect("FSETSTAT on an edit");
    sftp.close(&editor).await.expect("closes");
    assert_eq!(sftp.stat("/f").await.expect("there").times, Some((7, 981_173_106)));
    assert_eq!(dav.get("/dav/f").await.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    let reader = sftp.open_file(b"/f", READ).await.expect("opens");
    sftp.ask(10, &[&string(&reader), &times(8, 1_000_000_000)]).await.expect("FSETSTAT on what is read");
    assert_eq!(sftp.stat("/f").await.expect("there").times.map(|(_, modified)| modified), Some(1_000_000_000));
    sftp.ask(9, &[&string(b"/d"), &times(9, 1_100_000_000)]).await.expect("SETSTAT on a folder");
    assert_eq!(sftp.stat("/d").await.expect("there").times, Some((9, 1_100_000_000)));
    let upload = sftp.open_file(b"/u", REPLACE).await.expect("opens");
    sftp.ask(9, &[&string(b"/u"), &times(10, 1_200_000_000)]).await.expect("SETSTAT on an upload");
    sftp.close(&upload).await.expect("commits");
    assert_eq!(sftp.stat("/u").await.expect("there").times, Some((10, 1_200_000_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_read_as_ls_prints_them() {
    let (gateway, _, mut sftp) = started().await;
    gateway.write("/f", "content");
    sftp.chmod("/f", 0o640).await.expect("SETSTAT");
    sftp.ask(9, &[&string(b"/f"), &times(0, 981_173_106)]).await.expect("SETSTAT");
    let (_, folder) = sftp.ask(11, &[&string(b"/")]).await.expect("OPENDIR");
    let (_, names) = sftp.ask(12, &[&folder]).await.expect("READDIR");
    let wanted = string(b"-rw-r-----   1 alice    alice           7 Feb  3  2001 f");
    assert!(names.windows(wanted.len()).any(|part| part == wanted), "{}", String::from_utf8_lossy(&names));
}
