//! Resources of the server: its memory does not grow with files and listings, unauthenticated connections occupy a
//! bounded number of places, and it raises its own limit on open files. Limits per user are in `connection_limits.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, SftpClient};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_files_and_listings() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir_all(folder.join("files/long")).expect("folders");
    for number in 0..20_000 {
        std::fs::write(folder.join(format!("files/long/a-file-with-a-number-{number}")), "").expect("a file");
    }
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder, "alice");
    let dav = DavClient::new(server.http, "alice", &token);
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    assert_eq!(dav.status("PROPFIND", "/dav/long/file").await, 404);
    let before = server.peak_kib();

    let size = 192 * MIB;
    let mut stream = TcpStream::connect(server.http).await.expect("connected");
    let head = |method: &str, length: usize| {
        format!(
            "{method} /dav/large HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: {length}\r\n\r\n",
            server.http,
            dav.authorization()
        )
    };
    stream.write_all(head("PUT", size).as_bytes()).await.expect("sent");
    let block = vec![7u8; MIB];
    for _ in 0..size / MIB {
        stream.write_all(&block).await.expect("sent");
    }
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.expect("answered");
    assert_eq!(answer, b"HTTP/1.1 201");

    let mut stream = TcpStream::connect(server.http).await.expect("connected");
    stream.write_all(head("GET", 0).as_bytes()).await.expect("sent");
    let mut received = 0;
    let mut buffer = vec![0; MIB];
    while received < size {
        received += stream.read(&mut buffer).await.expect("received");
    }
    let handle = sftp.open_file(b"/large", 1).await.expect("opened");
    for number in 0..64 {
        assert_eq!(sftp.read_at(&handle, number * 65_536, 65_536).await.expect("read").len(), 65_536);
    }
    assert_eq!(dav.list_hrefs("/dav/long/").await.map(|names| names.len()), Ok(20_000));
    assert_eq!(sftp.list("/long").await.map(|names| names.len()), Ok(20_000));

    let grown = server.peak_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more for a file of 192 MiB and listings of 20,000 entries");
    server.kill();
}

async fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((IpAddr::V4(Ipv4Addr::from(address)), 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("connected")
}

/// Tells whether a connection was accepted: the server then answers a request, or sends its banner.
async fn is_accepted(stream: &mut TcpStream, request: &[u8]) -> bool {
    let mut byte = [0];
    stream.write_all(request).await.is_ok() && matches!(stream.read(&mut byte).await, Ok(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_of_one_address_do_not_block_others() {
    let gateway = Fixture::start_with(patgate::auth::Clock::system(), |settings| {
        settings.http_connection_limits.unauthenticated_per_address = 8;
        settings.sftp_connection_limits.unauthenticated_per_address = 8;
    })
    .await;
    let http_request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".as_slice();
    for (listener, hello) in [(gateway.http, http_request), (gateway.sftp, b"SSH-2.0-test\r\n".as_slice())] {
        let mut connections = Vec::new();
        for _ in 0..8 {
            connections.push(connect_from([127, 0, 0, 1], listener).await);
        }
        let mut late = connect_from([127, 0, 0, 1], listener).await;
        assert!(is_accepted(&mut late, hello).await, "in place of the one that has waited longest");
        let mut other = connect_from([127, 0, 0, 2], listener).await;
        assert!(is_accepted(&mut other, hello).await, "an unauthenticated client of another address");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authenticated_connection_frees_its_unauthenticated_slot() {
    let gateway = Fixture::start_with(patgate::auth::Clock::system(), |settings| {
        settings.http_connection_limits.unauthenticated_per_address = 2;
        settings.sftp_connection_limits.unauthenticated_per_address = 2;
    })
    .await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut dav_clients = Vec::new();
    let mut sftp_sessions = Vec::new();
    for _ in 0..6 {
        let dav = gateway.dav("alice", &token);
        assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
        dav_clients.push(dav);
        sftp_sessions.push(gateway.sftp("alice", &token).await);
    }
    for sftp in &mut sftp_sessions {
        assert_eq!(sftp.list("/").await, Ok(Vec::new()));
    }
}

#[test]
fn server_raises_its_open_file_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_patgate")]);
    command.env("PATGATE_STATE", folder.path().join("state"));
    let server = ServerProcess::start_with_command(command, folder.path());
    let (soft_limit, hard_limit) = server.open_file_limits();
    server.kill();
    assert_eq!(soft_limit, hard_limit);
    assert_ne!(soft_limit, "256");
}
