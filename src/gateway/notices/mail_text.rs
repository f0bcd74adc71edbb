//! Subjects and texts of mails. The text comes from a template of plain text, in which nothing is escaped.

use askama::Template;

use crate::domain::{Notice, NoticeContent};

/// Text of a mail.
#[derive(Template)]
#[template(path = "notice.txt")]
struct MailTemplate<'a> {
    content: &'a NoticeContent,
    at: String,
    server: &'a str,
    message_id: &'a str,
}

/// Returns the text of a mail.
pub(super) fn mail_text(notice: &Notice, server: &str) -> Result<String, askama::Error> {
    let at = notice.at.to_string();
    let template = MailTemplate { content: &notice.content, at, server, message_id: &notice.message_id };
    // The last line break of a template is not part of it.
    Ok(template.render()? + "\n")
}

/// Returns the subject of a mail.
pub(super) fn mail_subject(content: &NoticeContent, server: &str) -> String {
    let subject = match content {
        NoticeContent::TokenExpiring { user, days, tokens } if tokens.len() == 1 => {
            format!("a token of {user} expires within {days} days")
        }
        NoticeContent::TokenExpiring { user, days, tokens } => {
            format!("{} tokens of {user} expire within {days} days", tokens.len())
        }
        NoticeContent::TokenNewAddress { user, token, address, .. } => {
            format!("token {token} of {user} was used from {address}")
        }
        NoticeContent::BanAdded { .. } => "an address was banned for failed logins".to_owned(),
        NoticeContent::CertificateExpiring { days_left, .. } => format!("the certificate expires in {days_left} days"),
        NoticeContent::CertificateFailed { .. } => "no certificate was issued".to_owned(),
        NoticeContent::DiskLow { disk, .. } => format!("little space on the disk of {disk}"),
        NoticeContent::DiskRecovered { disk, .. } => format!("the disk of {disk} has space again"),
        NoticeContent::QuotaNearlyUsed { account, .. } => format!("the storage quota of {account} is nearly used up"),
        NoticeContent::RootLost { path, .. } => format!("{path} is not served"),
        NoticeContent::RootBack { path } => format!("{path} is served again"),
        NoticeContent::Test {} => "a test".to_owned(),
    };
    // Nothing with control characters gets here; a subject must never hold any all the same.
    format!("patgate on {server}: {subject}").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ExpiringToken, UnixMillis};

    fn text(content: NoticeContent) -> String {
        mail_text(&Notice::new(UnixMillis::from_millis(0), content), "files").expect("rendered")
    }

    #[test]
    fn text_lists_all_tokens_and_escapes_nothing() {
        let token = |id: &str| ExpiringToken {
            id: id.to_owned(),
            name: "build & deploy <ci>".to_owned(),
            expires_at: "2026-05-05T08:00:00Z".to_owned(),
        };
        let tokens = vec![token("aaaaaaaa"), token("bbbbbbbb")];
        let text = text(NoticeContent::TokenExpiring { user: "alice".to_owned(), days: 14, tokens });
        assert!(text.starts_with("These tokens of alice expire within 14 days"), "{text}");
        for line in ["aaaaaaaa", "bbbbbbbb"] {
            assert!(text.contains(&format!("  {line}  2026-05-05T08:00:00Z  build & deploy <ci>\n")), "{text}");
        }
        assert!(text.contains("server files") && text.ends_with('\n'), "{text}");
    }

    #[test]
    fn each_notice_has_a_text_and_a_subject() {
        for content in [
            NoticeContent::BanAdded { ban: "192.0.2.7".to_owned(), count: 2 },
            NoticeContent::CertificateExpiring { days_left: 3, expires_at: "then".to_owned() },
            NoticeContent::RootBack { path: "/".to_owned() },
            NoticeContent::Test {},
        ] {
            let subject = mail_subject(&content, "files");
            assert!(subject.starts_with("patgate on files: "), "{subject}");
            assert!(!text(content).starts_with('\n'));
        }
    }
}
