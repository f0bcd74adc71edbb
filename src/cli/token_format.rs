//! Formats tokens and grants for people.

use crate::domain::{Lifetime, Roles, TokenLimits};
use crate::store::{LastUseRecord, LocatedScope, TokenRecord, TokenState};

/// Formats a grant or scope: `rw /alice`.
pub(super) fn format_permission(permission: &LocatedScope) -> String {
    match &permission.path {
        Some(path) => format!("{} {path}", permission.permission),
        None => format!("{} node:{} (dangling)", permission.permission, permission.node),
    }
}

/// Columns of [`token_row`].
pub(super) const TOKEN_TABLE_HEADING: [&str; 8] =
    ["ID", "OWNER", "NAME", "STATE", "EXPIRES", "LAST USED", "ROLES", "ACCESS"];

/// Returns a row below [`TOKEN_TABLE_HEADING`].
pub(super) fn token_row(token: TokenRecord) -> [String; 8] {
    let access = format_access(&token);
    let state = format_state(token.state, token.dangling);
    let used = token.last_use.map_or_else(|| "never".to_owned(), |last| last.at.to_string());
    let expires = token.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let roles = format_roles(&token.roles).unwrap_or_else(|| "none".to_owned());
    [token.id.to_string(), token.owner.to_string(), token.name, state, expires, used, roles, access]
}

/// Formats the access of a token.
pub(super) fn format_access(token: &TokenRecord) -> String {
    match (&token.scopes, token.parent) {
        (None, Some(parent)) => format!("all that {parent} may reach"),
        (None, None) => format!("all that {} may reach", token.owner),
        (Some(scopes), _) => scopes.iter().map(format_permission).collect::<Vec<_>>().join(", "),
    }
}

/// Returns all fields of a token, with their labels.
pub(super) fn token_fields(token: TokenRecord) -> Vec<(&'static str, String)> {
    let (access, expires) = (format_access(&token), format_expiration(&token));
    let mut fields = vec![
        ("id", token.id.to_string()),
        ("owner", token.owner.to_string()),
        ("name", token.name),
        ("description", token.description),
        ("state", format_state(token.state, token.dangling)),
        ("access", access),
        ("created", token.created_at.to_string()),
    ];
    fields.retain(|(_, value)| !value.is_empty());
    let mut optional = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    optional("revoked", token.revoked_at.map(|at| at.to_string()));
    optional("parent", token.parent.map(|id| id.to_string()));
    optional("SSH key", token.ssh_key);
    optional("old secret until", token.old_secret_until.map(|at| at.to_string()));
    optional("last used", token.last_use.map(format_last_use));
    optional("limits", format_limits(&token.limits));
    optional("roles", format_roles(&token.roles));
    let foreign: Vec<_> = token.foreign_roles.iter().map(ToString::to_string).collect();
    optional("foreign roles", (!foreign.is_empty()).then(|| foreign.join(", ")));
    optional("expires", Some(expires));
    fields
}

/// Formats roles; `None` if there are none.
pub(super) fn format_roles(roles: &Roles) -> Option<String> {
    (!roles.is_empty()).then(|| roles.to_string())
}

fn format_last_use(last: LastUseRecord) -> String {
    let from = last.address.map(|from| format!(" from {from}"));
    let by = last.protocol.map(|protocol| format!(" by {protocol}"));
    let with = last.client.map(|client| format!(" with {client}"));
    [Some(last.at.to_string()), from, by, with].into_iter().flatten().collect()
}

/// Formats the expiration of a token, as absolute dates.
pub(super) fn format_expiration(token: &TokenRecord) -> String {
    match (&token.expires_at, token.window_seconds, &token.hard_limit) {
        (Some(at), Some(window), Some(cap)) => {
            let window = Lifetime::from_secs(window).map(|window| window.to_string()).unwrap_or_default();
            format!("{at} (each use moves it {window} ahead, up to {cap})")
        }
        (Some(at), _, _) => at.to_string(),
        (None, _, _) => "never".to_owned(),
    }
}

/// Formats the state of a token.
fn format_state(state: TokenState, dangling: bool) -> String {
    let label = match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    };
    if dangling { format!("{label}, dangling") } else { label.to_owned() }
}

/// Formats limits; `None` if there are none.
pub(super) fn format_limits(limits: &TokenLimits) -> Option<String> {
    fn list<T: ToString>(label: &str, values: &[T]) -> Option<String> {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        (!values.is_empty()).then(|| format!("{label} {}", values.join(" or ")))
    }
    // By name, so that a new limit does not compile until it is shown.
    let TokenLimits { protocols, ips, user_agents, mimes, tags, max_file_size, quota } = limits;
    let all = [
        list("by", protocols),
        list("from", ips),
        list("with", user_agents),
        list("files of type", mimes),
        list("tagged", tags),
        max_file_size.map(|size| format!("files up to {size}")),
        quota.map(|size| format!("files of {size} in all")),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}
