//! What users may fill the store with is bounded, told of, and released with what it belongs to.

use patgate::auth::Clock;
use patgate::domain::PropertySpace;

use crate::support::{Dav, Fixture};

/// Sets a property; returns the answer where it was refused.
async fn refusal(dav: &Dav, path: &str, name: &str, size: usize) -> Option<String> {
    let value = "x".repeat(size);
    let set = format!("<set><prop><{name} xmlns='u:'>{value}</{name}></prop></set>");
    let body = format!("<propertyupdate xmlns='DAV:'>{set}</propertyupdate>");
    let answer = dav.send("PROPPATCH", path, &[], body).await;
    let text = answer.text();
    assert_eq!(answer.status, 207, "{text}");
    (!text.contains("200 OK")).then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_are_bounded_by_user_and_in_all_and_released_with_their_files() {
    let space = PropertySpace { per_user: 40_000, all: 66_000 };
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.properties = space).await;
    let [alice, bob] = ["alice", "bob"].map(|login| (login, gateway.login(login, "/:rw")));
    let [alice, bob] = [alice, bob].map(|(login, token)| gateway.dav(login, &token));
    for name in ["a", "b", "c", "d", "e", "target"] {
        assert_eq!(alice.put(&format!("/dav/{name}"), "x").await.status, 201);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(refusal(&alice, &format!("/dav/{name}"), "p", 10_000).await, None);
    }
    let refused = refusal(&alice, "/dav/d", "p", 10_000).await.expect("the fourth");
    assert!(refused.contains("507 Insufficient Storage") && refused.contains("quota-not-exceeded"), "{refused}");
    assert!(refused.contains("the properties that the user has set take as much space as they may"), "{refused}");
    let kept = alice.send("PROPFIND", "/dav/d", &[("depth", "0")], "").await.text();
    assert!(!kept.contains("xxxx"), "not half kept");

    // A copy is refused before anything is copied; a move takes what is there with it.
    let to = alice.url("/dav/copy");
    let copied = alice.send("COPY", "/dav/a", &[("destination", &to)], "").await;
    assert!(copied.status == 507 && copied.text().contains("as much space as they may"), "{}", copied.text());
    assert_eq!(alice.status("HEAD", "/dav/copy").await, 404);
    let to = alice.url("/dav/moved");
    assert_eq!(alice.send("MOVE", "/dav/a", &[("destination", &to)], "").await.status, 201);

    // Others have their own, within what all may.
    for name in ["d", "e"] {
        assert_eq!(refusal(&bob, &format!("/dav/{name}"), "p", 12_000).await, None);
    }
    let refused = refusal(&bob, "/dav/target", "p", 13_000).await.expect("more than all may");
    assert!(refused.contains("all properties together take as much space as they may"), "{refused}");

    // What becomes less is never refused; what is removed, replaced or deleted is released.
    assert_eq!(refusal(&alice, "/dav/b", "p", 9_000).await, None);
    assert_eq!(alice.status("DELETE", "/dav/moved").await, 204);
    assert_eq!(refusal(&alice, "/dav/target", "p", 10_000).await, None);
    assert!(refusal(&alice, "/dav/target", "q", 10_000).await.is_some());
    let remove = "<propertyupdate xmlns='DAV:'><remove><prop><p xmlns='u:'/></prop></remove></propertyupdate>";
    assert_eq!(alice.send("PROPPATCH", "/dav/c", &[], remove).await.status, 207);
    assert_eq!(refusal(&alice, "/dav/target", "q", 10_000).await, None);
    assert!(refusal(&alice, "/dav/c", "p", 10_000).await.is_some());
    // Who sets what somebody else has set holds it from then on.
    assert_eq!(refusal(&bob, "/dav/target", "q", 10_000).await, None);
    assert_eq!(refusal(&alice, "/dav/c", "p", 1_000).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_beyond_the_budget_leave_no_file_behind() {
    let space = PropertySpace { per_user: 300, all: 1 << 20 };
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.properties = space).await;
    let dav = gateway.dav("alice", &gateway.login("alice", "/:rw"));
    let refused = dav.send("PUT", "/dav/a", &[("x-patgate-tags", "draft")], "x").await;
    assert!(refused.status == 507 && refused.text().contains("as much space as they may"), "{}", refused.text());
    assert_eq!(gateway.everything(), [".patgate"].map(str::to_owned)[..], "neither file nor debris");
    gateway.write("b", "old");
    assert_eq!(dav.send("PUT", "/dav/b", &[("x-patgate-tags", "draft")], "new").await.status, 507);
    assert_eq!(dav.get("/dav/b").await.text(), "old");
    assert_eq!(dav.put("/dav/b", "new").await.status, 204, "without tags");
}
