//! Events of the audit trail. An event never holds a secret, and text from clients (a user agent, a path) is truncated.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Login, Peer, Protocol, TokenId, TreePath, UnixMillis, redact_tokens_in_text};

/// Maximum number of characters of a text in an event.
const MAX_TEXT_CHARS: usize = 200;
/// Maximum number of characters of a path in an event.
const MAX_PATH_CHARS: usize = 1000;

// One list for variants, names and `ALL`, so that none of them can lack a kind.
macro_rules! event_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Kind of an event; its name is the same in commands, JSON, logs and the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// All kinds.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind),*];

            /// Returns the kind's name.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$kind => $name,)* }
            }
        }
    };
}

event_kinds! {
    /// A token was created.
    TokenCreated = "token.created",
    /// A token's name or description was changed.
    TokenRenamed = "token.renamed",
    /// A token's scopes, limits, roles or expiry were narrowed.
    TokenNarrowed = "token.narrowed",
    /// A token got a new secret.
    TokenRotated = "token.rotated",
    /// A token was revoked.
    TokenRevoked = "token.revoked",
    /// The expiration of a token was recorded.
    TokenExpired = "token.expired",
    /// An inactive token was deleted after its retention.
    TokenRemoved = "token.removed",
    /// A token was used for the first time.
    TokenFirstUsed = "token.first_used",
    /// A token was used from a new network.
    TokenNewAddress = "token.new_address",
    /// A secret that is not accepted any more was used: of a revoked or expired token, or one that a rotation replaced.
    DeadSecretUsed = "token.dead_secret_used",
    /// Attempts to log in were refused.
    AttemptRefused = "attempt.refused",
    /// Operations on the tree were denied.
    AccessDenied = "access.denied",
    /// A user was created.
    UserCreated = "user.created",
    /// A user was disabled.
    UserDisabled = "user.disabled",
    /// A user was enabled again.
    UserEnabled = "user.enabled",
    /// A user was deleted, with its grants and tokens.
    UserDeleted = "user.deleted",
    /// A user was given a grant.
    UserGranted = "user.granted",
    /// A grant of a user was revoked.
    GrantRevoked = "user.grant_revoked",
    /// A user's roles were changed.
    UserRolesChanged = "user.roles_changed",
    /// The storage quota of a user was set or removed.
    UserQuotaChanged = "user.quota_changed",
    /// A key of the policy was changed.
    PolicyChanged = "policy.changed",
    /// Open sessions ended because their token was revoked or expired, or were closed by a user.
    SessionEnded = "session.ended",
    /// A network was banned, by an administrator or for too many failed logins.
    BanAdded = "ban.added",
    /// A ban was removed before its end.
    BanRemoved = "ban.removed",
    /// The state directory was backed up.
    StateBackedUp = "state.backed_up",
    /// The state directory was restored from a backup.
    StateRestored = "state.restored",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("the event {text:?} is unknown: give one of {}", known.join(", "))
        })
    }
}

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The actor of an event. Its text is `administrator`, `administrator:SYSTEM_USER`, `server`, or `LOGIN/TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program that embeds the gateway, or an unknown user who works on the state directory.
    Administrator,
    /// A user of the operating system who works on the state directory.
    SystemUser(SystemUser),
    /// patgate itself.
    Server,
    /// The bearer of a token.
    Bearer {
        /// Owner of the token.
        login: Login,
        /// The token.
        token: TokenId,
    },
}

const ADMINISTRATOR: &str = "administrator";

/// The name of a user of the operating system, or the number where it has no name: 1 to 64 printable characters of
/// ASCII without white space, `:` and `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SystemUser(Box<str>);

impl FromStr for SystemUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |b: u8| b.is_ascii_graphic() && b != b':' && b != b'/';
        match (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(format!("{text:?} is not a user of the operating system")),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Administrator => f.write_str(ADMINISTRATOR),
            Actor::SystemUser(SystemUser(name)) => write!(f, "{ADMINISTRATOR}:{name}"),
            Actor::Server => f.write_str("server"),
            Actor::Bearer { login, token } => write!(f, "{login}/{token}"),
        }
    }
}

impl FromStr for Actor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(ADMINISTRATOR).and_then(|rest| rest.strip_prefix(':')) {
            return name.parse().map(Actor::SystemUser);
        }
        match text.split_once('/') {
            None if text == ADMINISTRATOR => Ok(Actor::Administrator),
            None if text == "server" => Ok(Actor::Server),
            Some((login, token)) => Ok(Actor::Bearer {
                login: login.parse().map_err(|error: super::LoginError| error.to_string())?,
                token: token.parse().map_err(|error: super::TokenError| error.to_string())?,
            }),
            None => Err(format!("{text:?} is not an actor")),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An event, or several of the same kind in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// Time of the event; of several, that of the last one.
    #[serde(serialize_with = "as_date")]
    pub at: UnixMillis,
    /// Kind of the event.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// User that it concerns, or the owner of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Login>,
    /// Token that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// Actor; `None` where the caller was not authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Address of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Program of the caller, as it names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Protocol of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Path in the tree, escaped where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Number of events that this one stands for.
    pub count: u64,
    /// Further detail, as a sentence or a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AuditEvent {
    /// Returns an event that happened once, without any detail.
    pub fn new(at: UnixMillis, kind: EventKind) -> Self {
        Self {
            at,
            kind,
            user: None,
            token: None,
            by: None,
            address: None,
            client: None,
            protocol: None,
            path: None,
            count: 1,
            detail: None,
        }
    }

    /// Returns the event with the user that it concerns, or the owner of the token.
    pub fn with_user(self, login: &Login) -> Self {
        Self { user: Some(login.clone()), ..self }
    }

    /// Returns the event with the token that it concerns.
    pub fn with_token(self, token: TokenId) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Returns the event with its actor.
    pub fn with_actor(self, actor: Actor) -> Self {
        Self { by: Some(actor), ..self }
    }

    /// Returns the event with protocol, address and program of the caller.
    pub fn with_peer(self, peer: &Peer) -> Self {
        let client = peer.user_agent.as_deref().map(|client| redact_and_truncate(client, MAX_TEXT_CHARS));
        // An IPv4 client of a dual-stack socket has an IPv4-mapped IPv6 address.
        let address = Some(peer.address.to_canonical().to_string());
        Self { address, client, protocol: Some(peer.protocol), ..self }
    }

    /// Returns the event with a path.
    pub fn with_path(self, path: &TreePath) -> Self {
        Self { path: Some(redact_and_truncate(&path.to_string(), MAX_PATH_CHARS)), ..self }
    }

    /// Returns the event with the number of events that it stands for.
    pub fn with_count(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// Returns the event with further detail.
    pub fn with_detail(self, detail: impl AsRef<str>) -> Self {
        Self { detail: Some(redact_and_truncate(detail.as_ref(), MAX_TEXT_CHARS)), ..self }
    }
}

/// Returns a text for a terminal or a log: control characters, and those that change the direction of
/// writing, are escaped.
pub fn escape_for_terminal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let changes_direction =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || changes_direction || matches!(c, '\u{2028}' | '\u{2029}') {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Returns the start of a text, without the secret of any token.
fn redact_and_truncate(text: &str, max_chars: usize) -> String {
    // Redacted before it is truncated: a truncated secret would not be recognised as one.
    let text = &*redact_tokens_in_text(text);
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn as_date<S: Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_kinds_and_actors_roundtrip() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(EventKind::ALL.iter().filter(|other| other.as_str() == kind.as_str()).count(), 1, "{kind}");
        }
        assert!("token.eaten".parse::<EventKind>().is_err());
        let (login, token) = ("administrator".parse().expect("login"), "JhxND7ci".parse().expect("id"));
        let user = Actor::SystemUser("carol".parse().expect("a user"));
        for actor in [Actor::Administrator, user, Actor::Server, Actor::Bearer { login, token }] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        for text in ["", "alice", "alice/", "/JhxND7ci", "administrator:", "administrator:a b", "administrator:a/b"] {
            assert!(text.parse::<Actor>().is_err(), "{text}");
        }
    }

    #[test]
    fn untrusted_text_is_truncated_and_escaped() {
        let peer = Peer {
            protocol: Protocol::Webdav,
            address: "::ffff:192.0.2.1".parse().expect("address"),
            user_agent: Some("\u{e9}".repeat(100_000)),
        };
        let event = AuditEvent::new(UnixMillis::from_millis(0), EventKind::AttemptRefused)
            .with_peer(&peer)
            .with_detail("x".repeat(9999));
        assert_eq!(event.address.as_deref(), Some("192.0.2.1"));
        assert_eq!(event.client.map(|client| client.chars().count()), Some(MAX_TEXT_CHARS + 1));
        assert_eq!(event.detail.map(|detail| detail.chars().count()), Some(MAX_TEXT_CHARS + 1));
        assert_eq!(escape_for_terminal("a\n\u{1b}[2J\u{202e}\u{85}é"), "a\\n\\u{1b}[2J\\u{202e}\\u{85}é");
    }
}
