//! Modification times that clients set over WebDAV, by header or property: stored to the second and returned unchanged,
//! or refused. Times over SFTP are in `sftp_conformance.rs`.

use crate::support::{DavClient, Fixture};

/// Times, as seconds since 1970 and as an HTTP date: before 1970, before 1901, beyond 2038, 2106 and 2446.
const TIMES: [(&str, &str); 8] = [
    ("-1", "Wed, 31 Dec 1969 23:59:59 GMT"),
    ("0", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("-1000000000.75", "Sun, 24 Apr 1938 22:13:19 GMT"),
    ("-8520336000", "Fri, 01 Jan 1700 00:00:00 GMT"),
    ("981173106.999", "Sat, 03 Feb 2001 04:05:06 GMT"),
    ("2147483648", "Tue, 19 Jan 2038 03:14:08 GMT"),
    ("4294967296.5", "Sun, 07 Feb 2106 06:28:16 GMT"),
    ("32503680000", "Wed, 01 Jan 3000 00:00:00 GMT"),
];

async fn last_modified(client: &DavClient, path: &str) -> String {
    let body = "<propfind xmlns='DAV:'><prop><getlastmodified/></prop></propfind>";
    let text = client.send("PROPFIND", path, &[("depth", "0")], body).await.text();
    text.split("getlastmodified>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn modification_time_of_an_upload_is_kept_or_refused() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    for (at, (seconds, date)) in TIMES.into_iter().enumerate() {
        for (method, path, body) in [("PUT", format!("/dav/f{at}"), "x"), ("MKCOL", format!("/dav/d{at}"), "")] {
            let answer = client.send(method, &path, &[("x-oc-mtime", seconds)], body).await;
            if answer.status == 400 {
                // Only what this file system can't keep: ext4 keeps 1901 to 2446.
                assert!(["-8520336000", "32503680000"].contains(&seconds), "{seconds}");
                assert_eq!(answer.text(), "the file system can't keep that time\n");
                assert_eq!(client.status("GET", &path).await, 404, "nothing is left");
                continue;
            }
            assert_eq!((answer.status, answer.header("x-oc-mtime")), (201, "accepted"), "{method} {seconds}");
            assert_eq!(last_modified(&client, &path).await, date, "{method} {seconds}");
            if method == "PUT" {
                let read = client.get(&path).await;
                assert_eq!(read.header("last-modified"), date);
                assert_eq!(read.header("etag"), answer.header("etag"), "{seconds}");
                let since = client.send("GET", &path, &[("if-modified-since", date)], "").await;
                assert_eq!(since.status, 304, "{seconds}");
            }
        }
    }
    for seconds in ["253402300800", "-62135596801", "1e9", "x", ".5"] {
        assert_eq!(client.send("PUT", "/dav/no", &[("x-oc-mtime", seconds)], "x").await.status, 400, "{seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_set_as_properties_are_kept_or_refused() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    client.put("/dav/f", "x").await;
    for name in ["D:getlastmodified", "D:lastmodified", "Z:Win32LastModifiedTime"] {
        for (seconds, date) in TIMES {
            for value in [seconds, date] {
                let before = last_modified(&client, "/dav/f").await;
                let body = format!(
                    "<D:propertyupdate xmlns:D='DAV:' xmlns:Z='urn:schemas-microsoft-com:'><D:set><D:prop>\
                     <{name}>{value}</{name}><kept xmlns='urn:x'/></D:prop></D:set></D:propertyupdate>"
                );
                let answer = client.send("PROPPATCH", "/dav/f", &[], body).await.text();
                let kept = !answer.contains("409 Conflict");
                assert!(kept || ["-8520336000", "32503680000"].contains(&seconds), "{name} {value}: {answer}");
                assert_eq!(last_modified(&client, "/dav/f").await, if kept { date } else { &before }, "{name} {value}");
            }
        }
    }
}
