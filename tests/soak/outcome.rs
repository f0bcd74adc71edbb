//! What a response, or its absence, tells of a request.

use std::future::Future;
use std::time::Duration;

use crate::history::{Micros, Outcome, Span};
use crate::recorder::Recorder;
use crate::support::{DavClient, HttpResponse};

/// Time in which every request is answered, on a machine that others use as well.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A response, or what is known without one.
pub(crate) struct Answer {
    pub(crate) response: Option<HttpResponse>,
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status)
    }

    pub(crate) fn etag(&self) -> Option<String> {
        let etag = self.response.as_ref()?.header("etag");
        (!etag.is_empty()).then(|| etag.to_owned())
    }
}

/// Sends a request and counts it.
pub(crate) async fn send(
    recorder: &Recorder,
    kind: &'static str,
    client: &DavClient,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let start = recorder.now();
    let exchange = async {
        let response = client.try_send(method, path, headers, body).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok::<_, reqwest::Error>(HttpResponse { status, headers, body })
    };
    let result = within_timeout(recorder, kind, start, exchange).await;
    let span = recorder.since(start);
    let (response, outcome) = match result {
        Some(Ok(response)) => {
            let outcome = outcome_of_status(recorder, &response, method, path);
            (Some(response), outcome)
        }
        Some(Err(error)) if error.is_connect() => (None, Outcome::Refused),
        Some(Err(_)) | None => (None, Outcome::Unknown),
    };
    // A server that is down refuses at once: whoever asks again and again only takes the processor from its start.
    if response.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    recorder.count(kind, span, outcome);
    Answer { response, span, outcome }
}

fn outcome_of_status(recorder: &Recorder, response: &HttpResponse, method: &str, path: &str) -> Outcome {
    match response.status {
        200..300 => Outcome::Acknowledged,
        400..500 | 503 | 507 => Outcome::Refused,
        status => {
            recorder.fault(format!("{method} {path} was answered with {status}: {}", response.text()));
            Outcome::Unknown
        }
    }
}

/// Awaits an operation; `None`, and a fault, if it takes too long.
pub(crate) async fn within_timeout<T>(
    recorder: &Recorder,
    kind: &str,
    start: Micros,
    operation: impl Future<Output = T>,
) -> Option<T> {
    let result = tokio::time::timeout(REQUEST_TIMEOUT, operation).await.ok();
    if result.is_none() {
        recorder.fault(format!("{kind} of {} s was not answered", start / 1_000_000));
    }
    result
}
