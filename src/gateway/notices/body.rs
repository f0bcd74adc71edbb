//! The body of a webhook: `type`, `timestamp` and `data` as <https://www.standardwebhooks.com> has them, and the server.

use serde::Serialize;

use crate::domain::{Notice, NoticeContent};

/// Body of a webhook.
#[derive(Serialize)]
struct WebhookBody<'a> {
    #[serde(flatten)]
    content: &'a NoticeContent,
    /// Time of what the notice is about.
    timestamp: String,
    /// Host name of the server.
    server: &'a str,
}

/// Returns the body of a notice: the same for every attempt.
pub(super) fn webhook_body(notice: &Notice, server: &str) -> Result<String, serde_json::Error> {
    serde_json::to_string(&WebhookBody { content: &notice.content, timestamp: notice.at.to_string(), server })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnixMillis;

    #[test]
    fn body_has_type_data_time_and_server() {
        let content = NoticeContent::RootBack { path: "/media".to_owned() };
        let notice = Notice::new(UnixMillis::from_millis(1_777_968_000_000), content);
        let body =
            r#"{"type":"root.back","data":{"path":"/media"},"timestamp":"2026-05-05T08:00:00Z","server":"files"}"#;
        assert_eq!(webhook_body(&notice, "files").expect("JSON"), body);
        let test = Notice::new(UnixMillis::from_millis(0), NoticeContent::Test {});
        assert!(webhook_body(&test, "files").expect("JSON").starts_with(r#"{"type":"notice.test","data":{},"#));
    }
}
