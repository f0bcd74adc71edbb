//! The listener for HTTP-01 challenges (port 80, as a certificate authority asks). Everything else is sent to HTTPS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::net::{self, AcceptedConnection, AcmeChallenges, ConnectionLimiter, ConnectionLimits};

/// Path of a challenge, before its token (RFC 8555 section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// Maximum time of a connection, which is closed after one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_LIMITS: ConnectionLimits =
    ConnectionLimits { connections: 64, per_user: 64, unauthenticated: 64, unauthenticated_per_address: 16 };

/// Answers challenges at a listener until `stop` is cancelled.
pub(in crate::gateway) async fn serve_challenges(
    listener: TcpListener,
    challenges: Arc<AcmeChallenges>,
    domains: Vec<String>,
    stop: CancellationToken,
) {
    let domains: Arc<[String]> = domains.into();
    let serve = |connection: AcceptedConnection| {
        tokio::spawn(serve_connection(connection, Arc::clone(&challenges), Arc::clone(&domains), stop.clone()));
    };
    net::accept(listener, ConnectionLimiter::new(CONNECTION_LIMITS), stop.clone(), serve).await;
}

async fn serve_connection(
    connection: AcceptedConnection,
    challenges: Arc<AcmeChallenges>,
    domains: Arc<[String]>,
    stop: CancellationToken,
) {
    let AcceptedConnection { stream, permit, .. } = connection;
    let answer = |request: Request<hyper::body::Incoming>| {
        let response = answer_request(request.uri(), request.headers(), &challenges, &domains);
        async { Ok::<_, Infallible>(response) }
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(CONNECTION_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving) => {}
        () = permit.evicted() => {}
        () = stop.cancelled() => {}
    }
}

fn answer_request(
    target: &Uri,
    headers: &HeaderMap,
    challenges: &AcmeChallenges,
    domains: &[String],
) -> Response<Full<Bytes>> {
    let path = target.path();
    if let Some(token) = path.strip_prefix(CHALLENGE_PATH) {
        return match challenges.http_answer(token) {
            Some(text) => Response::new(Full::from(text)),
            None => with_status(StatusCode::NOT_FOUND),
        };
    }
    // To a configured domain alone, whatever host the client names.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let domain = domains.iter().find(|domain| domain.eq_ignore_ascii_case(host)).or(domains.first());
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    let location = domain.and_then(|domain| HeaderValue::try_from(format!("https://{domain}{target}")).ok());
    let Some(location) = location.filter(|_| target.starts_with('/')) else {
        return with_status(StatusCode::NOT_FOUND);
    };
    let mut response = with_status(StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

fn with_status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_answered_and_all_else_goes_to_https_of_a_configured_domain() {
        let challenges = AcmeChallenges::default();
        challenges.answer_http("token", "token.key");
        let domains = ["a.example".to_owned(), "b.example".to_owned()];
        let ask = |target: &'static str, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            let response = answer_request(&Uri::from_static(target), &headers, &challenges, &domains);
            let location =
                response.headers().get(header::LOCATION).map(|value| value.to_str().expect("text").to_owned());
            (response.status().as_u16(), location.unwrap_or_default())
        };
        assert_eq!(ask("/.well-known/acme-challenge/token", "a.example").0, 200);
        assert_eq!(ask("/.well-known/acme-challenge/other", "a.example").0, 404);
        assert_eq!(ask("/dav/x?y", "B.example:80"), (308, "https://b.example/dav/x?y".to_owned()));
        assert_eq!(ask("/", "evil.example"), (308, "https://a.example/".to_owned()));
        challenges.clear();
        assert_eq!(ask("/.well-known/acme-challenge/token", "a.example").0, 404);
    }
}
