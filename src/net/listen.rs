//! The accept loop: backs off when the system is short of file handles, has connections wait that find no place, and
//! stops when told.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection_limit::PendingConnection;
use super::{ConnectionLimiter, ConnectionPermit};

/// How long a connection may be silent before its peer is asked whether it is there, how long between
/// asking again, and how often.
const TCP_KEEPALIVE_IDLE_INTERVAL_PROBES: (Duration, Duration, u32) =
    (Duration::from_secs(60), Duration::from_secs(20), 3);

/// Bytes that wait in the system to be sent, up to which more is written (TCP_NOTSENT_LOWAT). Without it a write goes on only
/// once a third of the whole buffer is free, megabytes on a fast network: whoever takes them slowly would seem to take
/// nothing. What is under way is not bounded by it, and so neither is the rate.
const UNSENT_BYTES: u32 = 256 << 10;

/// Largest number of probes that Linux takes.
const TCP_KEEPALIVE_MAX_PROBES: u32 = 127;

/// An accepted connection and its place at the gate.
#[derive(Debug)]
pub struct AcceptedConnection {
    /// The socket, with TCP_NODELAY and TCP keepalive set.
    pub stream: TcpStream,
    /// The caller's address, as the system knows it or a trusted proxy says.
    pub peer: SocketAddr,
    /// Whether a trusted proxy said that it came there over TLS.
    pub encrypted: bool,
    /// Its place; give it back by dropping it.
    pub permit: ConnectionPermit,
}

/// Accepts connections and hands each to `serve` until `stop` is cancelled. One for which the gate has no place waits
/// for some seconds, with few others, and is closed then. Errors of `accept` (such as no more file handles) are waited
/// out, longer each time.
pub async fn accept(
    listener: TcpListener,
    gate: ConnectionLimiter,
    stop: CancellationToken,
    serve: impl Fn(AcceptedConnection),
) {
    let mut pause = Duration::from_millis(5);
    let mut waiting: JoinSet<Option<AcceptedConnection>> = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
            Some(waited) = waiting.join_next(), if !waiting.is_empty() => {
                waited.ok().flatten().into_iter().for_each(&serve);
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::from_millis(5);
                if let Err(error) = set_socket_options(&stream) {
                    tracing::debug!(%peer, %error, "connection lost before it began");
                    continue;
                }
                if let Some(permit) = gate.acquire(peer.ip()) {
                    serve(AcceptedConnection { stream, peer, encrypted: false, permit });
                    // A client whose request is here already can authenticate, or turn out to be gone, before the next
                    // connection is counted against it. Without this, a burst that gathered in the backlog while the
                    // process was busy fills the bounds of its address although nobody is idle, and the last ones of
                    // it are refused.
                    tokio::task::yield_now().await;
                    continue;
                }
                match gate.begin_wait(peer.ip()) {
                    Some(pending) => drop(waiting.spawn(wait_for_permit(pending, stream, peer))),
                    None => tracing::debug!(%peer, "connection refused: too many are open, and too many wait"),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept connections, waiting {} ms", pause.as_millis());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// Waits until the gate has a place for a connection; none when it has to be closed without one.
async fn wait_for_permit(
    pending: PendingConnection,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<AcceptedConnection> {
    let permit = pending.wait().await;
    if permit.is_none() {
        tracing::debug!(%peer, "connection refused: too many are open");
    }
    permit.map(|permit| AcceptedConnection { stream, peer, encrypted: false, permit })
}

/// Lets a peer be silent, asleep or slow for so long before the system ends its connection.
///
/// The time-out of the user (RFC 5482) counts in place of the number of probes and of retransmissions.
///
/// # Errors
/// Whatever the system says of the socket.
pub fn set_peer_timeout(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let (_, interval, _) = TCP_KEEPALIVE_IDLE_INTERVAL_PROBES;
    let probes = u32::try_from(limit.as_secs() / interval.as_secs()).unwrap_or(u32::MAX);
    sockopt::set_tcp_keepcnt(stream, probes.clamp(1, TCP_KEEPALIVE_MAX_PROBES))?;
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, millis.max(1))?)
}

/// Sets what every connection needs: no delay of small packets, writes that go on as soon as the peer has taken a little,
/// so that its transfer rate is visible, and an end to one whose peer has vanished.
fn set_socket_options(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = TCP_KEEPALIVE_IDLE_INTERVAL_PROBES;
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    Ok(sockopt::set_tcp_keepcnt(stream, count)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::ConnectionLimits;
    use crate::net::connection_limit::PendingLimits;

    /// Accepts connections of a listener while `check` runs.
    async fn accept_during(
        listener: TcpListener,
        limits: ConnectionLimits,
        serve: impl Fn(AcceptedConnection),
        check: impl Future<Output = ()>,
    ) {
        tokio::select! {
            () = accept(listener, ConnectionLimiter::new(limits), CancellationToken::new(), serve) => {
                panic!("it was not stopped")
            }
            () = check => {}
        }
    }

    /// Authenticates a connection and answers it. It stays open, as that of a client does that has more to ask.
    async fn authenticate_and_answer(connection: &mut AcceptedConnection) {
        connection.permit.assign_user("alice").expect("below the bound of a user");
        connection.stream.write_all(b"!").await.expect("answered");
        connection.stream.read_u8().await.expect_err("nothing more");
    }

    async fn assert_all_answered(clients: Vec<TcpStream>) {
        for mut client in clients {
            assert_eq!(client.read_u8().await.expect("answered, not refused"), b'!');
        }
    }

    #[tokio::test]
    async fn burst_of_clients_that_authenticate_is_not_refused() {
        // Fewer than the smallest backlog that systems allow, and more than may have a permit or wait for one.
        const CLIENTS: usize = 100;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        // All of them are in the backlog, with their request, before the first is accepted.
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = TcpStream::connect(address).await.expect("connects");
            client.write_all(b"?").await.expect("sent");
            clients.push(client);
        }
        let (connections, unauthenticated) = (2 * CLIENTS, 4);
        let limits = ConnectionLimits {
            connections,
            per_user: connections,
            unauthenticated,
            unauthenticated_per_address: unauthenticated,
        };
        let serve = |mut connection: AcceptedConnection| {
            tokio::spawn(async move {
                connection.stream.read_u8().await.expect("a request");
                authenticate_and_answer(&mut connection).await;
            });
        };
        accept_during(listener, limits, serve, assert_all_answered(clients)).await;
    }

    #[tokio::test]
    async fn connections_wait_for_a_permit_up_to_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limits =
            ConnectionLimits { connections: 100, per_user: 100, unauthenticated: 40, unauthenticated_per_address: 20 };
        assert_eq!(limits.pending(), PendingLimits { total: 100, per_address: 40 });
        let authenticate = CancellationToken::new();
        let serve = |mut connection: AcceptedConnection| {
            let authenticate = authenticate.clone();
            tokio::spawn(async move {
                // The request came at once; what proves its token takes its time.
                let _answering = connection.permit.begin_request();
                authenticate.cancelled().await;
                authenticate_and_answer(&mut connection).await;
            });
        };
        let check = async {
            let mut clients = Vec::new();
            for _ in 0..61 {
                clients.push(TcpStream::connect(address).await.expect("connects"));
            }
            let mut last = clients.pop().expect("one");
            assert_eq!(last.read(&mut [0]).await.expect("closed without a reset"), 0, "20 are served, 40 wait");
            authenticate.cancel();
            assert_all_answered(clients).await;
        };
        accept_during(listener, limits, serve, check).await;
    }

    #[tokio::test]
    async fn peer_timeout_outlasts_keepalive_probes_and_retransmissions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        set_socket_options(&stream).expect("tuned");
        set_peer_timeout(&stream, Duration::from_secs(3600)).expect("set");
        assert_eq!(sockopt::tcp_user_timeout(&stream).expect("read"), 3_600_000);
        assert_eq!(sockopt::tcp_keepcnt(&stream).expect("read"), TCP_KEEPALIVE_MAX_PROBES);
        set_peer_timeout(&stream, Duration::from_millis(500)).expect("set");
        assert_eq!(sockopt::tcp_keepcnt(&stream).expect("read"), 1);
    }
}
