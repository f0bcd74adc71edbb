//! Socket in the state directory on which other processes have a running server write the uses that it holds in memory.
//!
//! Uses are written at intervals, so that a request costs no write. A process that reads the store beside the server
//! asks for them first, and so shows the expiration in force. Only the owner of the state directory can connect.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, process};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::AuthCore;

/// Prefix and suffix of a socket's name; the id of the process is between them.
const SOCKET_PREFIX: &str = "uses-";
const SOCKET_SUFFIX: &str = ".sock";

/// Reply once all uses are in the store.
const FLUSHED_REPLY: &[u8] = b"written\n";

/// Time for which a reader waits for a server's reply; without one it shows uses that may be a little old.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of a path in a socket's address, with some to spare (`sun_path` has 108 bytes).
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// Answers readers until `stop` is cancelled. Without a socket, readers see the uses that are in the store.
pub(super) async fn serve(core: Arc<AuthCore>, stop: CancellationToken) {
    let name = format!("{SOCKET_PREFIX}{}{SOCKET_SUFFIX}", process::id());
    let state = core.store.state_dir().to_owned();
    let listener = match bind(&state, &name) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "other processes see uses of tokens only once they are written to the store");
            return;
        }
    };
    // One reader at a time: each costs a write, and they are the administrator's.
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((mut reader, _)) => {
                let core = core.clone();
                let flushed = tokio::task::spawn_blocking(move || core.flush_uses()).await;
                // No reply after a failure: the reader gets the end of the stream, and shows what the store has.
                if flushed.is_ok_and(|flushed| flushed) {
                    let reply = reader.write_all(FLUSHED_REPLY);
                    // Bounded, since a reader that doesn't read would hold up the next one.
                    let _ = tokio::time::timeout(REPLY_TIMEOUT, reply).await;
                }
            }
            // Out of file descriptors, for example: a pause instead of a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let _ = fs::remove_file(state.join(name));
}

/// Has the running servers of a state directory write the uses that they hold in memory.
pub fn request_usage_flush(state: &Path) {
    for name in socket_names(state) {
        // A refused connection is the stale socket of a killed server.
        if let Err(error) = request_flush(state, &name) {
            tracing::debug!(%error, socket = name, "a server did not write its uses");
        }
    }
}

fn request_flush(state: &Path, name: &str) -> io::Result<()> {
    let mut server = with_socket_path(state, name, |path| UnixStream::connect(path))?;
    // The connection itself is the request: nothing is sent.
    server.set_read_timeout(Some(REPLY_TIMEOUT))?;
    server.flush()?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply)?;
    if reply == FLUSHED_REPLY { Ok(()) } else { Err(io::Error::other("the server could not write its uses")) }
}

fn bind(state: &Path, name: &str) -> io::Result<UnixListener> {
    for existing in socket_names(state) {
        let is_dead = with_socket_path(state, &existing, |path| UnixStream::connect(path))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        // A socket of this name is of an earlier process with the same id: this process has none yet.
        if is_dead || existing == name {
            fs::remove_file(state.join(existing))?;
        }
    }
    with_socket_path(state, name, |path| UnixListener::bind(path))
}

/// Returns the names of the sockets of servers, stale ones included.
fn socket_names(state: &Path) -> Vec<String> {
    let names =
        fs::read_dir(state).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(SOCKET_PREFIX) && name.ends_with(SOCKET_SUFFIX)).collect()
}

/// Calls `operation` with the path of a socket; one too long for an address is reached through its directory.
fn with_socket_path<T>(state: &Path, name: &str, operation: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = state.join(name);
    if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return operation(&path);
    }
    // The file has to stay open while the path through it is used.
    let directory = fs::File::open(state)?;
    operation(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn stale_socket_is_replaced_and_long_path_works() {
        let folder = tempfile::tempdir().expect("a directory");
        let state = folder.path().join("s".repeat(120));
        fs::create_dir(&state).expect("a directory");
        drop(bind(&state, "uses-1.sock").expect("a socket"));
        assert_eq!(socket_names(&state), ["uses-1.sock"], "as a killed server leaves it");
        assert!(request_flush(&state, "uses-1.sock").is_err());
        let listener = bind(&state, "uses-2.sock").expect("a socket");
        assert_eq!(socket_names(&state), ["uses-2.sock"]);
        let replied = tokio::task::spawn_blocking(move || request_flush(&state, "uses-2.sock"));
        let (mut reader, _) = listener.accept().await.expect("a reader");
        reader.write_all(FLUSHED_REPLY).await.expect("answered");
        drop(reader);
        replied.await.expect("asked").expect("written");
    }
}
