//! Files that a token may not see are answered exactly as missing ones are, over WebDAV and SFTP: the same status,
//! headers and body.

use crate::support::{Fixture, HttpResponse, LOCK_BODY};

/// The answer with the name that was asked for struck out.
fn without_name(answer: HttpResponse, name: &str) -> (u16, Vec<(String, String)>, String) {
    let answer = answer.without_date();
    let headers = answer.headers.iter();
    let headers = headers.map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).replace(name, "NAME")));
    (answer.status, headers.collect(), answer.text().replace(name, "NAME"))
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_answers_hidden_files_exactly_as_missing_ones() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/scope/mine", "mine");
    gateway.write_host_file("/t/hidden/file", "theirs");
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "-s", "path:/t/scope:rw"]);
    let other = gateway.create_token("alice", &["-e", "1h"]);
    let dav = gateway.dav("alice", &token);
    let locked = gateway.dav("alice", &other).send("LOCK", "/dav/t/hidden/file", &[("depth", "0")], LOCK_BODY).await;
    assert_eq!(locked.status, 200);
    let destination = |name: &str| dav.url(&format!("/dav/t/{name}/x"));
    for below in ["", "/", "/file", "/file/deeper"] {
        for (method, headers, body) in [
            ("GET", vec![], ""),
            ("HEAD", vec![], ""),
            ("OPTIONS", vec![], ""),
            ("GET", vec![("if-none-match", "*")], ""),
            ("GET", vec![("if-match", "*")], ""),
            ("GET", vec![("range", "bytes=0-1")], ""),
            ("PROPFIND", vec![("depth", "0")], ""),
            ("PROPFIND", vec![("depth", "1")], ""),
            ("PUT", vec![], "x"),
            ("PUT", vec![("if-none-match", "*")], "x"),
            ("PUT", vec![("if-match", "*")], "x"),
            ("DELETE", vec![], ""),
            ("MKCOL", vec![], ""),
            ("PROPPATCH", vec![], "<propertyupdate xmlns=\"DAV:\"/>"),
            ("LOCK", vec![("depth", "0")], LOCK_BODY),
            ("UNLOCK", vec![("lock-token", "<urn:uuid:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11>")], ""),
            ("MOVE", vec![("destination", "/dav/t/scope/stolen")], ""),
            ("COPY", vec![("destination", "/dav/t/scope/stolen")], ""),
        ] {
            let mut answers = Vec::new();
            for name in ["hidden", "nothing"] {
                let answer = dav.send(method, &format!("/dav/t/{name}{below}"), &headers, body).await;
                answers.push(without_name(answer, name));
            }
            assert_eq!(answers[0], answers[1], "{method} {below} {headers:?}");
            assert!(answers[0].0 >= 300 || method == "OPTIONS", "{method} {below}: {}", answers[0].0);
        }
    }
    for method in ["MOVE", "COPY"] {
        let mut answers = Vec::new();
        for name in ["hidden", "nothing"] {
            let to = destination(name);
            answers.push(without_name(dav.send(method, "/dav/t/scope/mine", &[("destination", &to)], "").await, name));
        }
        assert_eq!(answers[0], answers[1], "{method} into what is hidden");
    }
    assert_eq!(dav.list_hrefs("/dav/t/").await, Ok(vec!["/dav/t/scope/".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_answers_hidden_files_exactly_as_missing_ones() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/scope/mine", "mine");
    gateway.write_host_file("/t/hidden/file", "theirs");
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "-s", "path:/t/scope:rw"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    for below in ["", "/file", "/file/deeper"] {
        let mut answers = Vec::new();
        for name in ["hidden", "nothing"] {
            let path = format!("/t/{name}{below}");
            answers.push(vec![
                sftp.stat(&path).await.map(drop),
                sftp.lstat(&path).await.map(drop),
                sftp.list(&path).await.map(drop),
                sftp.get(&path).await.map(drop),
                sftp.put(&path, b"x").await,
                sftp.mkdir(&path).await,
                sftp.rmdir(&path).await,
                sftp.remove(&path).await,
                sftp.chmod(&path, 0o777).await,
                sftp.rename(&path, "/t/scope/stolen").await,
                sftp.rename("/t/scope/mine", &path).await,
                sftp.posix_rename(&path, "/t/scope/stolen").await,
                sftp.hard_link(&path, "/t/scope/stolen").await,
                sftp.readlink(&path).await.map(drop),
                sftp.extended("statvfs@openssh.com", &[path.as_bytes()]).await.map(drop),
            ]);
        }
        assert_eq!(answers[0], answers[1], "{below}");
        assert!(answers[0].iter().all(Result::is_err), "{below}: {:?}", answers[0]);
    }
    assert_eq!(sftp.list("/t").await, Ok(vec!["scope".to_owned()]));
    assert_eq!(std::fs::read(gateway.host_path("/t/hidden/file")).expect("there"), b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn visible_directory_reveals_nothing_of_hidden_members() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/scope/mine", "mine");
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "-s", "path:/t/scope:r"]);
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;
    let look = async |sftp: &mut crate::support::SftpClient| {
        let mut seen = Vec::new();
        for path in ["/dav/", "/dav/t/"] {
            seen.push(without_name(dav.send("PROPFIND", path, &[("depth", "0")], "").await, "-"));
        }
        (seen, sftp.stat("/").await, sftp.stat("/t").await)
    };
    let before = look(&mut sftp).await;
    gateway.write_host_file("/t/hidden/file", "theirs");
    gateway.write_host_file("/t/other", "theirs");
    gateway.create_host_directory("/t/third");
    assert_eq!(look(&mut sftp).await, before);
}
