//! Reports about ETags, ranges and partial updates: the ETag and the bytes that a client has are those of the server.

use super::{element, propfind, start_with_alice};

/// Bridges to Nextcloud, Seafile's and SFTPGo's WebDAV, vdirsyncer: the tag that PUT answers is that of what was put, the
/// same wherever it is told, and neither properties, times nor a move make another of it. Clients synced in circles.
#[tokio::test(flavor = "multi_thread")]
async fn etag_of_an_upload_is_identical_in_all_responses() {
    let (_gateway, dav) = start_with_alice().await;
    let mut seen: Vec<String> = Vec::new();
    for turn in 0..5 {
        let time = (1_600_000_000 + turn).to_string();
        let headers: &[(&str, &str)] = if turn % 2 == 1 { &[("x-oc-mtime", &time)] } else { &[] };
        let put = dav.send("PUT", "/dav/a.txt", headers, turn.to_string()).await;
        let tag = put.header("etag").to_owned();
        assert!(tag.starts_with('"'), "{put:?}");
        assert_eq!(element(&propfind(&dav, "/dav/a.txt", "<getetag/>").await, "D:getetag"), tag);
        for method in ["HEAD", "GET"] {
            assert_eq!(dav.send(method, "/dav/a.txt", &[], "").await.header("etag"), tag, "{method}");
        }
        assert!(!seen.contains(&tag), "each content has its own");
        seen.push(tag);
    }
    let tag = seen.pop().expect("five");
    for property in ["<x xmlns='u:'>1</x>", "<getlastmodified>Sat, 03 Feb 2001 04:05:06 GMT</getlastmodified>"] {
        let body = format!("<propertyupdate xmlns='DAV:'><set><prop>{property}</prop></set></propertyupdate>");
        assert_eq!(dav.send("PROPPATCH", "/dav/a.txt", &[], body).await.status, 207);
        assert_eq!(dav.send("HEAD", "/dav/a.txt", &[], "").await.header("etag"), tag, "{property}");
    }
    assert_eq!(dav.send("MOVE", "/dav/a.txt", &[("destination", "/dav/b.txt")], "").await.status, 201);
    assert_eq!(dav.send("HEAD", "/dav/b.txt", &[], "").await.header("etag"), tag, "after a move");
}

/// A to-do list, an e-book reader, an ad blocker's settings and a calendar's synchroniser behind proxies that change tags
/// to `W/…` or `…-gzip`: a client may offer both spellings; an altered or weak one alone replaces nothing (RFC 9110
/// section 13.1.1), and a weak one is enough for what it has read already.
#[tokio::test(flavor = "multi_thread")]
async fn altered_or_weak_etags_fail_if_match() {
    let (_gateway, dav) = start_with_alice().await;
    let tag = dav.put("/dav/a.json", "{}").await.header("etag").to_owned();
    assert!(tag.starts_with('"') && dav.get("/dav/a.json").await.header("etag") == tag, "{tag}");
    let altered = format!("{}-gzip\"", tag.trim_end_matches('"'));
    let weak = format!("W/{tag}");
    let part = dav.send("GET", "/dav/a.json", &[("if-match", &tag), ("range", "bytes=0-0")], "").await;
    assert_eq!((part.status, part.text().as_str()), (206, "{"));
    for condition in [&altered, &weak, &format!("{altered}, {weak}"), &format!("W/{altered}")] {
        for (method, more) in [("PUT", None), ("DELETE", None), ("MOVE", Some(("destination", "/dav/b.json")))] {
            let headers: Vec<_> = more.into_iter().chain([("if-match", condition.as_str())]).collect();
            assert_eq!(dav.send(method, "/dav/a.json", &headers, "1").await.status, 412, "{method} {condition}");
        }
    }
    let both = format!("{altered}, {tag}");
    let written = dav.send("PUT", "/dav/a.json", &[("if-match", &both)], "1").await;
    assert_eq!(written.status, 204);
    let tag = written.header("etag");
    assert_eq!(written.header("oc-etag"), tag);
    for offered in [format!("W/{tag}"), tag.to_owned(), format!("\"other\", W/{tag}")] {
        for method in ["GET", "HEAD"] {
            let status = dav.send(method, "/dav/a.json", &[("if-none-match", &offered)], "").await.status;
            assert_eq!(status, 304, "{method} {offered}");
        }
    }
}

/// Media players and download managers: ranges in every form that is allowed, and those that are not; HEAD knows no
/// ranges, and announces that there are some (a video did not seek in Nextcloud's, Caddy's and Python servers).
#[tokio::test(flavor = "multi_thread")]
async fn valid_ranges_are_served_and_malformed_ones_ignored() {
    let (gateway, dav) = start_with_alice().await;
    let content: Vec<u8> = (0..1024u32).map(|n| (n % 256) as u8).collect();
    gateway.write_host_file("/r", &content);
    gateway.write_host_file("/empty", "");
    let get = async |path: &str, range: &str| dav.send("GET", path, &[("range", range)], "").await;
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=2-21", 2..22),
        ("bytes=1023-", 1023..1024),
        ("bytes=-5", 1019..1024),
        ("bytes=-99999", 0..1024),
        ("bytes=0-99999", 0..1024),
        ("BYTES=0-1", 0..2),
        ("bytes= 0-1 ,", 0..2),
    ] {
        let answer = get("/dav/r", range).await;
        assert_eq!((answer.status, answer.header("content-length")), (206, &*expected.len().to_string()), "{range:?}");
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/1024", expected.start, expected.end - 1));
        assert_eq!(answer.body, content[expected], "{range:?}");
    }
    for range in ["npt=0.000-", "bytes=-", "bytes=a-b", "bytes=5-1", "bytes 0-1", "", "bytes"] {
        let answer = get("/dav/r", range).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1024), "{range:?}");
    }
    for range in ["bytes=1024-", "bytes=-0", "bytes=99999999999999999999-"] {
        let answer = get("/dav/r", range).await;
        let unsatisfiable = answer.status == 416 && answer.header("content-range") == "bytes */1024";
        assert!(unsatisfiable || answer.status == 200, "{range:?}: {answer:?}");
    }
    for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
        assert!([200, 416].contains(&get("/dav/empty", range).await.status), "{range:?} of nothing");
    }
    let head = dav.send("HEAD", "/dav/r", &[("range", "bytes=0-9")], "").await;
    assert_eq!((head.status, head.header("content-length"), head.header("content-range")), (200, "1024", ""));
    assert_eq!(head.header("accept-ranges"), "bytes");
}

/// Numbers as if drawn, the same in every run.
struct FixedRandom(u64);

impl FixedRandom {
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's linear congruential generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// A FUSE file system over WebDAV and users of other servers' partial uploads: writes at any place, by PATCH and by PUT
/// with `InodeContent-Range`, leave the file as a local one would be.
#[tokio::test(flavor = "multi_thread")]
async fn partial_updates_at_random_offsets_produce_the_expected_file() {
    let (_gateway, dav) = start_with_alice().await;
    let mut draws = FixedRandom(7);
    let bytes = |length: usize| -> Vec<u8> { (0..length).map(|n| (n * 31 % 251) as u8).collect() };
    let mut expected = bytes(70_000);
    dav.put("/dav/f", expected.clone()).await;
    assert!(dav.send("OPTIONS", "/dav/", &[], "").await.header("dav").contains("sabredav-partialupdate"));
    for turn in 0..60 {
        let length = [1, 10, 5000, 70_000][draws.below(4)];
        let mut data = bytes(length);
        data.iter_mut().for_each(|byte| *byte ^= turn);
        let at = match turn % 4 {
            1 => expected.len(),
            3 => draws.below(100),
            _ => draws.below(expected.len() + 1),
        };
        let last = at + length - 1;
        let partial = ("content-type", "application/x-sabredav-partialupdate");
        let (method, headers) = match turn % 4 {
            0 => ("PATCH", [partial, ("x-update-range", &*format!("bytes={at}-{last}"))].map(owned_pair)),
            1 => ("PATCH", [partial, ("x-update-range", "append")].map(owned_pair)),
            2 => ("PUT", [("content-range", &*format!("bytes {at}-{last}/*")), ("accept", "*/*")].map(owned_pair)),
            _ => ("PATCH", [partial, ("x-update-range", &*format!("bytes=-{}", expected.len() - at))].map(owned_pair)),
        };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = dav.send(method, "/dav/f", &headers, data.clone()).await;
        assert_eq!(answer.status / 100, 2, "{turn}: {headers:?}: {}", answer.text());
        let end = (at + length).min(expected.len());
        expected.splice(at..end, data);
    }
    assert!(dav.get("/dav/f").await.body == expected);
}

fn owned_pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
