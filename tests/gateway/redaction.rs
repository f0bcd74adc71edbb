//! A token that was pasted into a path, a query or a name: the log and the audit trail hold its id at most, never its
//! secret.

use std::fs;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, SftpClient, send_raw, token_id};

#[tokio::test(flavor = "multi_thread")]
async fn token_in_a_path_or_query_is_redacted_in_log_and_audit_trail() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("files/shown")).expect("folders");
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home"]);
    let log = folder.path().join("log");
    let server = ServerProcess::start_logging(folder.path(), &log);
    run_cli(folder.path(), &["admin", "user", "create", "bob", "--no-home", "--grant", "/shown:r"]);
    let token = create_token(folder.path(), "bob");
    let secret = &token[13..];
    assert_eq!(secret.len(), 38);
    let client = DavClient::new(server.http, "bob", &token);
    let encoded = token.replace('_', "%5F").replace('.', "%2E");
    for path in [format!("/dav/shown/{token}"), format!("/dav/shown/{encoded}"), format!("/dav/shown/x?_token={token}")]
    {
        assert_eq!(client.put(&path, "x").await.status, 403, "{path}");
    }
    for path in [format!("/{token}"), format!("/api/v1/{token}"), format!("/auth/token/x?_token={encoded}")] {
        assert_ne!(client.get(&path).await.status, 200, "{path}");
    }
    let agent = format!("GET /dav/ HTTP/1.1\r\nHost: x\r\nUser-Agent: {token}\r\nConnection: close\r\n\r\n");
    send_raw(server.http, agent.as_bytes()).await;
    let mut sftp = SftpClient::connect(server.sftp, "bob", &token).await.expect("logged in");
    assert!(sftp.put(&format!("/shown/{token}"), b"x").await.is_err());
    assert!(sftp.mkdir(&format!("/shown/{token}")).await.is_err());
    drop(sftp);
    server.stop();

    let id = token_id(&token);
    let redacted = format!("pgt_{id}.***");
    for (what, text) in
        [("log", fs::read_to_string(&log).expect("a log")), ("audit", run_cli(folder.path(), &["audit", "--json"]))]
    {
        assert!(text.contains(&redacted), "the {what} tells of what was refused:\n{text}");
        assert!(!text.contains(secret), "the {what} holds the secret");
    }
}
