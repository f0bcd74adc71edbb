//! Notices: what administrators are told of by webhook or mail. A notice never holds a secret; texts from outside are
//! truncated, and their control characters escaped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Actor, AuditEvent, EventKind, UnixMillis, escape_for_terminal, redact_tokens_in_text};

/// Maximum number of characters of a text in a notice.
const MAX_TEXT_CHARS: usize = 300;

// One list for variants, names and `ALL`, so that none of them can lack a kind.
macro_rules! notice_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Kind of a notice; its name is the same in settings, JSON, commands and the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum NoticeKind {
            $($(#[$doc])* $kind,)*
        }

        impl NoticeKind {
            /// All kinds.
            pub const ALL: &'static [NoticeKind] = &[$(NoticeKind::$kind),*];

            /// Returns the kind's name.
            pub fn as_str(self) -> &'static str {
                match self { $(NoticeKind::$kind => $name,)* }
            }
        }
    };
}

notice_kinds! {
    /// Tokens expire soon.
    TokenExpiring = "token.expiring",
    /// A token was used from a network from which it was not used before.
    TokenNewAddress = "token.new_address",
    /// An address was banned for failed logins.
    BanAdded = "ban.added",
    /// The certificate of the HTTP listener expires soon.
    CertificateExpiring = "certificate.expiring",
    /// The certificate authority issued no certificate.
    CertificateFailed = "certificate.failed",
    /// A disk has little or no space left.
    DiskLow = "disk.low",
    /// A disk has space again.
    DiskRecovered = "disk.recovered",
    /// A storage quota is nearly used up.
    QuotaNearlyUsed = "quota.nearly_used",
    /// The served directory, or a file system in it, is not available.
    RootLost = "root.lost",
    /// It is available again.
    RootBack = "root.back",
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NoticeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("the notice {text:?} is unknown: give all, or some of {}", known.join(", "))
        })
    }
}

/// A token that expires soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiringToken {
    /// Id of the token.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Time of its expiration, if it is not used before (RFC 3339).
    pub expires_at: String,
}

/// A disk that notices are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeDisk {
    /// The disk of the state directory.
    State,
    /// The disk of the served directory.
    Root,
}

impl fmt::Display for NoticeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoticeDisk::State => "the state directory",
            NoticeDisk::Root => "the served directory",
        })
    }
}

/// Content of a notice. As JSON it is `{"type": KIND, "data": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum NoticeContent {
    /// Tokens of one user expire soon.
    #[serde(rename = "token.expiring")]
    TokenExpiring {
        /// Their owner.
        user: String,
        /// Number of days, of the setting, within which they expire.
        days: u32,
        /// The tokens, those that expire first in front.
        tokens: Vec<ExpiringToken>,
    },
    /// A token was used from a new network.
    #[serde(rename = "token.new_address")]
    TokenNewAddress {
        /// Owner of the token.
        user: String,
        /// Id of the token.
        token: String,
        /// Address of the client.
        address: String,
        /// Protocol of the client.
        protocol: String,
        /// Program of the client, as it names itself.
        client: String,
    },
    /// An address was banned.
    #[serde(rename = "ban.added")]
    BanAdded {
        /// Network, end and reason of the ban.
        ban: String,
        /// Number of bans that this notice stands for.
        count: u64,
    },
    /// The certificate expires soon.
    #[serde(rename = "certificate.expiring")]
    CertificateExpiring {
        /// Whole days that are left.
        days_left: u64,
        /// Time of its expiration (RFC 3339).
        expires_at: String,
    },
    /// No certificate was issued.
    #[serde(rename = "certificate.failed")]
    CertificateFailed {
        /// Domains of the order.
        domains: Vec<String>,
        /// Reason.
        reason: String,
        /// Minutes until the next order.
        retry_minutes: u64,
    },
    /// A disk has little or no space left.
    #[serde(rename = "disk.low")]
    DiskLow {
        /// The disk.
        disk: NoticeDisk,
        /// Bytes that are free.
        free_bytes: u64,
        /// What does not work already.
        effect: String,
    },
    /// A disk has space again.
    #[serde(rename = "disk.recovered")]
    DiskRecovered {
        /// The disk.
        disk: NoticeDisk,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// A storage quota is nearly used up.
    #[serde(rename = "quota.nearly_used")]
    QuotaNearlyUsed {
        /// Whose it is: `user:LOGIN` or `token:ID`.
        account: String,
        /// Bytes that are stored.
        used_bytes: u64,
        /// The quota, in bytes.
        quota_bytes: u64,
    },
    /// A part of the tree is not available.
    #[serde(rename = "root.lost")]
    RootLost {
        /// Path in the tree; `/` for all of it.
        path: String,
        /// Reason.
        reason: String,
    },
    /// A part of the tree is available again.
    #[serde(rename = "root.back")]
    RootBack {
        /// Path in the tree.
        path: String,
    },
    /// An administrator tests whether notices arrive.
    #[serde(rename = "notice.test")]
    Test {},
}

impl NoticeContent {
    /// Returns the kind; `None` for a test.
    pub fn kind(&self) -> Option<NoticeKind> {
        match self {
            NoticeContent::TokenExpiring { .. } => Some(NoticeKind::TokenExpiring),
            NoticeContent::TokenNewAddress { .. } => Some(NoticeKind::TokenNewAddress),
            NoticeContent::BanAdded { .. } => Some(NoticeKind::BanAdded),
            NoticeContent::CertificateExpiring { .. } => Some(NoticeKind::CertificateExpiring),
            NoticeContent::CertificateFailed { .. } => Some(NoticeKind::CertificateFailed),
            NoticeContent::DiskLow { .. } => Some(NoticeKind::DiskLow),
            NoticeContent::DiskRecovered { .. } => Some(NoticeKind::DiskRecovered),
            NoticeContent::QuotaNearlyUsed { .. } => Some(NoticeKind::QuotaNearlyUsed),
            NoticeContent::RootLost { .. } => Some(NoticeKind::RootLost),
            NoticeContent::RootBack { .. } => Some(NoticeKind::RootBack),
            NoticeContent::Test {} => None,
        }
    }

    /// Returns the notice that an audit event is as well; `None` for most events.
    pub fn of_event(event: &AuditEvent) -> Option<Self> {
        let optional = |text: Option<&str>| notice_text(text.unwrap_or_default());
        match event.kind {
            EventKind::TokenNewAddress => Some(NoticeContent::TokenNewAddress {
                user: event.user.as_ref().map(ToString::to_string).unwrap_or_default(),
                token: event.token.as_ref().map(ToString::to_string).unwrap_or_default(),
                address: optional(event.address.as_deref()),
                protocol: event.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
                client: optional(event.client.as_deref()),
            }),
            // Of a ban by an administrator nobody has to be told. Automatic ones that are counted together have no actor.
            EventKind::BanAdded if matches!(event.by, Some(Actor::Server) | None) => {
                Some(NoticeContent::BanAdded { ban: optional(event.detail.as_deref()), count: event.count })
            }
            _ => None,
        }
    }
}

/// A notice on its way to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Id by which a receiver recognises a notice that it is sent again.
    pub message_id: String,
    /// Time of what it is about.
    pub at: UnixMillis,
    /// What it is about.
    pub content: NoticeContent,
}

impl Notice {
    /// Creates a notice with an id of its own.
    pub fn new(at: UnixMillis, content: NoticeContent) -> Self {
        Self { message_id: format!("msg_{}", uuid::Uuid::new_v4().simple()), at, content }
    }
}

/// Returns the start of a text for a notice, on one line and without the secret of any token.
pub fn notice_text(text: &str) -> String {
    // Redacted before it is truncated: a truncated secret would not be recognised as one.
    let text = escape_for_terminal(&redact_tokens_in_text(text));
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_kinds_roundtrip() {
        for kind in NoticeKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert!("notice.test".parse::<NoticeKind>().is_err(), "nobody can choose it");
    }

    #[test]
    fn only_automatic_bans_and_new_addresses_are_notices() {
        let event = |kind| AuditEvent::new(UnixMillis::from_millis(0), kind);
        let ban = |actor: Actor| NoticeContent::of_event(&event(EventKind::BanAdded).with_actor(actor));
        assert!(ban(Actor::Server).is_some());
        assert_eq!(ban(Actor::Administrator), None);
        assert!(NoticeContent::of_event(&event(EventKind::TokenNewAddress)).is_some());
        let others =
            EventKind::ALL.iter().filter(|kind| !matches!(kind, EventKind::BanAdded | EventKind::TokenNewAddress));
        assert!(others.into_iter().all(|kind| NoticeContent::of_event(&event(*kind)).is_none()));
    }

    #[test]
    fn texts_from_outside_stay_on_one_line_and_are_truncated() {
        assert_eq!(notice_text("a\r\nBcc: b\u{202e}"), "a\\r\\nBcc: b\\u{202e}");
        assert_eq!(notice_text(&"x".repeat(9999)).chars().count(), MAX_TEXT_CHARS + 1);
    }
}
