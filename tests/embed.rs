//! Tests that `examples/embed.rs`, which runs the gateway inside of another program, serves what its comments say.

#![allow(clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine;

/// Returns an example's path, beside the folder of the tests. `cargo test` builds examples before it
/// runs anything; a run of this test alone has to build it first.
fn example_binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let path = test.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--quiet", "--example", name]).status().expect("cargo runs");
        assert!(built.success());
    }
    path
}

#[test]
fn gateway_runs_embedded_in_another_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, state) = (folder.path().join("files"), folder.path().join("state"));
    std::fs::create_dir(&root).expect("a folder");
    std::fs::write(root.join("hello.txt"), "hello").expect("a file");
    let mut process = Command::new(example_binary("embed"))
        .args([&root, &state])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example runs");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map(|line| line.expect("a line"));
    let (http, sftp, token) =
        (lines.next().expect("HTTP"), lines.next().expect("SFTP"), lines.next().expect("a token"));
    assert!(sftp.starts_with("sftp://guest@127.0.0.1:"), "{sftp}");

    let address = http.trim_start_matches("http://").trim_end_matches("/dav/");
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("guest:{token}"));
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!(
        "GET /dav/hello.txt HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {pair}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");

    drop(process.stdin.take());
    assert!(process.wait().expect("ended").success());
}
