//! Tokens and grants as they are shown: texts for people, and a stable shape in JSON.

use serde::Serialize;

use crate::domain::{Expiry, Lifetime, Limits, NodeId, Permission, Roles, TokenId};
use crate::store::{Placed, TokenRecord, TokenState};

/// A grant or scope.
#[derive(Debug, Serialize)]
pub(super) struct Reach {
    node: NodeId,
    permission: Permission,
    path: Option<String>,
}

impl Reach {
    /// Shows a grant or scope.
    pub(super) fn of(placed: &Placed) -> Self {
        let path = placed.path.as_ref().map(ToString::to_string);
        Self { node: placed.scope.node, permission: placed.scope.permission, path }
    }

    /// Writes it for people: `rw /alice`.
    pub(super) fn text(&self) -> String {
        match &self.path {
            Some(path) => format!("{} {path}", self.permission),
            None => format!("{} node:{} (dangling)", self.permission, self.node),
        }
    }
}

/// A token.
#[derive(Debug, Serialize)]
pub(super) struct Token {
    id: TokenId,
    owner: String,
    name: String,
    description: String,
    state: TokenState,
    dangling: bool,
    created_at: String,
    /// When it dies unless it is used before; none: never.
    expires_at: Option<String>,
    /// The latest it can live by being used; none: never ends.
    hard_limit: Option<String>,
    window_seconds: Option<u64>,
    revoked_at: Option<String>,
    old_secret_until: Option<String>,
    parent: Option<TokenId>,
    last_use: Option<LastUse>,
    /// None: all that its owner may reach.
    scopes: Option<Vec<Reach>>,
    limits: Limits,
    roles: Roles,
}

#[derive(Debug, Serialize)]
struct LastUse {
    at: String,
    from: Option<String>,
    client: Option<String>,
    protocol: Option<String>,
}

/// A token and its secret, for the one time that it is shown.
#[derive(Serialize)]
pub(super) struct NewToken<'a> {
    /// The secret.
    pub(super) token: &'a str,
    /// What is kept.
    #[serde(flatten)]
    pub(super) record: Token,
}

impl Token {
    /// Shows what is kept of a token.
    pub(super) fn of(record: &TokenRecord) -> Self {
        let last_use = record.last_use.as_ref().map(|last| LastUse {
            at: last.at.to_string(),
            from: last.from.clone(),
            client: last.client.clone(),
            protocol: last.protocol.map(|protocol| protocol.to_string()),
        });
        let ends = record.expiry != Expiry::Never;
        Self {
            id: record.id,
            owner: record.login.to_string(),
            name: record.name.clone(),
            description: record.description.clone(),
            state: record.state,
            dangling: record.dangles(),
            created_at: record.created_at.to_string(),
            expires_at: ends.then(|| record.deadline().to_string()),
            hard_limit: ends.then(|| record.expiry.cap().to_string()),
            window_seconds: match record.expiry {
                Expiry::Sliding { window_ms, .. } => Some(window_ms / 1000),
                Expiry::Hard(_) | Expiry::Never => None,
            },
            revoked_at: record.revoked_at.map(|at| at.to_string()),
            old_secret_until: record.old_until.map(|at| at.to_string()),
            parent: record.parent,
            last_use,
            scopes: record.scopes.as_ref().map(|scopes| scopes.iter().map(Reach::of).collect()),
            limits: record.limits.clone(),
            roles: record.roles.clone(),
        }
    }

    /// Returns a row of [`Token::HEADING`].
    pub(super) fn row(self) -> [String; 7] {
        let reaches = self.reaches();
        let state = state(self.state, self.dangling);
        let used = self.last_use.map_or_else(|| "never".to_owned(), |last| last.at);
        let expires = self.expires_at.unwrap_or_else(|| "never".to_owned());
        [self.id.to_string(), self.owner, self.name, state, expires, used, reaches]
    }

    /// What [`Token::row`] holds.
    pub(super) const HEADING: [&'static str; 7] = ["ID", "OWNER", "NAME", "STATE", "EXPIRES", "LAST USED", "REACHES"];

    /// Writes what it reaches for people.
    pub(super) fn reaches(&self) -> String {
        match &self.scopes {
            None => match self.parent {
                Some(parent) => format!("all that {parent} may reach"),
                None => format!("all that {} may reach", self.owner),
            },
            Some(scopes) => scopes.iter().map(Reach::text).collect::<Vec<_>>().join(", "),
        }
    }

    /// Returns everything about it for people.
    pub(super) fn facts(self) -> Vec<(&'static str, String)> {
        let reaches = self.reaches();
        let mut facts = vec![
            ("id", self.id.to_string()),
            ("owner", self.owner),
            ("name", self.name),
            ("description", self.description),
            ("state", state(self.state, self.dangling)),
            ("reaches", reaches),
            ("created", self.created_at),
        ];
        facts.retain(|(_, value)| !value.is_empty());
        let mut optional = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        optional("revoked", self.revoked_at);
        optional("parent", self.parent.map(|id| id.to_string()));
        optional("old secret until", self.old_secret_until);
        optional("last used", self.last_use.map(LastUse::text));
        optional("limits", limits(&self.limits));
        optional("roles", (!self.roles.is_empty()).then(|| self.roles.to_string()));
        facts
    }
}

impl LastUse {
    fn text(self) -> String {
        let from = self.from.map(|from| format!(" from {from}"));
        let by = self.protocol.map(|protocol| format!(" by {protocol}"));
        let with = self.client.map(|client| format!(" with {client}"));
        [Some(self.at), from, by, with].into_iter().flatten().collect()
    }
}

/// Writes when a token dies for people, as absolute dates.
pub(super) fn expires(record: &TokenRecord) -> String {
    match record.expiry {
        Expiry::Never => "never".to_owned(),
        Expiry::Hard(at) => at.to_string(),
        Expiry::Sliding { window_ms, cap } => {
            let window = Lifetime::from_secs(window_ms / 1000).map(|window| window.to_string()).unwrap_or_default();
            format!("{} (each use moves it {window} ahead, up to {cap})", record.deadline())
        }
    }
}

/// Returns a state's word.
fn state(state: TokenState, dangling: bool) -> String {
    let word = match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    };
    if dangling { format!("{word}, dangling") } else { word.to_owned() }
}

/// Writes limits for people; nothing for none.
fn limits(limits: &Limits) -> Option<String> {
    fn list<T: ToString>(word: &str, values: &[T]) -> Option<String> {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        (!values.is_empty()).then(|| format!("{word} {}", values.join(" or ")))
    }
    let size = limits.max_file_size.map(|size| format!("files up to {size}"));
    let all = [
        list("by", &limits.protocols),
        list("from", &limits.ips),
        list("with", &limits.user_agents),
        list("files of type", &limits.mimes),
        list("tagged", &limits.tags),
        size,
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}
