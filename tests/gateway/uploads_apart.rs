//! What uploads give away: nothing of content that may not be read, and nothing of another token's.

use crate::support::{Dav, Fixture};

const SHA1_OF_S: &str = "SHA1:02aa629c8b16cd17a44f3a0efec2feed43937642";
const SHA1_OF_T: &str = "SHA1:c2c53d66948214258a26ca9ca845d7ac0c17f8e7";
const SHA1_OF_SECRET: &str = "SHA1:e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4";
const PART: (&str, &str) = ("content-type", "application/x-sabredav-partialupdate");

/// A token of alice's for what its scope says.
fn scoped(gateway: &Fixture, options: &[&str]) -> Dav {
    let options: Vec<_> = ["-e", "1h"].iter().chain(options).copied().collect();
    gateway.dav("alice", &gateway.token("alice", &options))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_in_a_drop_box_tells_nothing_of_the_rest() {
    let gateway = Fixture::start().await;
    gateway.write("/box/file", "secret");
    gateway.user("alice", &["/:rw"]);
    let dav = scoped(&gateway, &["-s", "path:/box:w"]);
    for guess in [SHA1_OF_S, SHA1_OF_T, SHA1_OF_SECRET] {
        for digest in [("oc-checksum", guess), ("x-none", "")] {
            for range in ["bytes 0-0/1", "bytes 0-0/*", "bytes 6-6/7"] {
                let put = dav.send("PUT", "/dav/box/file", &[("content-range", range), digest], "s").await;
                assert_eq!((put.status, put.header("content-range")), (403, ""), "{guess} {range}");
            }
            for range in ["append", "bytes=0-", "bytes=99-"] {
                let headers = [PART, ("x-update-range", range), digest];
                let patch = dav.send("PATCH", "/dav/box/file", &headers, "").await;
                assert_eq!((patch.status, patch.header("content-range")), (403, ""), "{guess} {range}");
            }
        }
    }
    assert_eq!(std::fs::read(gateway.host("/box/file")).expect("there"), b"secret");
    let made = dav.send("PUT", "/dav/box/new", &[("content-range", "bytes 0-2/3")], "new").await;
    assert_eq!(made.status, 201, "there is nothing to be read");
    assert_eq!(dav.put("/dav/box/file", "other").await.status, 204, "what replaces all of it is the client's own");
    let both = scoped(&gateway, &["-s", "path:/box:rw"]);
    let headers = [PART, ("x-update-range", "append"), ("oc-checksum", SHA1_OF_SECRET)];
    assert_eq!(both.send("PATCH", "/dav/box/file", &headers, "").await.status, 400);
}
