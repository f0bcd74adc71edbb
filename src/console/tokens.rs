//! Tokens: the list, page by page, and the details of each.

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

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::format::{DisplayTime, format_duration, format_grouped};
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use crate::auth::Authenticator;
use crate::domain::{Login, Role, TokenExpiry, TokenId, TokenLimits, UnixMillis};
use crate::store::{LocatedScope, TokenRecord, TokenState};
use crate::tokens::{Principal, TokenListSummary, TokenQuery, TokenService};

/// Number of tokens on a page.
const TOKENS_PER_PAGE: usize = 50;
/// Maximum number of tokens that a warning names.
const MAX_TOKENS_PER_WARNING: usize = 10;

/// Query parameters of the list.
#[derive(Deserialize)]
pub(super) struct TokenListQuery {
    find: Option<String>,
    state: Option<String>,
    owner: Option<String>,
    everybody: Option<String>,
    after: Option<String>,
    before: Option<String>,
}

/// A scope or grant as a page shows it.
pub(super) struct NodePermissionRow {
    /// The path, or `node:UUID` if the node is gone.
    pub(super) target: String,
    /// URL that shows the node; `None` if it is gone.
    pub(super) href: Option<String>,
    /// The permission.
    pub(super) permission: String,
    /// The id of the node.
    pub(super) node: String,
    /// Whether the node is gone.
    pub(super) dangling: bool,
}

impl NodePermissionRow {
    /// Returns the row of a scope or grant.
    pub(super) fn new(located: &LocatedScope) -> Self {
        let node = located.node.to_string();
        Self {
            target: located.path.as_ref().map_or_else(|| format!("node:{node}"), ToString::to_string),
            href: located.path.as_ref().map(|path| format!("/console/files{}", paths::encode(path))),
            permission: located.permission.to_string(),
            dangling: located.path.is_none(),
            node,
        }
    }
}

/// The last use of a token.
struct LastUseDetails {
    at: DisplayTime,
    from: String,
    client: String,
    protocol: String,
}

/// A token as a page shows it.
struct TokenDetails {
    id: String,
    name: String,
    description: String,
    owner: String,
    parent: Option<String>,
    roles: Vec<String>,
    state: &'static str,
    is_live: bool,
    dangling: bool,
    expires_soon: bool,
    /// `None` for a token without scopes, which reaches all that its owner may.
    scopes: Option<Vec<NodePermissionRow>>,
    limits: Vec<(&'static str, String)>,
    created: DisplayTime,
    expires: Option<DisplayTime>,
    revoked: Option<DisplayTime>,
    expiration: String,
    last_use: Option<LastUseDetails>,
    old_secret_until: Option<DisplayTime>,
    /// Fingerprint of the SSH key that proves it.
    ssh_key: Option<String>,
    is_own: bool,
}

impl TokenDetails {
    fn new(record: &TokenRecord, caller: TokenId, auth: &Authenticator) -> Self {
        let now = auth.now();
        let used = record.last_use.as_ref().map(|last_use| last_use.at);
        let last_use = record.last_use.as_ref().map(|last_use| LastUseDetails {
            at: DisplayTime::new(last_use.at, now),
            from: last_use.address.clone().unwrap_or_default(),
            client: last_use.client.clone().unwrap_or_default(),
            protocol: last_use.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
        });
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            description: record.description.clone(),
            owner: record.owner.to_string(),
            parent: record.parent.map(|parent| parent.to_string()),
            roles: record.roles.iter().map(|role| role.to_string()).collect(),
            state: state_label(record.state),
            is_live: record.state == TokenState::Live,
            dangling: record.dangling,
            expires_soon: record.state == TokenState::Live
                && record.expiry().expires_soon(record.created_at, used, now),
            scopes: record.scopes.as_ref().map(|scopes| scopes.iter().map(NodePermissionRow::new).collect()),
            limits: limit_labels(&record.limits),
            created: DisplayTime::new(record.created_at, now),
            expires: record.expires_at.map(|at| DisplayTime::new(at, now)),
            revoked: record.revoked_at.map(|at| DisplayTime::new(at, now)),
            expiration: expiration_label(record, now),
            last_use,
            old_secret_until: record
                .old_secret_until
                .filter(|until| *until > now)
                .map(|until| DisplayTime::new(until, now)),
            ssh_key: record.ssh_key.clone(),
            is_own: record.id == caller,
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

/// Describes the expiration of a token in words.
fn expiration_label(record: &TokenRecord, now: UnixMillis) -> String {
    match record.expiry() {
        TokenExpiry::Hard(_) => "Hard limit".to_owned(),
        TokenExpiry::Sliding { window_ms, cap } => {
            let window = format_duration(std::time::Duration::from_millis(window_ms));
            format!(
                "Sliding window: expires {window} after its last use, at the latest {}",
                DisplayTime::new(cap, now).exact
            )
        }
        TokenExpiry::Never => "No expiration".to_owned(),
    }
}

/// Returns the limits of a token, each with its label.
fn limit_labels(limits: &TokenLimits) -> Vec<(&'static str, String)> {
    fn joined<T: ToString>(list: &[T]) -> String {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
    // By name, so that a new limit does not compile until it is shown.
    let TokenLimits { protocols, ips, user_agents, mimes, tags, max_file_size, quota } = limits;
    let all = [
        ("Protocols", joined(protocols)),
        ("Client addresses", joined(ips)),
        ("User agents", joined(user_agents)),
        ("Media types", joined(mimes)),
        ("Tags", joined(tags)),
        ("Maximum file size", max_file_size.map(|size| size.to_string()).unwrap_or_default()),
        ("Quota", quota.map(|size| size.to_string()).unwrap_or_default()),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokenListPage {
    frame: PageFrame,
    rows: Vec<TokenDetails>,
    warnings: Vec<TokenWarning>,
    looks_up: bool,
    everybody: bool,
    owner: String,
    find: String,
    state: String,
    previous_page: Option<String>,
    next_page: Option<String>,
    first_page: Option<String>,
    filtered: bool,
}

/// A warning about tokens that need attention for one reason.
pub(super) struct TokenWarning {
    /// The reason.
    pub(super) reason: &'static str,
    /// The first of the tokens.
    pub(super) first_tokens: Vec<WarnedToken>,
    /// Number of further tokens, in words; empty for none.
    pub(super) other_count: String,
    /// URL that lists all of them, if there is one.
    pub(super) href: Option<String>,
}

/// A token that a warning names.
pub(super) struct WarnedToken {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) owner: String,
    /// Expiration, if it is soon.
    pub(super) expires: Option<DisplayTime>,
}

impl WarnedToken {
    fn new(record: &TokenRecord, now: UnixMillis) -> Self {
        let deadline =
            Some(record.deadline()).filter(|at| at.saturating_duration_since(now) <= TokenExpiry::EXPIRES_SOON_WINDOW);
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            owner: record.owner.to_string(),
            expires: deadline.map(|at| DisplayTime::new(at, now)),
        }
    }
}

/// Returns warnings about tokens that expire soon and about dangling scopes, of one user or of all.
pub(super) fn token_warnings(caller: &TokenReader, owner: Option<&Login>) -> Result<Vec<TokenWarning>> {
    let TokenReader { tokens, principal, auth, .. } = caller;
    let kinds = [
        ("These expire within a week", None, tokens.expiring(principal, owner, MAX_TOKENS_PER_WARNING)?),
        (
            "A folder or file in the scopes of these is gone",
            Some("dangling"),
            tokens.dangling(principal, owner, MAX_TOKENS_PER_WARNING)?,
        ),
    ];
    let everybody = if owner.is_none() { "&everybody=1" } else { "" };
    let warning = |(reason, state, found): (&'static str, Option<&str>, TokenListSummary)| {
        let other_count = found.count - found.records.len();
        TokenWarning {
            reason,
            href: state.map(|state| format!("/console/tokens?state={state}{everybody}")),
            other_count: match (other_count, found.may_have_more) {
                (0, _) => String::new(),
                (1, false) => "1 other".to_owned(),
                (other_count, false) => format!("{} others", format_grouped(other_count)),
                (other_count, true) => format!("more than {} others", format_grouped(other_count)),
            },
            first_tokens: found.records.iter().map(|record| WarnedToken::new(record, auth.now())).collect(),
        }
    };
    Ok(kinds.into_iter().filter(|(.., found)| found.count > 0).map(warning).collect())
}

/// Values of the filter form, as typed.
struct TokenFilterForm {
    find: String,
    state: String,
    owner: String,
    everybody: bool,
}

impl TokenFilterForm {
    fn from_query(params: &TokenListQuery) -> Self {
        let trimmed = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let (find, state, owner) = (trimmed(&params.find), trimmed(&params.state), trimmed(&params.owner));
        Self { everybody: params.everybody.is_some() && owner.is_empty(), find, state, owner }
    }

    fn token_query(&self, params: &TokenListQuery, caller: &Login) -> Result<TokenQuery> {
        let id =
            |text: &Option<String>| text.as_deref().map(str::parse).transpose().map_err(|_| ConsoleError::NotFound);
        let non_empty = |text: &'_ String| (!text.is_empty()).then(|| text.clone());
        let owner = non_empty(&self.owner).map(|text| text.parse::<Login>()).transpose();
        let owner =
            owner.map_err(|error| ConsoleError::InvalidForm(error.to_string()))?.unwrap_or_else(|| caller.clone());
        Ok(TokenQuery {
            owner: (!self.everybody).then_some(owner),
            state: non_empty(&self.state).map(|text| text.parse()).transpose().map_err(ConsoleError::InvalidForm)?,
            text: non_empty(&self.find),
            after: id(&params.after)?,
            before: id(&params.before)?,
        })
    }

    /// Returns the URL of the list, ready for a cursor to be appended.
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

/// The caller's access to tokens, for use on a blocking thread.
pub(super) struct TokenReader {
    tokens: TokenService,
    principal: Principal,
    auth: Authenticator,
    /// The token that the caller signed in with.
    current_token: TokenId,
}

impl TokenReader {
    /// Takes the access of a caller.
    pub(super) fn new(caller: &ConsoleCaller) -> Self {
        let state = &caller.state;
        let (tokens, auth) = (state.tokens.clone(), state.auth.clone());
        Self { tokens, principal: caller.principal(), auth, current_token: caller.session().token() }
    }
}

/// Lists tokens: the caller's own, or those of others if a role allows it.
pub(super) async fn list(caller: ConsoleCaller, Query(params): Query<TokenListQuery>) -> Result<Response> {
    let own_login = caller.session().login().clone();
    let form = TokenFilterForm::from_query(&params);
    let query = form.token_query(&params, &own_login)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Tokens);
    let looks_up = caller.has_role(Role::AuthenticationLookup);
    let reader = TokenReader::new(&caller);
    run_with_permit(caller.light_permit(), move || {
        let found = reader.tokens.list(&reader.principal, &query, TOKENS_PER_PAGE)?;
        let rows: Vec<TokenDetails> =
            found.items.iter().map(|record| TokenDetails::new(record, reader.current_token, &reader.auth)).collect();
        let address = form.list_url();
        let page_url = |name: &str, id: &str| format!("{address}{name}={id}");
        let (first, last) = (rows.first().map(|row| &row.id), rows.last().map(|row| &row.id));
        let has_more = found.next.is_some();
        // A page that was reached backwards surely has a next one, and one that was reached forwards a previous one.
        let (previous_page, next_page) = match (query.before, query.after) {
            (Some(_), _) => (first.filter(|_| has_more), last),
            (None, Some(_)) => (first, last.filter(|_| has_more)),
            (None, None) => (None, last.filter(|_| has_more)),
        };
        let filtered = !(form.find.is_empty() && form.state.is_empty() && form.owner.is_empty());
        // Warnings cost more than the list itself, so only the first page without a filter has them.
        let is_first_page = !filtered && query.after.is_none() && query.before.is_none();
        let warnings =
            if is_first_page { token_warnings(&reader, (!looks_up).then_some(&own_login))? } else { Vec::new() };
        let page = TokenListPage {
            frame,
            warnings,
            looks_up,
            everybody: form.everybody,
            previous_page: previous_page.map(|id| page_url("before", id)),
            next_page: next_page.map(|id| page_url("after", id)),
            first_page: query.after.or(query.before).map(|_| address.trim_end_matches(['?', '&']).to_owned()),
            filtered,
            rows,
            owner: form.owner,
            find: form.find,
            state: form.state,
        };
        render_page(StatusCode::OK, &page)
    })
    .await
}
