//! Reports about accented letters in the two normal forms of Unicode: macOS sends names decomposed (NFD), other systems
//! composed (NFC). A name finds the existing file in the other form if exactly one of the two exists, and creates no
//! duplicate.

use super::{CREATE, EXCLUSIVE, FAILURE, NO_SUCH_FILE, REPLACE, WRITE, start_with_alice, status_code};
use crate::support::browser::Browser;
use crate::support::{Fixture, SftpClient, encode_string};

const COMPOSED: &str = "\u{e4}";
const DECOMPOSED: &str = "a\u{308}";

/// Returns the paths of the tree without the reserved directory.
fn tree_entries(gateway: &Fixture) -> Vec<String> {
    gateway.all_paths().into_iter().filter(|path| !path.contains(".patgate")).collect()
}

/// Finder's users and those who share a folder with them: the file that a colleague had made could not be opened, or
/// was there twice.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_nfc_and_nfd_over_webdav() {
    let (gateway, client) = start_with_alice().await;
    let (composed, decomposed) = ("%C3%A4", "a%CC%88");
    for (existing, sent, name) in [(composed, decomposed, "\u{e4}"), (decomposed, composed, "a\u{308}")] {
        gateway.write_host_file(&format!("{name}/{name}"), "old");
        assert_eq!(client.get(&format!("/dav/{sent}/{sent}")).await.body, b"old");
        assert_eq!(client.put(&format!("/dav/{sent}/{sent}"), "new").await.status, 204);
        assert_eq!(client.get(&format!("/dav/{existing}/{existing}")).await.body, b"new");
        assert_eq!(client.put(&format!("/dav/{sent}/x"), "x").await.status, 201);
        assert_eq!(client.status("MKCOL", &format!("/dav/{sent}")).await, 405);
        let to = format!("/dav/{sent}/{sent}");
        let headers = [("destination", to.as_str()), ("overwrite", "F")];
        assert_eq!(client.send("COPY", &format!("/dav/{existing}/x"), &headers, "").await.status, 412);
        let etag = client.get(&format!("/dav/{existing}/{existing}")).await.header("etag").to_owned();
        let condition = format!("</dav/{sent}/{sent}> ([{etag}])");
        assert_eq!(client.send("PUT", "/dav/other", &[("if", &condition)], "x").await.status / 100, 2);
        let mut expected = [name, &format!("{name}/x"), &format!("{name}/{name}"), "other"].map(str::to_owned);
        expected.sort();
        let entries = gateway.all_paths().into_iter().filter(|path| !path.contains(".patgate"));
        assert_eq!(entries.collect::<Vec<_>>(), expected, "no twin");
        assert_eq!(client.status("DELETE", &format!("/dav/{sent}")).await, 204);
    }
    gateway.write_host_file("\u{e4}", "composed");
    let (from, to) = (format!("/dav/{composed}"), format!("/dav/{decomposed}"));
    let moved = client.send("MOVE", &from, &[("destination", &to)], "").await;
    assert_eq!(moved.status, 201, "a move may change the spelling");
    assert!(gateway.host_path("a\u{308}").exists() && !gateway.host_path("\u{e4}").exists());
    gateway.write_host_file("\u{f6}/\u{e4}", "below");
    let (from, to) = (format!("/dav/o%CC%88/{composed}"), format!("/dav/o%CC%88/{decomposed}"));
    assert_eq!(client.send("MOVE", &from, &[("destination", &to)], "").await.status, 201, "below another spelling");
    assert!(gateway.host_path("\u{f6}/a\u{308}").exists());
    gateway.write_host_file("\u{e4}", "composed");
    assert_eq!(client.get(&format!("/dav/{composed}")).await.body, b"composed", "where both exist, each is itself");
    assert_eq!(client.get(&format!("/dav/{decomposed}")).await.body, b"composed", "the content that was moved");
}

/// Requests on names that exist in the tree's spelling alone, sent in the other.
async fn assert_other_normalization_works(gateway: &Fixture, sftp: &mut SftpClient, existing: &str, sent: &str) {
    gateway.write_host_file(&format!("{existing}/{existing}"), "old");
    let (folder, file) = (format!("/{sent}"), format!("/{sent}/{sent}"));
    let real = format!("/{existing}/{existing}");
    assert_eq!(sftp.get(&file).await, Ok(b"old".to_vec()));
    assert_eq!(sftp.stat(&file).await.expect("STAT").size, Some(3));
    assert_eq!(sftp.lstat(&file).await.expect("LSTAT").size, Some(3));
    assert_eq!(sftp.realpath(&file).await, Ok(real.clone()));
    assert_eq!(sftp.realpath(&format!("{folder}/../{sent}")).await, Ok(format!("/{existing}")));
    assert_eq!(sftp.list(&folder).await, Ok(vec![existing.to_owned()]), "listed as the tree has it");
    sftp.chmod(&file, 0o600).await.expect("SETSTAT");
    assert_eq!(sftp.stat(&real).await.expect("there").mode, Some(0o100_600));
    sftp.put(&file, b"new").await.expect("put");
    assert_eq!(sftp.get(&real).await, Ok(b"new".to_vec()), "replaced, and no twin made");
    let edit = sftp.open_file(file.as_bytes(), WRITE).await.expect("OPEN to write");
    sftp.write_at(&edit, 0, b"N").await.expect("WRITE");
    sftp.close(&edit).await.expect("CLOSE");
    assert_eq!(status_code(sftp.open_file(file.as_bytes(), WRITE | CREATE | EXCLUSIVE).await), FAILURE);
    assert_eq!(status_code(sftp.mkdir(&folder).await), FAILURE);
    assert_eq!(status_code(sftp.hard_link(&real, &file).await), FAILURE);
    assert_eq!(status_code(sftp.symlink("x", &file).await), FAILURE);
    sftp.put(&format!("{folder}/x"), b"x").await.expect("a new file below");
    assert_eq!(status_code(sftp.rename(&format!("{folder}/x"), &file).await), FAILURE, "it would replace");
    sftp.posix_rename(&format!("{folder}/x"), &file).await.expect("it may replace");
    assert_eq!(sftp.get(&real).await, Ok(b"x".to_vec()));
    assert_eq!(tree_entries(gateway), [existing.to_owned(), format!("{existing}/{existing}")], "no twin");

    // An upload that is not closed yet is found by its own session.
    let upload = sftp.open_file(format!("{folder}/u{existing}").as_bytes(), REPLACE).await.expect("OPEN");
    sftp.write_at(&upload, 0, b"staged").await.expect("WRITE");
    assert_eq!(sftp.stat(&format!("{folder}/u{sent}")).await.expect("its own upload").size, Some(6));
    sftp.close(&upload).await.expect("CLOSE");
    sftp.remove(&format!("{folder}/u{sent}")).await.expect("REMOVE");

    sftp.rename(&file, &format!("{folder}/{sent}")).await.expect("a rename may change the spelling");
    assert_eq!(tree_entries(gateway), [existing.to_owned(), format!("{existing}/{sent}")]);
    sftp.remove(&real).await.expect("REMOVE");
    sftp.rmdir(&folder).await.expect("RMDIR");
    assert_eq!(tree_entries(gateway), [""; 0]);
    assert_eq!(status_code(sftp.stat(&file).await), NO_SUCH_FILE);
}

/// The same over SFTP, from macOS' sftp, Cyberduck, Transmit and sshfs: the name is typed or completed on one system, the
/// file was made on the other.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_nfc_and_nfd_over_sftp() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    for (existing, sent) in [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)] {
        assert_other_normalization_works(&gateway, &mut sftp, existing, sent).await;
    }
    // Where both exist, each is itself.
    for (name, content) in [(COMPOSED, "composed"), (DECOMPOSED, "decomposed")] {
        gateway.write_host_file(name, content);
    }
    for (name, content) in [(COMPOSED, "composed"), (DECOMPOSED, "decomposed")] {
        assert_eq!(sftp.get(&format!("/{name}")).await, Ok(content.as_bytes().to_vec()));
        sftp.remove(&format!("/{name}")).await.expect("REMOVE");
        assert!(!gateway.host_path(name).exists());
    }
    // What exists in neither spelling is made as it was sent.
    sftp.put(&format!("/new{DECOMPOSED}"), b"x").await.expect("put");
    sftp.mkdir(&format!("/folder{DECOMPOSED}")).await.expect("made");
    assert_eq!(tree_entries(&gateway), [format!("folder{DECOMPOSED}"), format!("new{DECOMPOSED}")]);
}

/// Old archives with names in Latin-1: bytes that are no UTF-8 have one spelling, over both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn non_utf8_names_are_not_normalized() {
    let (gateway, dav) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    gateway.write_host_file(COMPOSED, "utf-8");
    assert!(sftp.open_file(b"/\xe4", 1).await.is_err_and(|error| error.code() == NO_SUCH_FILE));
    sftp.request(14, &[&encode_string(b"/\xe4"), &[0; 4]]).await.expect("MKDIR");
    // The part of the path that is text keeps its other spelling out of what is below.
    assert!(sftp.open_file([b"/\xe4/", DECOMPOSED.as_bytes()].concat().as_slice(), REPLACE).await.is_ok());
    assert_eq!(dav.get("/dav/%E4").await.status / 100, 2, "the folder");
    assert_eq!(dav.get("/dav/a%CC%88").await.body, b"utf-8", "the file");
    assert_eq!(dav.get("/dav/%E4%CC%88").await.status, 404);
}

/// Browsers on macOS name a dropped file as its file system does.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_nfc_and_nfd_by_the_console() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    gateway.write_host_file(&format!("{COMPOSED}/{COMPOSED}"), "old");
    let csrf = browser.csrf_token().await;
    let path = "/console/raw/a%CC%88/a%CC%88";
    assert_eq!(browser.upload(path, &csrf, "new").await, 409, "it is there");
    assert_eq!(browser.upload(&format!("{path}?replace=1"), &csrf, "new").await, 201);
    assert_eq!(std::fs::read(gateway.host_path(&format!("{COMPOSED}/{COMPOSED}"))).expect("replaced"), b"new");
    let created = browser.submit("/console/files", "/console/folder", &[("name", DECOMPOSED)]).await;
    assert_eq!(created.status, 409, "{}", created.text());
    assert_eq!(tree_entries(&gateway), [COMPOSED.to_owned(), format!("{COMPOSED}/{COMPOSED}")]);
}
