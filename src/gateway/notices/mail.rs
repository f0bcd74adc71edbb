//! Mail to administrators, over SMTP with STARTTLS or TLS. Each address is a receiver of its own, so that one that is refused
//! keeps no other from its mail. Users have no mail address: notices about their tokens go to the administrators, too.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::error::{DeliveryFailure, NoticeError};
use super::mail_text::{mail_subject, mail_text};
use super::settings::{MailSettings, NoticeTimings, SmtpTls};
use crate::domain::Notice;

/// Replies that speak of the mailbox or the message, and not of the server's state or the login (RFC 5321 section 4.2.3).
const PERMANENT_REPLIES: std::ops::RangeInclusive<u16> = 550..=553;

/// Connection settings of a mail server, shared by all addresses.
#[derive(Clone)]
pub(super) struct MailTransport {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    /// Maximum time of one mail: the steps of a dialogue have none of their own.
    timeout: Duration,
}

/// Address that gets mail.
pub(super) struct MailReceiver {
    /// Name in the store and in the log.
    pub(super) name: String,
    transport: MailTransport,
    from: Mailbox,
    to: Mailbox,
    server_name: String,
}

/// Header that keeps programs from answering (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl MailTransport {
    pub(super) fn new(
        settings: &MailSettings,
        ca_file: Option<&Path>,
        timings: &NoticeTimings,
        server_name: &str,
    ) -> Result<Self, NoticeError> {
        let mut tls = TlsParameters::builder(settings.host.clone());
        if let Some(path) = ca_file {
            let setting = "notice_ca_file";
            let pem =
                std::fs::read(path).map_err(|source| NoticeError::File { setting, path: path.to_owned(), source })?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| NoticeError::invalid(setting, error))?;
            tls = tls.add_root_certificate(certificate);
        }
        let tls = tls.build_rustls().map_err(|error| NoticeError::invalid("smtp_server", error))?;
        let tls = match settings.tls {
            SmtpTls::StartTls => Tls::Required(tls),
            SmtpTls::Implicit => Tls::Wrapper(tls),
        };
        // Both encrypt, or nothing is sent; "dangerous" is the builder that leaves the choice to its caller.
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.host.clone())
            .port(settings.port)
            .tls(tls)
            .timeout(Some(timings.attempt_timeout));
        let builder = match host_as_domain(server_name) {
            Some(domain) => builder.hello_name(ClientId::Domain(domain.to_owned())),
            None => builder,
        };
        let builder = match &settings.login {
            Some(login) => {
                let password = settings.password.load()?;
                builder.credentials(Credentials::new(login.clone(), password.as_str().to_owned()))
            }
            None => builder,
        };
        Ok(Self { transport: builder.build(), timeout: timings.attempt_timeout * 2 })
    }
}

impl MailReceiver {
    pub(super) fn new(transport: &MailTransport, from: &str, to: &str, server_name: &str) -> Result<Self, NoticeError> {
        let mailbox = |setting, text: &str| -> Result<Mailbox, NoticeError> {
            let address = text.parse().map_err(|error| NoticeError::invalid(setting, format!("{text}: {error}")))?;
            Ok(Mailbox::new(None, address))
        };
        Ok(Self {
            name: format!("mail {to}"),
            transport: transport.clone(),
            from: mailbox("mail_from", from)?,
            to: mailbox("mail_to", to)?,
            server_name: server_name.to_owned(),
        })
    }

    /// Sends a notice once.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), DeliveryFailure> {
        let message = self.message(notice)?;
        let MailTransport { transport, timeout } = &self.transport;
        match tokio::time::timeout(*timeout, transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let code = error.status().map(u16::from);
                let is_final = code.is_some_and(|code| PERMANENT_REPLIES.contains(&code));
                Err(DeliveryFailure { is_final, ..DeliveryFailure::temporary(error) })
            }
            Err(_) => Err(DeliveryFailure::temporary("the mail server did not answer in time")),
        }
    }

    /// Returns the message: the library encodes headers and text, so that nothing in them can begin another header.
    fn message(&self, notice: &Notice) -> Result<Message, DeliveryFailure> {
        let millis = u64::try_from(notice.at.as_millis()).unwrap_or_default();
        let host = host_as_domain(&self.server_name).unwrap_or("localhost");
        Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .subject(mail_subject(&notice.content, &self.server_name))
            // The same at each attempt: a mailbox recognises what it has already.
            .message_id(Some(format!("<{}@{host}>", notice.message_id)))
            .date(UNIX_EPOCH + Duration::from_millis(millis))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(mail_text(notice, &self.server_name).map_err(DeliveryFailure::permanent)?)
            .map_err(DeliveryFailure::permanent)
    }
}

/// Returns a host name that may stand in an EHLO and in a message id.
fn host_as_domain(name: &str) -> Option<&str> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    Some(name).filter(|name| name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NoticeContent, UnixMillis, notice_text};
    use crate::gateway::notices::secret::NoticeSecret;

    fn receiver() -> MailReceiver {
        let settings = MailSettings {
            host: "mail.example.org".to_owned(),
            port: 587,
            tls: SmtpTls::StartTls,
            login: None,
            password: NoticeSecret::of_mail(None),
            from: "patgate@example.org".to_owned(),
            to: vec!["ops@example.org".to_owned()],
        };
        let transport = MailTransport::new(&settings, None, &NoticeTimings::default(), "files").expect("TLS");
        MailReceiver::new(&transport, &settings.from, &settings.to[0], "files").expect("addresses")
    }

    #[test]
    fn message_has_headers_of_a_program_and_one_line_each() {
        let content = NoticeContent::RootLost { path: "/".to_owned(), reason: "gone".to_owned() };
        let notice = Notice::new(UnixMillis::from_millis(1_777_968_000_000), content);
        let text = String::from_utf8(receiver().message(&notice).expect("built").formatted()).expect("ASCII");
        let (headers, body) = text.split_once("\r\n\r\n").expect("a body");
        for header in [
            "From: patgate@example.org",
            "To: ops@example.org",
            "Auto-Submitted: auto-generated",
            "Date: Tue, 05 May 2026 08:00:00 +0000",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(headers.lines().any(|line| line == header), "{header} in {headers}");
        }
        assert!(headers.contains(&format!("<{}@files>", notice.message_id)), "{headers}");
        assert!(body.contains("gone"), "{body}");
    }

    #[test]
    fn texts_from_outside_begin_no_header_and_are_encoded_where_they_are_not_ascii() {
        let ban = notice_text("192.0.2.7\r\nBcc: eve@example.org\r\n\r\nsk\u{f6}ld \u{1f6a8}");
        let notice = Notice::new(UnixMillis::from_millis(0), NoticeContent::BanAdded { ban, count: 1 });
        let text = String::from_utf8(receiver().message(&notice).expect("built").formatted()).expect("ASCII");
        assert!(text.is_ascii(), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("Bcc:")), "{text}");
        assert!(text.lines().all(|line| line.len() <= 998), "RFC 5322 section 2.1.1");
    }

    #[test]
    fn addresses_with_other_headers_in_them_are_refused() {
        let transport = receiver().transport;
        for address in
            ["", "ops", "ops@", "a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example", "A <a@b.example>"]
        {
            assert!(MailReceiver::new(&transport, "patgate@example.org", address, "files").is_err(), "{address}");
        }
    }
}
