//! Tokens: the list, page by page, and what is shown of each.

mod change;
pub(super) mod form;
mod made;
mod make;
mod one;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

pub(super) use change::{ask_change, change};
pub(super) use make::{ask, make};
pub(super) use one::{ask_revoke, ask_revoke_all, ask_rotate, revoke, revoke_all, rotate, show};

use super::fault::{Fault, Result, blocking};
use super::guard::Caller;
use super::page::{Frame, Part, render};
use super::place;
use super::words::{Moment, span};
use crate::auth::Authenticator;
use crate::domain::{Expiry, Limits, Login, Role, Time, TokenId};
use crate::store::{Placed, TokenRecord, TokenState};
use crate::tokens::{StateFilter, TokenQuery};

/// Tokens on a page.
const PAGE: usize = 50;
/// How many of the caller's own live tokens are looked through for what it should know of.
const LOOKED: usize = 100;
/// How near an end is that is told of.
const NEAR: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

/// What the address of the list asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    find: Option<String>,
    state: Option<String>,
    owner: Option<String>,
    everybody: Option<String>,
    after: Option<String>,
}

/// A place that a scope or grant names.
pub(super) struct Reach {
    /// The path, or the node where that has ended.
    pub(super) place: String,
    /// Where the files of it are shown.
    pub(super) href: Option<String>,
    /// What is allowed there.
    pub(super) permission: String,
    /// The node.
    pub(super) node: String,
    /// Whether the node has ended.
    pub(super) dangles: bool,
}

impl Reach {
    /// Tells of a scope or grant.
    pub(super) fn new(placed: &Placed) -> Self {
        let node = placed.scope.node.to_string();
        Self {
            place: placed.path.as_ref().map_or_else(|| format!("node:{node}"), ToString::to_string),
            href: placed.path.as_ref().map(|path| format!("/console/files{}", place::encode(path))),
            permission: placed.scope.permission.to_string(),
            dangles: placed.path.is_none(),
            node,
        }
    }
}

/// What a token's last use was.
struct LastUse {
    at: Moment,
    from: String,
    client: String,
    protocol: String,
}

/// A token as pages show it.
struct Shown {
    id: String,
    name: String,
    description: String,
    owner: String,
    parent: Option<String>,
    roles: Vec<String>,
    state: &'static str,
    live: bool,
    dangles: bool,
    soon: bool,
    /// `None`: all that the owner may reach.
    reach: Option<Vec<Reach>>,
    limits: Vec<(&'static str, String)>,
    made: Moment,
    ends: Option<Moment>,
    model: String,
    last: Option<LastUse>,
    old_until: Option<Moment>,
    own: bool,
}

impl Shown {
    fn new(record: &TokenRecord, caller: TokenId, auth: &Authenticator) -> Self {
        let now = auth.now();
        let record = &fresh(record, auth);
        let last = record.last_use.as_ref().map(|last| LastUse {
            at: Moment::new(last.at, now),
            from: last.from.clone().unwrap_or_default(),
            client: last.client.clone().unwrap_or_default(),
            protocol: last.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
        });
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            description: record.description.clone(),
            owner: record.login.to_string(),
            parent: record.parent.map(|parent| parent.to_string()),
            roles: record.roles.iter().map(|role| role.to_string()).collect(),
            state: word(record.state),
            live: record.state == TokenState::Live,
            dangles: record.dangles(),
            soon: ends_soon(record, now),
            reach: record.scopes.as_ref().map(|scopes| scopes.iter().map(Reach::new).collect()),
            limits: limits(&record.limits),
            made: Moment::new(record.created_at, now),
            ends: record.ends().map(|at| Moment::new(at, now)),
            model: model(record, now),
            last,
            old_until: record.old_until.filter(|until| *until > now).map(|until| Moment::new(until, now)),
            own: record.id == caller,
        }
    }
}

/// Completes a record by a use that is not written down yet.
fn fresh(record: &TokenRecord, auth: &Authenticator) -> TokenRecord {
    let written = record.last_use.as_ref().map(|last| last.at);
    let unwritten = auth.last_use(record.id).filter(|last| written.is_none_or(|at| at < last.at));
    TokenRecord { last_use: unwritten.or_else(|| record.last_use.clone()), ..record.clone() }
}

fn word(state: TokenState) -> &'static str {
    match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}

/// Says in words how a token ends.
fn model(record: &TokenRecord, now: Time) -> String {
    match record.expiry {
        Expiry::Hard(_) => "Hard limit".to_owned(),
        Expiry::Sliding { window_ms, cap } => {
            let window = span(std::time::Duration::from_millis(window_ms));
            format!("Auto refresh: used at least every {window}, until {}", Moment::new(cap, now).exact)
        }
        Expiry::Never => "Lives until it is revoked".to_owned(),
    }
}

/// Tells whether a live token ends within a week, and most of its life (or of its rest) is over.
fn ends_soon(record: &TokenRecord, now: Time) -> bool {
    let near = |begin: Time, end: Time| end.since(now) < NEAR && end.since(now) * 4 < end.since(begin);
    let rested = record.last_use.as_ref().map_or(record.created_at, |last| last.at);
    let of_rest = match record.expiry {
        Expiry::Sliding { window_ms, .. } if window_ms > 86_400_000 => near(rested, record.deadline()),
        Expiry::Sliding { .. } | Expiry::Hard(_) | Expiry::Never => false,
    };
    record.state == TokenState::Live && (of_rest || near(record.created_at, record.expiry.cap()))
}

/// Lists what a token is limited to, kind by kind.
fn limits(limits: &Limits) -> Vec<(&'static str, String)> {
    fn joined<T: ToString>(list: &[T]) -> String {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
    let all = [
        ("Protocols", joined(&limits.protocols)),
        ("Addresses", joined(&limits.ips)),
        ("Programs", joined(&limits.user_agents)),
        ("Media types", joined(&limits.mimes)),
        ("Tags", joined(&limits.tags)),
        ("Largest file", limits.max_file_size.map(|size| size.to_string()).unwrap_or_default()),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Page {
    frame: Frame,
    rows: Vec<Shown>,
    warned: Vec<Shown>,
    looks_up: bool,
    everybody: bool,
    owner: String,
    find: String,
    state: String,
    next: Option<String>,
    first: Option<String>,
    filtered: bool,
}

/// Shows tokens: one's own, or those of others where a role allows it.
pub(super) async fn list(caller: Caller, Query(asked): Query<Asked>) -> Result<Response> {
    let given =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let (find, state, owner) = (given(&asked.find), given(&asked.state), given(&asked.owner));
    let everybody = asked.everybody.is_some() && owner.is_none();
    let own = caller.session().login().clone();
    let login = owner.as_deref().map(str::parse::<Login>).transpose().map_err(|why| Fault::Form(why.to_string()))?;
    let query = TokenQuery {
        owner: if everybody { None } else { Some(login.unwrap_or_else(|| own.clone())) },
        state: state.as_deref().map(str::parse).transpose().map_err(Fault::Form)?,
        text: find.clone(),
        after: asked.after.as_deref().map(str::parse).transpose().map_err(|_| Fault::Nothing)?,
    };
    let frame = Frame::new(&caller, Part::Tokens);
    let looks_up = caller.has(Role::AuthenticationLookup);
    let (tokens, who, auth, this) =
        (caller.shared.tokens.clone(), caller.authority(), caller.shared.auth.clone(), caller.session().token());
    blocking(move || {
        let mut base = String::from("/console/tokens?");
        for (name, value) in [("find", &find), ("state", &state), ("owner", &owner)] {
            if let Some(value) = value {
                base += &format!("{name}={}&", place::query(value.as_bytes()));
            }
        }
        if everybody {
            base += "everybody=1&";
        }
        let page = tokens.page(&who, &query, PAGE)?;
        let live = TokenQuery { owner: Some(own), state: Some(StateFilter::Live), ..TokenQuery::default() };
        let warned = tokens.page(&who, &live, LOOKED)?.items;
        let warned =
            warned.iter().map(|record| Shown::new(record, this, &auth)).filter(|t| t.dangles || t.soon).collect();
        let page = Page {
            frame,
            rows: page.items.iter().map(|record| Shown::new(record, this, &auth)).collect(),
            warned,
            looks_up,
            everybody,
            filtered: find.is_some() || state.is_some() || owner.is_some(),
            owner: owner.unwrap_or_default(),
            find: find.unwrap_or_default(),
            state: state.unwrap_or_default(),
            next: page.next.map(|next| format!("{base}after={next}")),
            first: query.after.map(|_| base.trim_end_matches(['?', '&']).to_owned()),
        };
        render(StatusCode::OK, &page)
    })
    .await
}
