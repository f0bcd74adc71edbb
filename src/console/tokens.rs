//! Tokens: the list, page by page, and what is shown of each.

mod create;
mod created;
mod detail;
mod edit;
pub(super) mod form;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

pub(super) use create::{create, create_form};
pub(super) use detail::{confirm_revoke, confirm_revoke_all, confirm_rotate, revoke, revoke_all, rotate, show};
pub(super) use edit::{edit_form, update};

use super::blocking::in_turn;
use super::error::{ConsoleError, Result};
use super::format::{DisplayTime, format_duration, format_grouped};
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use crate::auth::Authenticator;
use crate::domain::{Login, Role, TokenExpiry, TokenId, TokenLimits, UnixMillis};
use crate::store::{LocatedScope, TokenRecord, TokenState};
use crate::tokens::{Principal, TokenListSummary, TokenQuery, TokenService};

/// Tokens on a page.
const TOKENS_PER_PAGE: usize = 50;
/// How many tokens that need attention are named, of each kind.
const MAX_TOKENS_PER_WARNING: usize = 10;

/// What the address of the list asks for.
#[derive(Deserialize)]
pub(super) struct TokenListQuery {
    find: Option<String>,
    state: Option<String>,
    owner: Option<String>,
    everybody: Option<String>,
    after: Option<String>,
    before: Option<String>,
}

/// A place that a scope or grant names.
pub(super) struct NodePermissionRow {
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

impl NodePermissionRow {
    /// Tells of a scope or grant.
    pub(super) fn new(placed: &LocatedScope) -> Self {
        let node = placed.scope.node.to_string();
        Self {
            place: placed.path.as_ref().map_or_else(|| format!("node:{node}"), ToString::to_string),
            href: placed.path.as_ref().map(|path| format!("/console/files{}", paths::encode(path))),
            permission: placed.scope.permission.to_string(),
            dangles: placed.path.is_none(),
            node,
        }
    }
}

/// What a token's last use was.
struct LastUseDetails {
    at: DisplayTime,
    from: String,
    client: String,
    protocol: String,
}

/// A token as pages show it.
struct TokenDetails {
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
    reach: Option<Vec<NodePermissionRow>>,
    limits: Vec<(&'static str, String)>,
    made: DisplayTime,
    ends: Option<DisplayTime>,
    revoked: Option<DisplayTime>,
    model: String,
    last: Option<LastUseDetails>,
    old_until: Option<DisplayTime>,
    own: bool,
}

impl TokenDetails {
    fn new(record: &TokenRecord, caller: TokenId, auth: &Authenticator) -> Self {
        let now = auth.now();
        let used = record.last_use.as_ref().map(|last| last.at);
        let last = record.last_use.as_ref().map(|last| LastUseDetails {
            at: DisplayTime::new(last.at, now),
            from: last.address.clone().unwrap_or_default(),
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
            state: state_label(record.state),
            live: record.state == TokenState::Live,
            dangles: record.has_dangling_scopes(),
            soon: record.state == TokenState::Live && record.expiry.expires_soon(record.created_at, used, now),
            reach: record.scopes.as_ref().map(|scopes| scopes.iter().map(NodePermissionRow::new).collect()),
            limits: limit_labels(&record.limits),
            made: DisplayTime::new(record.created_at, now),
            ends: record.expires_at().map(|at| DisplayTime::new(at, now)),
            revoked: record.revoked_at.map(|at| DisplayTime::new(at, now)),
            model: expiration_label(record, now),
            last,
            old_until: record.grace_until.filter(|until| *until > now).map(|until| DisplayTime::new(until, now)),
            own: record.id == caller,
        }
    }
}

fn state_label(state: TokenState) -> &'static str {
    match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}

/// Says in words how a token ends.
fn expiration_label(record: &TokenRecord, now: UnixMillis) -> String {
    match record.expiry {
        TokenExpiry::Hard(_) => "Hard limit".to_owned(),
        TokenExpiry::Sliding { window_ms, cap } => {
            let window = format_duration(std::time::Duration::from_millis(window_ms));
            format!("Auto refresh: used at least every {window}, until {}", DisplayTime::new(cap, now).exact)
        }
        TokenExpiry::Never => "Lives until it is revoked".to_owned(),
    }
}

/// Lists what a token is limited to, kind by kind.
fn limit_labels(limits: &TokenLimits) -> Vec<(&'static str, String)> {
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
struct TokenListPage {
    frame: PageFrame,
    rows: Vec<TokenDetails>,
    attention: Vec<TokenWarning>,
    looks_up: bool,
    everybody: bool,
    owner: String,
    find: String,
    state: String,
    previous: Option<String>,
    next: Option<String>,
    first: Option<String>,
    filtered: bool,
}

/// Tokens that somebody should look after, for one reason.
pub(super) struct TokenWarning {
    /// The reason.
    pub(super) why: &'static str,
    /// The first of them.
    pub(super) first: Vec<WarnedToken>,
    /// How many others there are, in words; empty for none.
    pub(super) others: String,
    /// Where all of them are shown, where there is such a list.
    pub(super) href: Option<String>,
}

/// One of them.
pub(super) struct WarnedToken {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) owner: String,
    /// When it ends, where that is soon.
    pub(super) ends: Option<DisplayTime>,
}

impl WarnedToken {
    fn new(record: &TokenRecord, now: UnixMillis) -> Self {
        let soon =
            Some(record.deadline()).filter(|at| at.saturating_duration_since(now) <= TokenExpiry::EXPIRES_SOON_WINDOW);
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            owner: record.login.to_string(),
            ends: soon.map(|at| DisplayTime::new(at, now)),
        }
    }
}

/// Returns the tokens that end soon and those that name what is gone: of one user, or of all.
pub(super) fn token_warnings(caller: &TokenReader, owner: Option<&Login>) -> Result<Vec<TokenWarning>> {
    let TokenReader { tokens, authority: who, auth, .. } = caller;
    let kinds = [
        ("These end within a week", None, tokens.expiring(who, owner, MAX_TOKENS_PER_WARNING)?),
        (
            "These name a folder or file that is gone",
            Some("dangling"),
            tokens.dangling(who, owner, MAX_TOKENS_PER_WARNING)?,
        ),
    ];
    let everybody = if owner.is_none() { "&everybody=1" } else { "" };
    let warning = |(why, state, found): (&'static str, Option<&str>, TokenListSummary)| {
        let others = found.count - found.records.len();
        TokenWarning {
            why,
            href: state.map(|state| format!("/console/tokens?state={state}{everybody}")),
            others: match (others, found.may_have_more) {
                (0, _) => String::new(),
                (1, false) => "1 other".to_owned(),
                (others, false) => format!("{} others", format_grouped(others)),
                (others, true) => format!("more than {} others", format_grouped(others)),
            },
            first: found.records.iter().map(|record| WarnedToken::new(record, auth.now())).collect(),
        }
    };
    Ok(kinds.into_iter().filter(|(.., found)| found.count > 0).map(warning).collect())
}

/// What a list is asked for, as it was typed.
struct TokenFilterForm {
    find: String,
    state: String,
    owner: String,
    everybody: bool,
}

impl TokenFilterForm {
    fn from_query(asked: &TokenListQuery) -> Self {
        let given = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let (find, state, owner) = (given(&asked.find), given(&asked.state), given(&asked.owner));
        Self { everybody: asked.everybody.is_some() && owner.is_empty(), find, state, owner }
    }

    fn token_query(&self, asked: &TokenListQuery, own: &Login) -> Result<TokenQuery> {
        let id =
            |text: &Option<String>| text.as_deref().map(str::parse).transpose().map_err(|_| ConsoleError::NotFound);
        let some = |text: &'_ String| (!text.is_empty()).then(|| text.clone());
        let owner = some(&self.owner).map(|text| text.parse::<Login>()).transpose();
        let owner = owner.map_err(|why| ConsoleError::InvalidForm(why.to_string()))?.unwrap_or_else(|| own.clone());
        Ok(TokenQuery {
            owner: (!self.everybody).then_some(owner),
            state: some(&self.state).map(|text| text.parse()).transpose().map_err(ConsoleError::InvalidForm)?,
            text: some(&self.find),
            after: id(&asked.after)?,
            before: id(&asked.before)?,
        })
    }

    /// Returns the address of the list, to which a place in it may be added.
    fn list_url(&self) -> String {
        let mut address = String::from("/console/tokens?");
        for (name, value) in [("find", &self.find), ("state", &self.state), ("owner", &self.owner)] {
            if !value.is_empty() {
                address += &format!("{name}={}&", paths::encode_query(value.as_bytes()));
            }
        }
        if self.everybody {
            address += "everybody=1&";
        }
        address
    }
}

/// Who looks at tokens.
pub(super) struct TokenReader {
    tokens: TokenService,
    authority: Principal,
    auth: Authenticator,
    /// The token that it is signed in with.
    current_token: TokenId,
}

impl TokenReader {
    /// Returns the caller as one who looks.
    pub(super) fn new(caller: &ConsoleCaller) -> Self {
        let shared = &caller.state;
        let (tokens, auth) = (shared.tokens.clone(), shared.auth.clone());
        Self { tokens, authority: caller.authority(), auth, current_token: caller.session().token() }
    }
}

/// Shows tokens: one's own, or those of others where a role allows it.
pub(super) async fn list(caller: ConsoleCaller, Query(asked): Query<TokenListQuery>) -> Result<Response> {
    let own = caller.session().login().clone();
    let typed = TokenFilterForm::from_query(&asked);
    let query = typed.token_query(&asked, &own)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Tokens);
    let looks_up = caller.has_role(Role::AuthenticationLookup);
    let looker = TokenReader::new(&caller);
    in_turn(caller.light(), move || {
        let found = looker.tokens.list(&looker.authority, &query, TOKENS_PER_PAGE)?;
        let rows: Vec<TokenDetails> =
            found.items.iter().map(|record| TokenDetails::new(record, looker.current_token, &looker.auth)).collect();
        let address = typed.list_url();
        let turn = |name: &str, id: &str| format!("{address}{name}={id}");
        let (first, last) = (rows.first().map(|row| &row.id), rows.last().map(|row| &row.id));
        let further = found.next.is_some();
        let (previous, next) = match (query.before, query.after) {
            (Some(_), _) => (first.filter(|_| further), last),
            (None, Some(_)) => (first, last.filter(|_| further)),
            (None, None) => (None, last.filter(|_| further)),
        };
        let filtered = !(typed.find.is_empty() && typed.state.is_empty() && typed.owner.is_empty());
        // What is asked for by itself, and any page but the first, is shown without them: they cost more than it.
        let begins = !filtered && query.after.is_none() && query.before.is_none();
        let attention = if begins { token_warnings(&looker, (!looks_up).then_some(&own))? } else { Vec::new() };
        let page = TokenListPage {
            frame,
            attention,
            looks_up,
            everybody: typed.everybody,
            previous: previous.map(|id| turn("before", id)),
            next: next.map(|id| turn("after", id)),
            first: query.after.or(query.before).map(|_| address.trim_end_matches(['?', '&']).to_owned()),
            filtered,
            rows,
            owner: typed.owner,
            find: typed.find,
            state: typed.state,
        };
        render_page(StatusCode::OK, &page)
    })
    .await
}
