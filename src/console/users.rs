//! People: users, what they may reach and do, and whether they may come in.

mod edit;

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

pub(super) use edit::{confirm_delete, create, create_form, delete, update};

use super::blocking::in_turn;
use super::error::{ConsoleError, Result};
use super::format::DisplayTime;
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use super::tokens::{NodePermissionRow, TokenReader, TokenWarning, token_warnings};
use crate::domain::{Login, Role, UnixMillis};
use crate::store::User;

/// Users on a page.
const USERS_PER_PAGE: usize = 50;

/// What the address of the list asks for.
#[derive(Deserialize)]
pub(super) struct UserListQuery {
    after: Option<String>,
}

/// A user as pages show it.
struct UserDetails {
    login: String,
    href: String,
    roles: Vec<&'static str>,
    disabled: Option<DisplayTime>,
    made: DisplayTime,
    live: u32,
}

impl UserDetails {
    fn new(user: &User, live: u32, now: UnixMillis) -> Self {
        Self {
            login: user.login.to_string(),
            href: format!("/console/people/{}", paths::encode_query(user.login.as_str().as_bytes())),
            roles: user.roles.iter().map(Role::as_str).collect(),
            disabled: user.disabled_at.map(|at| DisplayTime::new(at, now)),
            made: DisplayTime::new(user.created_at, now),
            live,
        }
    }
}

#[derive(Template)]
#[template(path = "people.html")]
struct UserListPage {
    frame: PageFrame,
    rows: Vec<UserDetails>,
    attention: Vec<TokenWarning>,
    next: Option<String>,
    first: bool,
}

/// Shows the users.
pub(super) async fn list(caller: ConsoleCaller, Query(asked): Query<UserListQuery>) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Users);
    let after: Option<Login> =
        asked.after.as_deref().map(str::parse).transpose().map_err(|_| ConsoleError::NotFound)?;
    let looker = TokenReader::new(&caller);
    let looks_up = caller.has_role(Role::AuthenticationLookup);
    let (tokens, who, now) = (caller.state.tokens.clone(), caller.authority(), caller.state.auth.now());
    in_turn(caller.light(), move || {
        let page = tokens.users(&who, after.as_ref(), USERS_PER_PAGE)?;
        let mut rows = Vec::new();
        for user in &page.items {
            rows.push(UserDetails::new(user, tokens.count_live_tokens(&who, &user.login)?, now));
        }
        let attention = if looks_up && after.is_none() { token_warnings(&looker, None)? } else { Vec::new() };
        let next =
            page.next.map(|next| format!("/console/people?after={}", paths::encode_query(next.as_str().as_bytes())));
        render_page(StatusCode::OK, &UserListPage { frame, rows, attention, next, first: after.is_none() })
    })
    .await
}

#[derive(Template)]
#[template(path = "person.html")]
struct UserPage {
    frame: PageFrame,
    person: UserDetails,
    grants: Vec<NodePermissionRow>,
    dangles: bool,
    roles: Vec<(&'static str, bool)>,
    own: bool,
    looks_up: bool,
    fault: Option<String>,
}

/// Reads the login of an address.
///
/// # Errors
/// [`ConsoleError::NotFound`].
fn parse_login(text: &str) -> Result<Login> {
    text.parse().map_err(|_| ConsoleError::NotFound)
}

/// Shows a user.
pub(super) async fn show(caller: ConsoleCaller, Path(text): Path<String>) -> Result<Response> {
    user_page(&caller, parse_login(&text)?, None).await
}

/// Shows a user, with what was wrong with a form of this page.
async fn user_page(caller: &ConsoleCaller, login: Login, fault: Option<ConsoleError>) -> Result<Response> {
    let frame = PageFrame::new(caller, ConsoleSection::Users);
    let own = login == *caller.session().login();
    let given: Vec<Role> = Role::ALL.into_iter().filter(|role| caller.has_role(*role)).collect();
    let looks_up = caller.has_role(Role::AuthenticationLookup) || own;
    let (tokens, who, now) = (caller.state.tokens.clone(), caller.authority(), caller.state.auth.now());
    in_turn(caller.light(), move || {
        let user = tokens.user(&who, &login)?;
        let grants: Vec<NodePermissionRow> = tokens.grants(&who, &login)?.iter().map(NodePermissionRow::new).collect();
        let held: Vec<Role> = user.roles.iter().collect();
        let offered = Role::ALL.into_iter().filter(|role| given.contains(role) || held.contains(role));
        let page = UserPage {
            frame,
            person: UserDetails::new(&user, tokens.count_live_tokens(&who, &login)?, now),
            dangles: grants.iter().any(|grant| grant.dangles),
            grants,
            roles: offered.map(|role| (role.as_str(), held.contains(&role))).collect(),
            own,
            looks_up,
            fault: fault.as_ref().map(ConsoleError::public_message),
        };
        render_page(fault.map_or(StatusCode::OK, |fault| fault.status()), &page)
    })
    .await
}
