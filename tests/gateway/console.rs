//! The web console as a browser uses it: sign-in and its cookie, CSRF tokens, escaping, and the pages for tokens, users
//! and files. Uploads by form are in `console_uploads.rs`, the audit page in `console_audit.rs`.

use std::time::Duration;

use crate::support::browser::{Browser, form_urlencode, hidden_field};
use crate::support::{Fixture, token_id};

const SCRIPT: &str = "<script>alert(1)</script>";
const ESCAPED_SCRIPT: &str = "&#60;script&#62;alert(1)&#60;/script&#62;";

#[tokio::test(flavor = "multi_thread")]
async fn sign_out_ends_the_browser_session() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut browser = Browser::new(&gateway);
    let signed_out = browser.get("/console/files/a?after=b").await;
    let sign_in_url = "/console/sign-in?next=/console/files/a%3Fafter%3Db";
    assert_eq!((signed_out.status, signed_out.header("location")), (303, sign_in_url));
    assert!(browser.get(sign_in_url).await.text().contains("value=\"/console/files/a?after=b\""));
    for (login, shown_login) in [("alice", "pgt_x"), ("bob", token.as_str()), ("", ""), ("alice", "")] {
        let refused = browser.sign_in(login, shown_login).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (401, ""), "{login}");
        assert!(!refused.text().contains(&token), "a token is never shown again");
    }
    let answer = browser.sign_in("alice", &token).await;
    let cookie = answer.header("set-cookie").to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/console"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "over loopback without TLS it could not be kept: {cookie}");
    assert!(!cookie.contains(&token) && cookie.len() > 60, "{cookie}");
    assert!(browser.is_signed_in().await);
    assert_eq!(browser.submit("/console/files", "/console/sign-out", &[]).await.status, 303);
    assert!(!browser.is_signed_in().await, "the old cookie stands for nothing any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn cookie_is_secure_behind_tls_proxy_and_cleartext_sign_in_is_refused() {
    let proxied = |settings: &mut patgate::gateway::GatewaySettings| {
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.insecure_http = true;
    };
    let gateway = Fixture::start_with(patgate::auth::Clock::system(), proxied).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let body = form_urlencode(&[("login", "alice"), ("token", &token)]);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let from = ("x-forwarded-for", "192.0.2.7");
    let https = [form, from, ("x-forwarded-proto", "https")];
    let answer = gateway.dav("", "").send("POST", "/console/sign-in", &https, body.clone()).await;
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.starts_with("__Host-patgate_console=") && cookie.contains("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/;") && !cookie.contains("Domain"), "what the prefix asks for: {cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    for (sent, shown) in [(pair, "Sign out"), (pair.trim_start_matches("__Host-"), "")] {
        let headers = [https.as_slice(), &[("cookie", sent)]].concat();
        let page = gateway.dav("", "").send("GET", "/console/tokens", &headers, "").await;
        assert!(page.text().contains(shown), "{sent}");
        assert_eq!(page.status, if shown.is_empty() { 303 } else { 200 }, "a cookie without the prefix is none");
    }
    let http = [form, from, ("x-forwarded-proto", "http")];
    let answer = gateway.dav("", "").send("POST", "/console/sign-in", &http, body).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (403, ""));
    for (headers, hsts) in [(&https[..], "max-age=31536000"), (&http[..], ""), (&[], "")] {
        for (path, status) in [("/", 200), ("/console/sign-in", 200), ("/console/nowhere", 404)] {
            let page = gateway.dav("", "").send("GET", path, headers, "").await;
            assert_eq!((page.status, page.header("strict-transport-security")), (status, hsts), "{path} {headers:?}");
        }
        let healthy = gateway.dav("", "").send("GET", "/healthz", headers, "").await;
        assert_eq!(healthy.header("strict-transport-security"), "", "no page");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_form_or_missing_csrf_token_is_refused() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let csrf = browser.csrf_token().await;
    let name = ("name", "made");
    assert_eq!(browser.post("/console/folder/a", &[name]).await.status, 403);
    assert_eq!(browser.post("/console/folder/a", &[name, ("csrf", "wrong")]).await.status, 403);
    for site in ["cross-site", "same-site"] {
        assert_eq!(browser.post_from(site, "/console/folder/a", &[name, ("csrf", &csrf)]).await.status, 403, "{site}");
        let login = [("login", "alice"), ("token", token.as_str())];
        assert_eq!(browser.post_from(site, "/console/sign-in", &login).await.status, 403, "{site}");
    }
    assert_eq!(browser.upload("/console/raw/a/file", "wrong", "x").await, 403);
    let other = Browser::sign_in_new(&gateway, "alice", &token).await;
    assert_eq!(
        other.post("/console/folder/a", &[name, ("csrf", &csrf)]).await.status,
        403,
        "a secret of another visit"
    );
    assert!(!gateway.host_path("/a/made").exists() && !gateway.host_path("/a/file").exists());
    assert_eq!(browser.post("/console/folder/a", &[name, ("csrf", &csrf)]).await.status, 303);
    assert!(gateway.host_path("/a/made").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn session_cookie_is_bound_to_address_and_user_agent() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    browser.agent = "curl/8".to_owned();
    assert!(!browser.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_session_ends_with_its_token_and_when_idle() {
    let gateway = Fixture::with_manual_clock().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let revoked = Browser::sign_in_new(&gateway, "alice", &token).await;
    assert!(revoked.is_signed_in().await);
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    assert!(!revoked.is_signed_in().await, "the next request after a revocation by another process");
    let token = gateway.create_token("alice", &["-e", "30d"]);
    let resting = Browser::sign_in_new(&gateway, "alice", &token).await;
    for _ in 0..3 {
        gateway.clock.advance(Duration::from_secs(20 * 60));
        assert!(resting.is_signed_in().await, "each page begins the half hour anew");
    }
    gateway.clock.advance(Duration::from_secs(31 * 60));
    assert!(!resting.is_signed_in().await);
    let long = Browser::sign_in_new(&gateway, "alice", &token).await;
    for _ in 0..35 {
        gateway.clock.advance(Duration::from_secs(20 * 60));
        assert!(long.is_signed_in().await);
    }
    gateway.clock.advance(Duration::from_secs(21 * 60));
    assert!(!long.is_signed_in().await, "half a day is the longest");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_without_api_protocol_cannot_sign_in() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "--protocol", "webdav"]);
    assert_eq!(Browser::new(&gateway).sign_in("alice", &token).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_is_shown_once_and_resubmitted_form_creates_no_second_token() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let page = browser.get("/console/tokens/new").await.text();
    let (csrf, once) = (hidden_field(&page, "csrf"), hidden_field(&page, "once"));
    let fields = [
        ("csrf", csrf.as_str()),
        ("once", &once),
        ("name", "backup"),
        ("model", "auto"),
        ("window", "10"),
        ("window_unit", "m"),
        ("scope_path", "/a"),
        ("scope_permission", "r"),
    ];
    let created = browser.post("/console/tokens/new", &fields).await;
    assert_eq!((created.status, created.header("cache-control")), (201, "no-store"));
    let text = created.text();
    let secret = text[text.find("pgt_").expect("a secret")..][..51].to_owned();
    assert_eq!(gateway.dav("alice", &secret).status("PROPFIND", "/dav/a/").await, 207);
    assert_eq!(gateway.dav("alice", &secret).status("MKCOL", "/dav/a/b/").await, 403);
    assert_eq!(browser.post("/console/tokens/new", &fields).await.status, 409, "the form was already submitted");
    for path in
        ["/console/tokens".to_owned(), format!("/console/tokens/{}", token_id(&secret)), "/console/audit".into()]
    {
        assert!(!browser.get(&path).await.text().contains(&secret[13..40]), "{path}");
    }
    let list: serde_json::Value =
        serde_json::from_str(&gateway.run_cli(&["--json", "apitoken", "list", "--owner", "alice"])).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_renamed_narrowed_rotated_and_revoked_by_forms() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a/b");
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let hard = [
        ("name", "one"),
        ("model", "hard"),
        ("life", "30"),
        ("life_unit", "m"),
        ("scope_path", "/a"),
        ("scope_permission", "rw"),
    ];
    let (secret, _) = browser.create_token(&hard).await;
    let at = format!("/console/tokens/{}", token_id(&secret));
    let dav = gateway.dav("alice", &secret);
    assert_eq!(dav.status("MKCOL", "/dav/a/c/").await, 201);

    let change = format!("{at}/change");
    let wider = [("name", "one"), ("scope_path", "/"), ("scope_permission", "rw")];
    assert_eq!(browser.submit(&change, &change, &wider).await.status, 422);
    let narrower = [("name", "two"), ("scope_path", "/a/b"), ("scope_permission", "r")];
    assert_eq!(browser.submit(&change, &change, &narrower).await.status, 303);
    assert!(browser.get(&at).await.text().contains("<h1>two</h1>"));
    assert_eq!(dav.status("PROPFIND", "/dav/a/b/").await, 207);
    assert_eq!(dav.status("PROPFIND", "/dav/a/c/").await, 404);

    let rotate = format!("{at}/rotate");
    let rotated = browser.submit(&rotate, &rotate, &[]).await.text();
    let new = rotated[rotated.find("pgt_").expect("a secret")..][..51].to_owned();
    assert_eq!(dav.status("PROPFIND", "/dav/a/b/").await, 401);
    let dav = gateway.dav("alice", &new);
    assert_eq!(dav.status("PROPFIND", "/dav/a/b/").await, 207);

    let revoke = format!("{at}/revoke");
    assert_eq!(browser.submit(&revoke, &revoke, &[]).await.status, 303);
    assert_eq!(dav.status("PROPFIND", "/dav/a/b/").await, 401);
    assert!(browser.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_without_roles_sees_no_other_users_data() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/secret-plans");
    gateway.create_host_directory("/bob");
    let alice = gateway.create_user_and_token("alice", "/secret-plans:rw");
    gateway.create_user("bob", &["/bob:rw"]);
    let bob = gateway.create_token("bob", &["-e", "1h"]);
    let browser = Browser::sign_in_new(&gateway, "bob", &bob).await;
    let _other = Browser::sign_in_new(&gateway, "alice", &alice).await;
    for path in
        ["/console/tokens", "/console/tokens?everybody=1", "/console/files", "/console/sessions", "/console/folders"]
    {
        let page = browser.get(path).await.text();
        assert!(
            !page.contains("alice") && !page.contains(token_id(&alice)) && !page.contains("secret-plans"),
            "{path}"
        );
    }
    for path in
        ["/console/people", "/console/people/alice", "/console/policy", "/console/audit", "/console/tokens?owner=alice"]
    {
        assert_eq!(browser.get(path).await.status, 403, "{path}");
    }
    let missing = browser.get("/console/tokens/AAAAAAAA").await;
    let hidden = browser.get(&format!("/console/tokens/{}", token_id(&alice))).await;
    assert_eq!((missing.status, hidden.status), (404, 404));
    assert_eq!(hidden.text().replace(token_id(&alice), "AAAAAAAA"), missing.text());
    let missing = browser.get("/console/files/nothing").await;
    let hidden = browser.get("/console/files/secret-plans").await;
    assert_eq!((missing.status, missing.text()), (404, hidden.text()));
    let revoke = format!("/console/tokens/{}/revoke", token_id(&alice));
    assert_eq!(browser.submit("/console/tokens", &revoke, &[]).await.status, 404);
    assert_eq!(
        browser.submit("/console/tokens", "/console/policy", &[("key", "allow-never"), ("value", "true")]).await.status,
        403
    );
    assert_eq!(gateway.dav("alice", &alice).status("PROPFIND", "/dav/").await, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_html_escaped() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/<script>alert(1)<&script>", "x");
    gateway.create_host_directory("/<script>alert(1)<");
    gateway.run_cli(&["admin", "user", "create", "chief", "--no-home", "--grant", "/:rw", "--role", "admin"]);
    let token = gateway.create_token("chief", &["-e", "1h", "--role", "admin", "--name", SCRIPT]);
    let mut browser = Browser::new(&gateway);
    browser.agent = SCRIPT.to_owned();
    assert_eq!(browser.sign_in("chief", &token).await.status, 303);
    assert_eq!(browser.sign_in(SCRIPT, SCRIPT).await.status, 401);
    assert_eq!(browser.sign_in("chief", &token).await.status, 303);
    let pages = [
        "/console/files".to_owned(),
        "/console/tokens".to_owned(),
        format!("/console/tokens/{}", token_id(&token)),
        "/console/sessions".to_owned(),
        "/console/audit".to_owned(),
        "/console/people".to_owned(),
        format!("/console/tokens?find={}", "%3Cscript%3Ealert(1)%3C/script%3E"),
        "/console/files/%3Cscript%3Ealert(1)%3C&script%3E".to_owned(),
    ];
    let mut shown = 0;
    for path in pages {
        let page = browser.get(&path).await.text();
        assert!(page.contains("Sign out"), "{path}: {page}");
        assert!(!page.contains("<script>"), "{path}: {page}");
        shown += usize::from(page.contains(ESCAPED_SCRIPT));
    }
    assert!(shown >= 4, "the names are there, as text: on {shown} pages");
    let refused = browser.post("/console/sign-in", &[("login", SCRIPT), ("token", "x")]).await.text();
    assert!(refused.contains(ESCAPED_SCRIPT) && !refused.contains(SCRIPT));
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_files_cannot_execute_scripts() {
    let gateway = Fixture::start().await;
    for name in ["page.html", "picture.svg", "page.xhtml", "code.js", "none", "text.txt"] {
        gateway.write_host_file(
            &format!("/{name}"),
            "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        );
    }
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    for (name, kind) in [
        ("page.html", "text/plain; charset=utf-8"),
        ("picture.svg", "image/svg+xml"),
        ("page.xhtml", "application/octet-stream"),
        ("code.js", "text/plain; charset=utf-8"),
        ("none", "application/octet-stream"),
        ("text.txt", "text/plain; charset=utf-8"),
    ] {
        let raw = browser.get(&format!("/console/raw/{name}")).await;
        assert_eq!((raw.status, raw.header("content-type")), (200, kind), "{name}");
        assert!(raw.header("content-security-policy").starts_with("sandbox;"), "{name}");
        assert_eq!(raw.header("x-content-type-options"), "nosniff", "{name}");
        let downloaded = browser.get(&format!("/console/raw/{name}?download=1")).await;
        assert!(downloaded.header("content-disposition").starts_with("attachment"), "{name}");
        let page = browser.get(&format!("/console/files/{name}")).await;
        assert!(page.status == 200 && !page.text().contains("<script>alert"), "{name}");
    }
    let page = browser.get("/console/files").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!page.text().contains(" style=") && !page.text().contains(" onclick="));
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_uploaded_renamed_and_deleted() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    gateway.create_host_directory("/read");
    gateway.create_user("alice", &["/a:rw", "/read:r"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let csrf = browser.csrf_token().await;
    let long = "0123456789".repeat(100_000);
    assert_eq!(browser.upload("/console/raw/a/caf%C3%A9", &csrf, &long).await, 201);
    assert_eq!(browser.upload("/console/raw/a/caf%C3%A9", &csrf, "other").await, 409);
    assert_eq!(std::fs::read_to_string(gateway.host_path("/a/café")).expect("the file"), long);
    assert_eq!(browser.get("/console/raw/a/caf%C3%A9").await.body.len(), long.len());
    assert_eq!(browser.upload("/console/raw/a/caf%C3%A9?replace=1", &csrf, "other").await, 201);
    assert_eq!(browser.upload("/console/raw/read/new", &csrf, "x").await, 403);
    assert_eq!(browser.upload("/console/raw/hidden/new", &csrf, "x").await, 404);
    assert_eq!(browser.upload("/console/raw/a/..%2f..%2fout", &csrf, "x").await, 404);
    let rename = "/console/rename/a/caf%C3%A9";
    assert_eq!(browser.submit(rename, rename, &[("name", "../b")]).await.status, 422);
    assert_eq!(browser.submit(rename, rename, &[("name", "b")]).await.status, 303);
    assert_eq!(std::fs::read_to_string(gateway.host_path("/a/b")).expect("the file"), "other");
    assert_eq!(browser.submit("/console/delete/a/b", "/console/delete/a/b", &[]).await.status, 303);
    assert!(!gateway.host_path("/a/b").exists());
    assert_eq!(
        browser.submit("/console/files", "/console/delete/a", &[]).await.status,
        403,
        "the root of a grant stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_pages_show_every_name_once() {
    let gateway = Fixture::start().await;
    for number in 0..450 {
        gateway.write_host_file(&format!("/a/file {number}"), "");
    }
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let names = |page: &str| -> Vec<String> {
        page.split("<span class=\"name\">")
            .skip(1)
            .filter_map(|rest| Some(rest.split('<').next()?.to_owned()))
            .collect()
    };
    let link = |page: &str, rel: &str| -> Option<String> {
        let rest = page.split(&format!("rel=\"{rel}\" href=\"")).nth(1)?;
        Some(rest.split('"').next()?.replace("&#38;", "&"))
    };
    let (mut next, mut seen, mut previous) = (Some("/console/files/a".to_owned()), Vec::new(), None);
    while let Some(path) = next {
        let page = browser.get(&path).await.text();
        seen.extend(names(&page));
        next = link(&page, "next");
        previous = link(&page, "prev");
    }
    assert_eq!(seen.len(), 450);
    assert!(seen.is_sorted(), "{seen:?}");
    let before = names(&browser.get(&previous.expect("a page before")).await.text());
    assert_eq!(before, seen[200..400]);
    let found = names(&browser.get("/console/files/a?find=FILE%2044").await.text());
    assert_eq!(found.len(), 11, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn administrator_manages_users_policy_and_sessions() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/shared");
    gateway.run_cli(&["admin", "user", "create", "chief", "--no-home", "--grant", "/:rw", "--role", "admin"]);
    let token = gateway.create_token("chief", &["-e", "1h", "--role", "admin"]);
    let browser = Browser::sign_in_new(&gateway, "chief", &token).await;
    let new = [("login", "bob"), ("home", "1"), ("scope_path", "/shared"), ("scope_permission", "r")];
    assert_eq!(browser.submit("/console/people/new", "/console/people/new", &new).await.status, 303);
    assert_eq!(browser.submit("/console/people/new", "/console/people/new", &new).await.status, 409);
    let at = "/console/people/bob";
    let page = browser.get(at).await.text();
    assert!(page.contains("/shared") && page.contains("/bob"));
    let (bob, _) = browser.create_token(&[("owner", "bob"), ("model", "default")]).await;
    let dav = gateway.dav("bob", &bob);
    assert_eq!(dav.status("PROPFIND", "/dav/shared/").await, 207);

    let bob_browser = Browser::sign_in_new(&gateway, "bob", &bob).await;
    let sessions = browser.get("/console/sessions").await.text();
    let row = sessions.split("<tr>").find(|row| row.contains(token_id(&bob))).expect("the session of bob").to_owned();
    let fields = [("token", token_id(&bob)), ("number", &hidden_field(&row, "number"))];
    assert_eq!(browser.submit("/console/sessions", "/console/sessions/end", &fields).await.status, 303);
    assert!(!bob_browser.is_signed_in().await);
    assert_eq!(dav.status("PROPFIND", "/dav/shared/").await, 207, "the token lives on");

    let node = hidden_field(page.split("/shared").next().unwrap_or_default(), "node");
    let node = if node.is_empty() { hidden_field(&page, "node") } else { node };
    assert_eq!(browser.submit(at, &format!("{at}/revoke-grant"), &[("node", &node)]).await.status, 303);
    assert_eq!(browser.submit(at, &format!("{at}/roles"), &[("role", "audit.read")]).await.status, 303);
    assert!(gateway.run_cli(&["--json", "admin", "user", "show", "bob"]).contains("audit.read"));
    assert_eq!(browser.submit(at, &format!("{at}/disable"), &[]).await.status, 303);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    assert_eq!(browser.submit(at, &format!("{at}/enable"), &[]).await.status, 303);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);

    let set = |value| [("key", "max-tokens-per-user"), ("value", value)];
    assert_eq!(browser.submit("/console/policy", "/console/policy", &set("7")).await.status, 200);
    assert_eq!(browser.submit("/console/policy", "/console/policy", &set("many")).await.status, 422);
    assert!(gateway.run_cli(&["policy", "show"]).contains('7'));
    let audit = browser.get("/console/audit?span=day&event=user.disabled").await.text();
    assert!(audit.contains("bob") && audit.contains("chief"), "{audit}");
    assert_eq!(browser.submit(at, &format!("{at}/delete"), &[]).await.status, 303);
    assert_eq!(browser.get(at).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_list_pages_both_ways_and_warns_about_tokens_on_other_pages() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_host_directory("/a");
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "200"]);
    let token = gateway.create_user_and_token("alice", "/:rw");
    let tokens: Vec<_> =
        (0..60).map(|_| gateway.create_token("alice", &["-e", "2h", "--protocol", "webdav"])).collect();
    let scoped = gateway.create_token("alice", &["-e", "30d", "-s", "path:/a:r", "--name", "last of all"]);
    gateway.run_cli(&["admin", "user", "create", "chief", "--no-home", "--role", "admin"]);
    let admin = gateway.create_token("chief", &["-e", "30d", "--role", "admin"]);
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let link = |page: &str, rel: &str| -> Option<String> {
        let rest = page.split(&format!("rel=\"{rel}\" href=\"")).nth(1)?;
        Some(rest.split('"').next()?.replace("&#38;", "&"))
    };
    let rows = |page: &str| page.matches("<th scope=\"row\">").count();
    let first = browser.get("/console/tokens").await.text();
    assert!(!first.contains("Token warnings") && link(&first, "prev").is_none());
    let second = browser.get(&link(&first, "next").expect("a second page")).await.text();
    assert!(link(&second, "next").is_none());
    let previous = browser.get(&link(&second, "prev").expect("the first page")).await.text();
    let table = |page: &str| page.split("<tbody>").nth(1).expect("rows").split("</tbody>").next().map(str::to_owned);
    assert_eq!((rows(&first), rows(&second), table(&previous)), (50, 12, table(&first)));
    assert!(link(&previous, "prev").is_none() && link(&previous, "next").is_some());

    std::fs::remove_dir(gateway.host_path("/a")).expect("removed");
    gateway.clock.advance(Duration::from_secs(100 * 60));
    let admin = Browser::sign_in_new(&gateway, "chief", &admin).await;
    for path in ["/console/tokens", "/console/people"] {
        let page = admin.get(path).await.text();
        let notice = page.split("Token warnings").nth(1).expect("a notice").split("</section>").next();
        let notice = notice.expect("its end");
        assert!(notice.contains("and 50 others") && notice.contains("of alice"), "{notice}");
        assert!(notice.contains("is gone") && notice.contains(token_id(&scoped)), "{notice}");
    }
    let revoked = tokens[..49].iter().map(|token| token_id(token));
    gateway.run_cli(&["apitoken", "revoke"].into_iter().chain(revoked).collect::<Vec<_>>());
    let page = admin.get("/console/people").await.text();
    assert!(page.contains("and 1 other<") && !page.contains("1 others"), "{page}");
    let all = admin.get("/console/tokens?everybody=1").await.text();
    let further = link(&all, "next").expect("a second page");
    let previous = link(&admin.get(&further).await.text(), "prev").expect("the first page");
    assert!(all.contains("Token warnings"));
    for path in [further.as_str(), &previous, "/console/tokens?everybody=1&find=last", "/console/tokens?owner=alice"] {
        let page = admin.get(path).await.text();
        assert!(page.contains("<tbody>") && !page.contains("Token warnings"), "{path}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn error_page_keeps_the_navigation() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    let signed_out = Browser::new(&gateway);
    let pages =
        [("/console/nothing", 404), ("/console/files/none", 404), ("/console/upload", 404), ("/console/policy", 403)];
    for (path, status) in pages {
        let page = browser.get(path).await;
        assert_eq!(page.status, status, "{path}");
        assert!(page.text().contains("Sign out") && page.text().contains("id=\"why\""), "{path}: {}", page.text());
        assert!(!signed_out.get(path).await.text().contains("Sign out"), "{path}");
    }
    assert_eq!(browser.post("/console/folder", &[("name", "x")]).await.status, 403);
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    assert!(!browser.get("/console/nothing").await.text().contains("Sign out"), "the session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_link_gets_a_page_that_reloads_from_the_same_site() {
    let gateway = Fixture::start().await;
    let navigation = |site: &'static str, to: &'static str| {
        [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", to)]
    };
    let path = "/console/files/a%22b?after=c&find=d";
    let linked = gateway.dav("", "").send("GET", path, &navigation("cross-site", "document"), "").await;
    assert_eq!((linked.status, linked.header("cache-control")), (200, "no-store"));
    let page = linked.text();
    let next = "/console/files/a%22b?after=c&#38;find=d";
    assert!(
        page.contains(&format!("content=\"0; url={next}\"")) && page.contains(&format!("href=\"{next}\"")),
        "{page}"
    );
    for (site, to) in [("same-origin", "document"), ("none", "document"), ("cross-site", "iframe")] {
        let answer = gateway.dav("", "").send("GET", path, &navigation(site, to), "").await;
        assert_eq!(answer.status, 303, "{site} {to}: no way back and forth");
    }
}
