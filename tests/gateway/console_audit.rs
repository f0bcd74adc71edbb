//! The chart of uses and refusals on the console's audit page, moved by clients.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::{Fixture, Sftp};

const HOUR: Duration = Duration::from_secs(3600);

/// An administrator who reads the audit page.
struct Reader {
    token: String,
}

impl Reader {
    fn new(gateway: &Fixture) -> Self {
        gateway.patgate(&["admin", "user", "create", "chief", "--no-home", "--role", "audit.read"]);
        Self { token: gateway.token("chief", &["-e", "30d", "--role", "audit.read"]) }
    }

    async fn page(&self, gateway: &Fixture, address: &str) -> String {
        let browser = Browser::signed_in(gateway, "chief", &self.token).await;
        browser.get(address).await.text()
    }

    /// What the table beside the chart adds up to, by column, and how many lines it has.
    async fn figures(&self, gateway: &Fixture) -> (BTreeMap<String, u64>, usize) {
        let page = self.page(gateway, "/console/audit?span=day").await;
        let table =
            page.split("The same as a table").nth(1).expect("a table").split("</table>").next().expect("its end");
        let mut sums = BTreeMap::new();
        for cell in table.split("data-label=\"").skip(1) {
            let (column, rest) = cell.split_once("\">").expect("a cell");
            let count: u64 = rest.split('<').next().expect("text").parse().unwrap_or(0);
            *sums.entry(column.to_owned()).or_default() += count;
        }
        (sums, table.matches("<th scope=\"row\">").count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_and_refusals_of_each_protocol_move_their_own_bars() {
    let mut gateway = Fixture::with_clock_by_hand().await;
    gateway.write("/a/f", "text");
    let token = gateway.login("alice", "/a:r");
    let reader = Reader::new(&gateway);
    let of = |figures: &BTreeMap<String, u64>, column: &str| figures[column];

    let (figures, _) = reader.figures(&gateway).await;
    assert_eq!((of(&figures, "WebDAV"), of(&figures, "SFTP"), of(&figures, "API and console")), (0, 0, 1));

    let dav = gateway.dav("alice", &token);
    for _ in 0..3 {
        assert_eq!(dav.get("/dav/a/f").await.status, 200);
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    for _ in 0..2 {
        sftp.list("/a").await.expect("listed");
    }
    let (figures, lines) = reader.figures(&gateway).await;
    assert_eq!((of(&figures, "WebDAV"), of(&figures, "SFTP"), lines), (3, 1, 1), "a session counts once an hour");
    assert_eq!((of(&figures, "WebDAV, refused"), of(&figures, "SFTP, refused")), (0, 0));

    assert_eq!(gateway.dav("alice", "pgt_wrong").get("/dav/a/f").await.status, 401);
    assert_eq!(dav.status("DELETE", "/dav/a/f").await, 403);
    assert!(Sftp::connect(gateway.sftp, "bob", &token).await.is_none());
    let (figures, _) = reader.figures(&gateway).await;
    assert_eq!((of(&figures, "WebDAV"), of(&figures, "WebDAV, refused")), (3, 2));
    assert!(of(&figures, "SFTP, refused") >= 1, "{figures:?}");
    assert_eq!(of(&figures, "API and console, refused"), 0);

    gateway.clock.advance(HOUR);
    sftp.list("/a").await.expect("listed");
    let (figures, lines) = reader.figures(&gateway).await;
    assert_eq!((of(&figures, "SFTP"), lines), (2, 2), "an hour later it counts again, in a bar of its own");

    drop(sftp);
    gateway.restart().await;
    let (after, _) = reader.figures(&gateway).await;
    assert_eq!((of(&after, "WebDAV"), of(&after, "SFTP")), (3, 2), "a restart forgets nothing");

    let page = reader.page(&gateway, "/console/audit?span=day&user=alice").await;
    assert!(page.contains("Events that fit the filter") && !page.contains("Uses: "), "uses are of everybody: {page}");
    gateway.clock.advance(25 * HOUR);
    let (figures, _) = reader.figures(&gateway).await;
    assert_eq!(of(&figures, "WebDAV"), 0, "what is older than a day is not of the last day");
}
