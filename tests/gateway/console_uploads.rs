//! Uploads with the console's form, as a browser without JavaScript sends them: replacing, refusal before and during
//! the upload, and revocation meanwhile.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::browser::Browser;
use crate::support::{Fixture, HttpResponse, token_id};

const MULTIPART_CONTENT_TYPE: &str = "multipart/form-data; boundary=----x42";

/// The name of a field, that of the file where it is one, and what it holds.
type FormPart<'a> = (&'a str, Option<&'a str>, &'a str);

/// A form with files.
fn encode_form(parts: &[FormPart<'_>]) -> String {
    let part = |(name, file, content): &FormPart<'_>| {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: text/plain")).unwrap_or_default();
        format!("------x42\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    format!("{}------x42--\r\n", parts.iter().map(part).collect::<String>())
}

fn file_part<'a>(name: &'a str, content: &'a str) -> FormPart<'a> {
    ("file", Some(name), content)
}

async fn submit_upload(browser: &Browser, folder: &str, parts: &[FormPart<'_>]) -> HttpResponse {
    browser.post_as(MULTIPART_CONTENT_TYPE, &format!("/console/upload{folder}"), encode_form(parts)).await
}

/// Alice, who reads and writes `/a`, reads `/read` and puts into `/drop`; and what her forms carry.
async fn sign_in_alice(gateway: &Fixture, options: &[&str]) -> (Browser, String, String) {
    for folder in ["/a", "/read", "/drop", "/hidden"] {
        gateway.create_host_directory(folder);
    }
    gateway.create_user("alice", &["/a:rw", "/read:r", "/drop:w"]);
    let token = gateway.create_token("alice", &[&["-e", "1h"], options].concat());
    let browser = Browser::sign_in_new(gateway, "alice", &token).await;
    let csrf = browser.csrf_token().await;
    (browser, csrf, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn form_upload_replaces_existing_files_only_on_request() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = sign_in_alice(&gateway, &[]).await;
    let page = browser.get("/console/files/a").await.text();
    let form = page.split("<noscript>").nth(1).expect("a form").split("</noscript>").next().expect("its end");
    assert!(form.contains("action=\"/console/upload/a\"") && form.contains("multipart/form-data"), "{form}");
    assert!(form.find("csrf") < form.find("type=\"file\""), "the secret is sent before the files: {form}");

    let csrf = ("csrf", None, csrf.as_str());
    let long = "0123456789\r\n--".repeat(200_000);
    let stored = |name: &str| std::fs::read_to_string(gateway.host_path(name)).ok();
    let answer = submit_upload(
        &browser,
        "/a",
        &[csrf, file_part("caf\u{e9} 1.txt", "one"), file_part("long", &long), file_part("", "")],
    )
    .await;
    assert_eq!((answer.status, answer.header("location")), (303, "/console/files/a"), "{}", answer.text());
    assert_eq!((stored("/a/caf\u{e9} 1.txt").as_deref(), stored("/a/long")), (Some("one"), Some(long)));

    let second = submit_upload(
        &browser,
        "/a",
        &[csrf, file_part("long", "short"), file_part("<b>", "new"), file_part("..", "x")],
    )
    .await;
    let page = second.text();
    assert_eq!(second.status, 409, "{page}");
    assert!(page.contains("It already exists.") && page.contains("&#60;b&#62;") && !page.contains("<b>"), "{page}");
    assert_eq!((page.matches("not uploaded").count(), stored("/a/<b>").as_deref()), (2, Some("new")), "{page}");
    assert!(stored("/a/long").is_some_and(|kept| kept.len() > 100), "nothing is replaced unasked");

    let replace = ("replace", None, "1");
    assert_eq!(submit_upload(&browser, "/a", &[csrf, replace, file_part("long", "short")]).await.status, 303);
    assert_eq!(stored("/a/long").as_deref(), Some("short"));
    assert_eq!(submit_upload(&browser, "/drop", &[csrf, file_part("in", "x")]).await.status, 303);
    assert_eq!(stored("/drop/in").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_form_upload_is_reported_on_a_page() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = sign_in_alice(&gateway, &["--max-file-size", "1KiB"]).await;
    let before = gateway.all_paths();
    let csrf = ("csrf", None, csrf.as_str());
    let long = "x".repeat(600_000);
    let cases: [(&str, &[FormPart<'_>], u16); 9] = [
        ("/read", &[csrf, file_part("new", "x")], 403),
        ("/hidden", &[csrf, file_part("new", "x")], 404),
        ("/a", &[csrf, file_part("big", &long)], 413),
        ("/a", &[csrf, file_part(".patgate", "x")], 422),
        ("/a", &[csrf, file_part("a/b", "x")], 422),
        ("/a", &[csrf, file_part("", "")], 422),
        ("/a", &[("csrf", None, "wrong"), file_part("new", "x")], 403),
        ("/a", &[file_part("new", "x"), csrf], 403),
        ("/a", &[], 403),
    ];
    for (folder, parts, status) in cases {
        let answer = submit_upload(&browser, folder, parts).await;
        assert_eq!(answer.status, status, "{folder} {:?}: {}", parts.last(), answer.text());
        assert!(answer.text().contains("<h1>"), "a page");
    }
    let truncated = encode_form(&[csrf, file_part("new", "short")]);
    let answer =
        browser.post_as(MULTIPART_CONTENT_TYPE, "/console/upload/a", truncated[..truncated.len() - 5].to_owned()).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(
        browser.post_as("text/plain", "/console/upload/a", encode_form(&[csrf, file_part("new", "x")])).await.status,
        422
    );
    assert_eq!(gateway.all_paths(), before, "nothing of it is there, whole or in parts");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_form_upload_lists_the_files_before_the_stop() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = sign_in_alice(&gateway, &[]).await;
    let csrf = ("csrf", None, csrf.as_str());
    let names: Vec<String> = (0..1002).map(|number| format!("f{number}")).collect();
    let mut parts = vec![csrf];
    parts.extend(names.iter().map(|name| file_part(name, "x")));
    let answer = submit_upload(&browser, "/a", &parts).await;
    let page = answer.text();
    assert_eq!(answer.status, 422, "{page}");
    assert!(page.contains("at most 1000 files. Files that are not listed here were not uploaded."), "{page}");
    assert_eq!(page.matches(">uploaded<").count(), 1000);
    assert!(page.contains(">f999<") && !page.contains(">f1000<"));
    assert_eq!(std::fs::read_dir(gateway.host_path("/a")).expect("listed").count(), 1000);

    let truncated = encode_form(&[csrf, file_part("first", "whole"), file_part("second", "cut")]);
    let answer =
        browser.post_as(MULTIPART_CONTENT_TYPE, "/console/upload/a", truncated[..truncated.len() - 5].to_owned()).await;
    let page = answer.text();
    assert_eq!((answer.status, page.matches(">uploaded<").count()), (422, 1), "{page}");
    assert!(page.contains(">first<") && page.contains("interrupted"), "{page}");
    assert!(gateway.host_path("/a/first").exists() && !gateway.host_path("/a/second").exists());
}

/// Begins to send a form that never ends, and returns the connection.
async fn begin_upload(gateway: &Fixture, browser: &Browser, csrf: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.http).await.expect("a connection");
    let form = encode_form(&[("csrf", None, csrf), file_part("new", &"x".repeat(600_000))]);
    let head = format!(
        "POST /console/upload/a HTTP/1.1\r\nhost: {}\r\n{}content-type: {MULTIPART_CONTENT_TYPE}\r\ncontent-length: 9999999\r\n\r\n",
        gateway.http,
        browser.identifying_headers()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&form.as_bytes()[..form.len() - 20]).await.expect("sent");
    stream
}

async fn first_line(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // It may end by a reset.
    while answer.len() < 12 && stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
    String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn csrf_token_is_checked_before_files_are_received() {
    let gateway = Fixture::start().await;
    let (browser, _, _) = sign_in_alice(&gateway, &[]).await;
    let stream = begin_upload(&gateway, &browser, "wrong").await;
    assert_eq!(first_line(stream).await, "HTTP/1.1 403");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_refused_early_still_receives_the_error_page() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = sign_in_alice(&gateway, &[]).await;
    let signed_in = browser.identifying_headers();
    let cases = [
        ("POST /console/upload/a", MULTIPART_CONTENT_TYPE, String::new(), "401"),
        ("POST /console/upload/a", MULTIPART_CONTENT_TYPE, format!("{signed_in}sec-fetch-site: cross-site\r\n"), "403"),
        ("POST /console/upload/a", "text/plain", signed_in.clone(), "422"),
        ("PUT /console/raw/a/new", "text/plain", format!("x-csrf-token: {csrf}\r\n"), "401"),
        ("PUT /console/raw/a/new", "text/plain", signed_in.clone(), "403"),
    ];
    let content = vec![b'x'; 12 << 20];
    for (line, kind, who, status) in cases {
        let mut stream = TcpStream::connect(gateway.http).await.expect("a connection");
        let head = format!(
            "{line} HTTP/1.1\r\nhost: {}\r\n{who}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            gateway.http,
            content.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let sent = stream.write_all(&content).await;
        assert!(sent.is_ok(), "{line} {status}: {sent:?}");
        assert_eq!(first_line(stream).await, format!("HTTP/1.1 {status}"), "{line} {who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn form_upload_is_aborted_when_its_token_is_revoked() {
    let gateway = Fixture::start().await;
    let (browser, csrf, token) = sign_in_alice(&gateway, &[]).await;
    let stream = begin_upload(&gateway, &browser, &csrf).await;
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), first_line(stream)).await.expect("it ends");
    assert!(["", "HTTP/1.1 401"].contains(&answer.as_str()), "{answer}");
    assert!(!gateway.host_path("/a/new").exists());
}
