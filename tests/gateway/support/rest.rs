//! A REST client that sends and receives JSON.

use serde_json::Value;

use super::{DavClient, HttpResponse};

/// A REST client with one token.
pub(crate) struct RestClient(DavClient);

impl RestClient {
    pub(crate) fn new(client: DavClient) -> Self {
        Self(client)
    }

    /// Sends a request with a body of JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> HttpResponse {
        self.send_with_headers(method, path, &[], body).await
    }

    /// Sends a request with headers.
    pub(crate) async fn send_with_headers(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> HttpResponse {
        let mut all = headers.to_vec();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            all.push(("content-type", "application/json"));
        }
        self.0.send(method, path, &all, body).await
    }

    /// Sends a request without a body.
    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, Value::Null).await
    }

    /// Sends a form.
    pub(crate) async fn post_form(&self, path: &str, body: String) -> HttpResponse {
        self.0.send("POST", path, &[("content-type", "application/x-www-form-urlencoded")], body).await
    }
}

impl HttpResponse {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The kind of problem it is, without what all have in common; empty for none.
    pub(crate) fn problem_kind(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["type"].as_str().unwrap_or_default().trim_start_matches("urn:patgate:problem:").to_owned()
    }
}
