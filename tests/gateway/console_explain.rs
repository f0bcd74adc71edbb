//! The console's answer to why a token may or may not do something.

use crate::support::Fixture;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_somewhere_is_explained_with_its_target_alone() {
    let gateway = Fixture::start().await;
    gateway.folder("/a");
    let token = gateway.login("alice", "/a:rw");
    let browser = Browser::signed_in(&gateway, "alice", &token).await;
    for (query, status, told) in [
        ("op=move&path=/a/x&to=/a/y", 200, "alice may move /a/x to /a/y"),
        ("op=move&path=/a/x&to=", 422, "goes somewhere"),
        ("op=read&path=/a/x&to=/a/y", 422, "goes nowhere"),
        ("op=read&path=/a/x&to=", 200, "alice may read /a/x"),
    ] {
        let page = browser.get(&format!("/console/explain?{query}")).await;
        assert_eq!(page.status, status, "{query}: {}", page.text());
        assert!(page.text().contains(told), "{query}: {}", page.text());
    }
}
