//! What happened: the events of the audit trail. An event never holds a secret, and what a stranger
//! sent (a user agent, a path) is bounded before it gets here.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Login, Peer, Protocol, TokenId, TreePath, UnixMillis, redact_tokens_in_text};

/// How many characters of a text an event holds.
const MAX_TEXT_CHARS: usize = 200;
/// How many characters of a path an event holds.
const MAX_PATH_CHARS: usize = 1000;

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What kind of thing happened; its name is the same in commands, JSON, logs and the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// Every kind there is.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind),*];

            /// Returns the kind's name.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$kind => $name,)* }
            }
        }
    };
}

event_kinds! {
    /// A token was made.
    TokenCreated = "token.created",
    /// A token's name or description was changed.
    TokenRenamed = "token.renamed",
    /// A token's scopes, limits, roles or expiry were narrowed.
    TokenNarrowed = "token.narrowed",
    /// A token got a new secret.
    TokenRotated = "token.rotated",
    /// A token was revoked.
    TokenRevoked = "token.revoked",
    /// A token was seen to have expired.
    TokenExpired = "token.expired",
    /// A dead token's row left the store after its retention.
    TokenRemoved = "token.removed",
    /// A token was used for the first time.
    TokenFirstUsed = "token.first_used",
    /// A token was used from an address that it had not been used from lately.
    TokenNewAddress = "token.new_address",
    /// A secret that was right once was shown: of a revoked or expired token, or one rotated away.
    DeadSecretUsed = "token.dead_secret_used",
    /// Attempts to log in were refused.
    AttemptRefused = "attempt.refused",
    /// Operations on the tree were denied.
    AccessDenied = "access.denied",
    /// A user was made.
    UserCreated = "user.created",
    /// A user was disabled.
    UserDisabled = "user.disabled",
    /// A user was enabled again.
    UserEnabled = "user.enabled",
    /// A user was deleted, with its grants and tokens.
    UserDeleted = "user.deleted",
    /// A user was given a grant.
    UserGranted = "user.granted",
    /// A grant was taken from a user.
    GrantRevoked = "user.grant_revoked",
    /// A user's roles were changed.
    UserRolesChanged = "user.roles_changed",
    /// A key of the policy was changed.
    PolicyChanged = "policy.changed",
    /// Open sessions were ended because their token died.
    SessionEnded = "session.ended",
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

/// By whom something was done. Its text is `administrator`, `server`, or `LOGIN/TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program that embeds the gateway, or somebody on the state directory who can't be named.
    Administrator,
    /// A user of the operating system who works on the state directory.
    SystemUser(SystemUser),
    /// patgate itself.
    Server,
    /// The bearer of a token.
    Bearer {
        /// Whose token.
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
            false => Err(format!("{text:?} is no user of the operating system")),
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
            None => Err(format!("{text:?} is nobody who acts")),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something that happened, or several like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// When; of several, when the last of them.
    #[serde(serialize_with = "as_date")]
    pub at: UnixMillis,
    /// What.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// To which user, or to whose token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Login>,
    /// To which token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// By whom; none where nobody was proven to have done it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With which program, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// By which door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// At which path, escaped where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often.
    pub count: u64,
    /// What else there is to know, as a sentence or a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AuditEvent {
    /// Says that something happened once.
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

    /// Says to which user, or to whose token.
    pub fn with_user(self, login: &Login) -> Self {
        Self { user: Some(login.clone()), ..self }
    }

    /// Says to which token.
    pub fn with_token(self, token: TokenId) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Says by whom.
    pub fn with_actor(self, actor: Actor) -> Self {
        Self { by: Some(actor), ..self }
    }

    /// Says from where, with what and by which door.
    pub fn with_peer(self, peer: &Peer) -> Self {
        let client = peer.user_agent.as_deref().map(|client| redact_and_truncate(client, MAX_TEXT_CHARS));
        let address = Some(peer.address.to_canonical().to_string());
        Self { address, client, protocol: Some(peer.protocol), ..self }
    }

    /// Says at which path.
    pub fn with_path(self, path: &TreePath) -> Self {
        Self { path: Some(redact_and_truncate(&path.to_string(), MAX_PATH_CHARS)), ..self }
    }

    /// Says how often.
    pub fn with_count(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// Says what else there is to know.
    pub fn with_detail(self, detail: impl AsRef<str>) -> Self {
        Self { detail: Some(redact_and_truncate(detail.as_ref(), MAX_TEXT_CHARS)), ..self }
    }
}

/// Returns a text for a terminal or a log: control characters, and those that turn the direction of
/// writing around, are escaped.
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

/// Returns the beginning of a text, without the secret of any token.
fn redact_and_truncate(text: &str, max_chars: usize) -> String {
    // Before it is cut: the beginning of a secret is not known for one.
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
