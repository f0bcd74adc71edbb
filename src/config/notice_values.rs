//! Types of the settings of notices.

use crate::domain::NoticeKind;

use super::values::{ConfigValueType, MailAddress, SettingValue, list_items};

/// Kinds of notices that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeKindList(pub Vec<NoticeKind>);

impl SettingValue for NoticeKindList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "KIND,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        if list_items(text).eq(["all"]) {
            return Ok(Self(NoticeKind::ALL.to_vec()));
        }
        let mut kinds = list_items(text).map(str::parse).collect::<Result<Vec<NoticeKind>, _>>()?;
        kinds.sort_unstable();
        kinds.dedup();
        Ok(Self(kinds))
    }
}

/// Numbers of days before an expiration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayList(pub Vec<u32>);

impl SettingValue for DayList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "DAYS,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let day = |item: &str| item.parse().ok().filter(|days| (1..=365).contains(days));
        let days: Option<Vec<u32>> = list_items(text).map(day).collect();
        match days {
            Some(days) if days.len() <= 10 => Ok(Self(days)),
            _ => Err("give up to 10 whole numbers of days, from 1 to 365".to_owned()),
        }
    }
}

/// URLs of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrlList(pub Vec<String>);

impl SettingValue for WebhookUrlList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "URL,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let is_url = |url: &&str| {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control()))
        };
        let urls: Vec<_> = list_items(text).collect();
        match urls.iter().all(is_url) {
            true => Ok(Self(urls.into_iter().map(str::to_owned).collect())),
            // Without the text: the path of a webhook may be a secret.
            false => Err("give URLs that begin with https:// (or http:// in webhook_networks)".to_owned()),
        }
    }
}

/// Mail addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddressList(pub Vec<String>);

impl SettingValue for MailAddressList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "ADDRESS,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let addresses = list_items(text).map(MailAddress::parse_setting).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(addresses.into_iter().map(|address| address.0).collect()))
    }
}

/// Mail server: host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpServer {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl SettingValue for SmtpServer {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "HOST:PORT";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            let host = Some(host).filter(|host| !host.is_empty() && host.chars().all(is_host))?;
            Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
        };
        parse().ok_or_else(|| "give a host and a port, such as mail.example.org:587".to_owned())
    }
}

/// Encryption of the connection to the mail server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpTlsSetting {
    /// After STARTTLS.
    #[default]
    StartTls,
    /// From the first byte.
    Tls,
}

impl SettingValue for SmtpTlsSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "starttls|tls";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            _ => Err("give starttls or tls: nothing is sent unencrypted".to_owned()),
        }
    }
}

/// Login at the mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpLogin(pub String);

impl SettingValue for SmtpLogin {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "LOGIN";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text.is_empty() || text.contains(char::is_control) {
            true => Err("give the name of a login".to_owned()),
            false => Ok(Self(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_notices_are_parsed() {
        assert_eq!(NoticeKindList::parse_setting("all").map(|kinds| kinds.0), Ok(NoticeKind::ALL.to_vec()));
        let kinds = NoticeKindList::parse_setting("root.lost, token.expiring,root.lost").map(|kinds| kinds.0);
        assert_eq!(kinds, Ok(vec![NoticeKind::TokenExpiring, NoticeKind::RootLost]));
        assert_eq!(NoticeKindList::parse_setting("").map(|kinds| kinds.0), Ok(Vec::new()));
        assert!(NoticeKindList::parse_setting("root").is_err());
        assert_eq!(DayList::parse_setting("14, 3").map(|days| days.0), Ok(vec![14, 3]));
        for text in ["0", "366", "x", "1,2,3,4,5,6,7,8,9,10,11"] {
            assert!(DayList::parse_setting(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_receivers_are_parsed() {
        assert!(WebhookUrlList::parse_setting("https://a.example/x, http://10.0.0.1/").is_ok());
        let refused = WebhookUrlList::parse_setting("https://a.example/secret, ftp://b.example/secret");
        assert!(refused.is_err_and(|message| !message.contains("secret")));
        let server = SmtpServer::parse_setting("mail.example.org:587");
        assert_eq!(server, Ok(SmtpServer { host: "mail.example.org".to_owned(), port: 587 }));
        for text in ["mail.example.org", "mail.example.org:0", ":25", "a b:25", "smtp://a:25"] {
            assert!(SmtpServer::parse_setting(text).is_err(), "{text}");
        }
        assert!(MailAddressList::parse_setting("a@b.example, c@d.example").is_ok());
        assert!(MailAddressList::parse_setting("a@b.example, c").is_err());
    }
}
