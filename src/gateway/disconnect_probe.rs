//! Detection over HTTP/1 of a client that has disconnected while its request is processed.
//!
//! A client that has closed its connection and one that has only shut down its sending side look alike (RFC 9112
//! section 9.6), until something is sent to them: the former answers with a reset. So when the peer has sent its end of
//! stream, and its request takes long, one interim response is sent, which every client has to ignore (RFC 9110 section
//! 15.2). A reset ends the connection, and that cancels the work.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::PeerShutdown;

/// Time between two checks of the peer.
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Interim response that is sent (RFC 9110 section 15.2.1).
const INTERIM_RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Handle that requests a probe of a [`ProbedStream`]. Clones act on the same stream.
#[derive(Clone, Debug, Default)]
pub(super) struct DisconnectProbe(Arc<AtomicBool>);

impl DisconnectProbe {
    /// Has the interim response sent when the stream is flushed next. Only to be called while a response over HTTP/1.1
    /// is pending of which nothing is written yet.
    pub(super) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Cancels a probe that was not sent: a response begins.
    pub(super) fn cancel(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Waits for the work on a request over HTTP/1.1, and checks at intervals whether its client is still connected. The
/// HTTP library, which polls this, flushes the streams that carry out the checks.
pub(super) async fn run_with_disconnect_probe<T>(
    probe: &DisconnectProbe,
    peer: &PeerShutdown,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> T {
    // Nearly all work is done at once: no timer is made for it.
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return output;
    }
    let mut has_probed = false;
    loop {
        tokio::select! {
            // The response first: a probe that is requested when it is ready would be sent into it.
            biased;
            output = work.as_mut() => {
                probe.cancel();
                return output;
            }
            () = tokio::time::sleep(PEER_CHECK_INTERVAL) => peer.request_check(),
        }
        // Once for each request: a client that only shut down its sending side would get one every half second.
        if peer.is_detected() && !has_probed {
            has_probed = true;
            probe.request();
        }
    }
}

/// Stream on which an interim response is sent when [`DisconnectProbe`] requests it.
///
/// An HTTP library flushes a stream only when all that it has written was taken: nothing is sent inside a response.
pub(super) struct ProbedStream<S> {
    inner: S,
    probe: DisconnectProbe,
    /// Bytes of the interim response that are still to be sent.
    unsent_bytes: usize,
}

impl<S> ProbedStream<S> {
    /// Wraps a stream.
    pub(super) fn new(inner: S, probe: DisconnectProbe) -> Self {
        Self { inner, probe, unsent_bytes: 0 }
    }
}

impl<S: AsyncWrite + Unpin> ProbedStream<S> {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.probe.0.swap(false, Ordering::Relaxed) {
            self.unsent_bytes += INTERIM_RESPONSE.len();
        }
        while self.unsent_bytes > 0 {
            // More than one may be unsent: the position is that within the one that was begun.
            let offset = INTERIM_RESPONSE.len() - (self.unsent_bytes - 1) % INTERIM_RESPONSE.len() - 1;
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &INTERIM_RESPONSE[offset..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent_bytes -= sent,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ProbedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ProbedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // One that was begun is finished first. A write never begins one: it may be in the middle of a response.
        if self.unsent_bytes > 0 {
            ready!(self.poll_interim(cx))?;
        }
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent_bytes > 0 {
            ready!(self.poll_interim(cx))?;
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn requested_100_continue_is_sent_completely() {
        // So small that it is written in parts.
        let (server_stream, mut client_stream) = tokio::io::duplex(7);
        let probe = DisconnectProbe::default();
        let mut server_stream = ProbedStream::new(server_stream, probe.clone());
        let sending = tokio::spawn(async move {
            server_stream.flush().await.expect("nothing to send");
            probe.request();
            server_stream.write_all(b"in the middle of a response, ").await.expect("sent");
            server_stream.flush().await.expect("sent");
            probe.request();
            probe.cancel();
            server_stream.flush().await.expect("sent");
            server_stream.write_all(b"more").await.expect("sent");
        });
        let mut received = String::new();
        client_stream.read_to_string(&mut received).await.expect("text");
        sending.await.expect("joined");
        assert_eq!(received, "in the middle of a response, HTTP/1.1 100 Continue\r\n\r\nmore");
    }

    /// Server that answers one request on demand, and signals when the request's future is dropped.
    struct SlowServer {
        address: std::net::SocketAddr,
        respond: tokio::sync::oneshot::Sender<()>,
        dropped: tokio_util::sync::CancellationToken,
    }

    async fn start_slow_server() -> SlowServer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (respond, responded) = tokio::sync::oneshot::channel::<()>();
        let dropped = tokio_util::sync::CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (probe, peer) = (DisconnectProbe::default(), PeerShutdown::default());
            let stream = crate::net::FileTransferStream::new(stream, crate::net::FileTransfer::default());
            let stream =
                crate::net::WriteTimeoutStream::new(stream, Duration::from_secs(60)).watch_peer_shutdown(peer.clone());
            let stream = ProbedStream::new(stream, probe.clone());
            let work = parking_lot::Mutex::new(Some((responded, guard)));
            let service = hyper::service::service_fn(|_| {
                let (responded, guard) = work.lock().take().expect("one request");
                let (probe, peer) = (&probe, &peer);
                async move {
                    let mut work = std::pin::pin!(async move {
                        let _guard = guard;
                        let _ = responded.await;
                        crate::http::text_response(http::StatusCode::OK, "done")
                    });
                    Ok::<_, std::convert::Infallible>(run_with_disconnect_probe(probe, peer, work.as_mut()).await)
                }
            });
            let server = hyper::server::conn::http1::Builder::new().half_close(true).clone();
            let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        });
        SlowServer { address, respond, dropped }
    }

    async fn send_request(server: &SlowServer) -> tokio::net::TcpStream {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        stream
    }

    #[tokio::test]
    async fn disconnected_client_cancels_its_request() {
        let server = start_slow_server().await;
        drop(send_request(&server).await);
        tokio::time::timeout(Duration::from_secs(30), server.dropped.cancelled()).await.expect("dropped in time");
        drop(server.respond);
    }

    #[tokio::test]
    async fn half_closed_client_gets_its_response() {
        let server = start_slow_server().await;
        let mut stream = send_request(&server).await;
        stream.shutdown().await.expect("shut down");
        let mut interim = vec![0; INTERIM_RESPONSE.len()];
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut interim));
        read.await.expect("in time").expect("an interim response");
        assert_eq!(interim, INTERIM_RESPONSE);
        // The client is checked again before its response comes.
        tokio::time::sleep(PEER_CHECK_INTERVAL * 3).await;
        assert!(!server.dropped.is_cancelled());
        server.respond.send(()).expect("awaited");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("a response");
        assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("done\n"), "{rest}");
    }
}
