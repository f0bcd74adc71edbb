//! The chart of logins and refusals on the console's audit page: it counts what clients do over each protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::{Fixture, SftpClient};

const HOUR: Duration = Duration::from_secs(3600);

/// An administrator who reads the audit page.
struct AuditPageReader {
    token: String,
}

impl AuditPageReader {
    fn new(gateway: &Fixture) -> Self {
        gateway.run_cli(&["admin", "user", "create", "chief", "--no-home", "--role", "audit.read"]);
        Self { token: gateway.create_token("chief", &["-e", "30d", "--role", "audit.read"]) }
    }

    async fn page(&self, gateway: &Fixture, address: &str) -> String {
        let browser = Browser::sign_in_new(gateway, "chief", &self.token).await;
        browser.get(address).await.text()
    }

    /// Returns the totals of the table beside the chart, by column, and its number of lines.
    async fn column_totals(&self, gateway: &Fixture) -> (BTreeMap<String, u64>, usize) {
        let page = self.page(gateway, "/console/audit?span=day").await;
        let table = page.split("Show as a table").nth(1).expect("a table").split("</table>").next().expect("its end");
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
async fn audit_chart_counts_uses_and_refusals_per_protocol() {
    let mut gateway = Fixture::with_manual_clock().await;
    gateway.write_host_file("/a/f", "text");
    let token = gateway.create_user_and_token("alice", "/a:r");
    let reader = AuditPageReader::new(&gateway);
    let of = |totals: &BTreeMap<String, u64>, column: &str| totals[column];

    let (totals, _) = reader.column_totals(&gateway).await;
    assert_eq!((of(&totals, "WebDAV"), of(&totals, "SFTP"), of(&totals, "API and console")), (0, 0, 1));

    let dav = gateway.dav("alice", &token);
    for _ in 0..3 {
        assert_eq!(dav.get("/dav/a/f").await.status, 200);
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    for _ in 0..2 {
        sftp.list("/a").await.expect("listed");
    }
    let (totals, lines) = reader.column_totals(&gateway).await;
    assert_eq!((of(&totals, "WebDAV"), of(&totals, "SFTP"), lines), (3, 1, 1), "a session counts once an hour");
    assert_eq!((of(&totals, "WebDAV, refused"), of(&totals, "SFTP, refused")), (0, 0));

    assert_eq!(gateway.dav("alice", "pgt_wrong").get("/dav/a/f").await.status, 401);
    assert_eq!(dav.status("DELETE", "/dav/a/f").await, 403);
    assert!(SftpClient::connect(gateway.sftp, "bob", &token).await.is_none());
    let (totals, _) = reader.column_totals(&gateway).await;
    assert_eq!((of(&totals, "WebDAV"), of(&totals, "WebDAV, refused")), (3, 2));
    assert!(of(&totals, "SFTP, refused") >= 1, "{totals:?}");
    assert_eq!(of(&totals, "API and console, refused"), 0);

    gateway.clock.advance(HOUR);
    sftp.list("/a").await.expect("listed");
    let (totals, lines) = reader.column_totals(&gateway).await;
    assert_eq!((of(&totals, "SFTP"), lines), (2, 2), "an hour later it counts again, in a bar of its own");

    drop(sftp);
    gateway.restart().await;
    let (after, _) = reader.column_totals(&gateway).await;
    assert_eq!((of(&after, "WebDAV"), of(&after, "SFTP")), (3, 2), "a restart forgets nothing");

    let page = reader.page(&gateway, "/console/audit?span=day&user=alice").await;
    assert!(page.contains("Events that match the filter") && !page.contains("Uses: "), "uses are of everybody: {page}");
    gateway.clock.advance(25 * HOUR);
    let (totals, _) = reader.column_totals(&gateway).await;
    assert_eq!(of(&totals, "WebDAV"), 0, "what is older than a day is not of the last day");
}
