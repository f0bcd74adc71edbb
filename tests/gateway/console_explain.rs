//! The console's page that explains why a token may or may not do something. The rules of explanations themselves are
//! tested in `src/tokens/tests/explain.rs`.

use crate::support::Fixture;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn explain_requires_a_target_for_copy_move_and_link() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    let token = gateway.create_user_and_token("alice", "/a:rw");
    let browser = Browser::sign_in_new(&gateway, "alice", &token).await;
    for (query, status, message) in [
        ("op=move&path=/a/x&to=/a/y", 200, "alice may move /a/x to /a/y"),
        ("op=move&path=/a/x&to=", 422, "has a target: give it"),
        ("op=read&path=/a/x&to=/a/y", 422, "has no target"),
        ("op=read&path=/a/x&to=", 200, "alice may read /a/x"),
    ] {
        let page = browser.get(&format!("/console/explain?{query}")).await;
        assert_eq!(page.status, status, "{query}: {}", page.text());
        assert!(page.text().contains(message), "{query}: {}", page.text());
    }
}
