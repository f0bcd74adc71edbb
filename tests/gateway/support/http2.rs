//! HTTP/2 requests on single streams, without TLS.

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use super::Fixture;

/// Connects, knowing that the server speaks HTTP/2.
pub(crate) async fn connect(gateway: &Fixture) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.http).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    requests.ready().await.expect("ready")
}

pub(crate) fn request(gateway: &Fixture, method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", gateway.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}
