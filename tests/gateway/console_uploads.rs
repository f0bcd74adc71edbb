//! Uploads by a form, as a browser without script sends them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::browser::Browser;
use crate::support::{Answer, Fixture, id_of};

const KIND: &str = "multipart/form-data; boundary=----x42";

/// The name of a field, that of the file where it is one, and what it holds.
type Part<'a> = (&'a str, Option<&'a str>, &'a str);

/// A form with files.
fn form(parts: &[Part<'_>]) -> String {
    let part = |(name, file, content): &Part<'_>| {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: text/plain")).unwrap_or_default();
        format!("------x42\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    format!("{}------x42--\r\n", parts.iter().map(part).collect::<String>())
}

fn file<'a>(name: &'a str, content: &'a str) -> Part<'a> {
    ("file", Some(name), content)
}

async fn sent(browser: &Browser, folder: &str, parts: &[Part<'_>]) -> Answer {
    browser.post_as(KIND, &format!("/console/upload{folder}"), form(parts)).await
}

/// Alice, who reads and writes `/a`, reads `/read` and puts into `/drop`; and what her forms carry.
async fn alice(gateway: &Fixture, options: &[&str]) -> (Browser, String, String) {
    for folder in ["/a", "/read", "/drop", "/hidden"] {
        gateway.folder(folder);
    }
    gateway.user("alice", &["/a:rw", "/read:r", "/drop:w"]);
    let token = gateway.token("alice", &[&["-e", "1h"], options].concat());
    let browser = Browser::signed_in(gateway, "alice", &token).await;
    let csrf = browser.csrf().await;
    (browser, csrf, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_uploads_several_files_and_replaces_only_what_it_is_told_to() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = alice(&gateway, &[]).await;
    let page = browser.get("/console/files/a").await.text();
    let form = page.split("<noscript>").nth(1).expect("a form").split("</noscript>").next().expect("its end");
    assert!(form.contains("action=\"/console/upload/a\"") && form.contains("multipart/form-data"), "{form}");
    assert!(form.find("csrf") < form.find("type=\"file\""), "the secret is sent before the files: {form}");

    let csrf = ("csrf", None, csrf.as_str());
    let long = "0123456789\r\n--".repeat(200_000);
    let stored = |name: &str| std::fs::read_to_string(gateway.host(name)).ok();
    let answer = sent(&browser, "/a", &[csrf, file("caf\u{e9} 1.txt", "one"), file("long", &long), file("", "")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/console/files/a"), "{}", answer.text());
    assert_eq!((stored("/a/caf\u{e9} 1.txt").as_deref(), stored("/a/long")), (Some("one"), Some(long)));

    let again = sent(&browser, "/a", &[csrf, file("long", "short"), file("<b>", "new"), file("..", "x")]).await;
    let page = again.text();
    assert_eq!(again.status, 409, "{page}");
    assert!(page.contains("It already exists.") && page.contains("&#60;b&#62;") && !page.contains("<b>"), "{page}");
    assert_eq!((page.matches("not uploaded").count(), stored("/a/<b>").as_deref()), (2, Some("new")), "{page}");
    assert!(stored("/a/long").is_some_and(|kept| kept.len() > 100), "nothing is replaced unasked");

    let replace = ("replace", None, "1");
    assert_eq!(sent(&browser, "/a", &[csrf, replace, file("long", "short")]).await.status, 303);
    assert_eq!(stored("/a/long").as_deref(), Some("short"));
    assert_eq!(sent(&browser, "/drop", &[csrf, file("in", "x")]).await.status, 303);
    assert_eq!(stored("/drop/in").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_form_may_not_upload_is_told_in_a_page() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = alice(&gateway, &["--max-file-size", "1KiB"]).await;
    let before = gateway.everything();
    let csrf = ("csrf", None, csrf.as_str());
    let long = "x".repeat(600_000);
    let cases: [(&str, &[Part<'_>], u16); 9] = [
        ("/read", &[csrf, file("new", "x")], 403),
        ("/hidden", &[csrf, file("new", "x")], 404),
        ("/a", &[csrf, file("big", &long)], 413),
        ("/a", &[csrf, file(".patgate", "x")], 422),
        ("/a", &[csrf, file("a/b", "x")], 422),
        ("/a", &[csrf, file("", "")], 422),
        ("/a", &[("csrf", None, "wrong"), file("new", "x")], 403),
        ("/a", &[file("new", "x"), csrf], 403),
        ("/a", &[], 403),
    ];
    for (folder, parts, status) in cases {
        let answer = sent(&browser, folder, parts).await;
        assert_eq!(answer.status, status, "{folder} {:?}: {}", parts.last(), answer.text());
        assert!(answer.text().contains("<h1>"), "a page");
    }
    let cut = form(&[csrf, file("new", "short")]);
    let answer = browser.post_as(KIND, "/console/upload/a", cut[..cut.len() - 5].to_owned()).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(browser.post_as("text/plain", "/console/upload/a", form(&[csrf, file("new", "x")])).await.status, 422);
    assert_eq!(gateway.everything(), before, "nothing of it is there, whole or in parts");
}

/// Begins to send a form that never ends, and returns the connection.
async fn begun(gateway: &Fixture, browser: &Browser, csrf: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.http).await.expect("a connection");
    let whole = form(&[("csrf", None, csrf), file("new", &"x".repeat(600_000))]);
    let head = format!(
        "POST /console/upload/a HTTP/1.1\r\nhost: {}\r\n{}content-type: {KIND}\r\ncontent-length: 9999999\r\n\r\n",
        gateway.http,
        browser.head()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&whole.as_bytes()[..whole.len() - 20]).await.expect("sent");
    stream
}

async fn first_line(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // It may end by a reset.
    while answer.len() < 12 && stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
    String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_a_form_is_looked_at_before_its_files_have_come() {
    let gateway = Fixture::start().await;
    let (browser, _, _) = alice(&gateway, &[]).await;
    let stream = begun(&gateway, &browser, "wrong").await;
    assert_eq!(first_line(stream).await, "HTTP/1.1 403");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_while_sending_gets_to_see_why() {
    let gateway = Fixture::start().await;
    let (browser, csrf, _) = alice(&gateway, &[]).await;
    let signed_in = browser.head();
    let cases = [
        ("POST /console/upload/a", KIND, String::new(), "401"),
        ("POST /console/upload/a", KIND, format!("{signed_in}sec-fetch-site: cross-site\r\n"), "403"),
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
async fn an_upload_by_a_form_ends_with_its_token() {
    let gateway = Fixture::start().await;
    let (browser, csrf, token) = alice(&gateway, &[]).await;
    let stream = begun(&gateway, &browser, &csrf).await;
    gateway.patgate(&["apitoken", "revoke", id_of(&token)]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), first_line(stream)).await.expect("it ends");
    assert!(["", "HTTP/1.1 401"].contains(&answer.as_str()), "{answer}");
    assert!(!gateway.host("/a/new").exists());
}
