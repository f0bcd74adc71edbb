//! Users: the list, and one user with its grants and roles.

mod edit;

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

pub(super) use edit::{confirm_delete, create, create_form, delete, update};

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::format::{DisplaySize, DisplayTime};
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use super::tokens::{NodePermissionRow, TokenReader, TokenWarning, token_warnings};
use crate::domain::{ByteSize, Login, Role, StorageUsage, UnixMillis};
use crate::store::User;
use crate::tokens::UserProfile;

/// Number of users on a page.
const USERS_PER_PAGE: usize = 50;

/// Query parameters of the list.
#[derive(Deserialize)]
pub(super) struct UserListQuery {
    after: Option<String>,
}

/// A user as a page shows it.
struct UserDetails {
    login: String,
    href: String,
    roles: Vec<&'static str>,
    disabled: Option<DisplayTime>,
    created: DisplayTime,
    live_tokens: u32,
}

impl UserDetails {
    fn new(user: &User, live_tokens: u32, now: UnixMillis) -> Self {
        Self {
            login: user.login.to_string(),
            href: format!("/console/people/{}", paths::encode_query(user.login.as_str().as_bytes())),
            roles: user.roles.iter().map(Role::as_str).collect(),
            disabled: user.disabled_at.map(|at| DisplayTime::new(at, now)),
            created: DisplayTime::new(user.created_at, now),
            live_tokens,
        }
    }
}

#[derive(Template)]
#[template(path = "users.html")]
struct UserListPage {
    frame: PageFrame,
    rows: Vec<UserDetails>,
    warnings: Vec<TokenWarning>,
    next_page: Option<String>,
    is_first_page: bool,
}

/// Lists the users.
pub(super) async fn list(caller: ConsoleCaller, Query(params): Query<UserListQuery>) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Users);
    let after: Option<Login> =
        params.after.as_deref().map(str::parse).transpose().map_err(|_| ConsoleError::NotFound)?;
    let reader = TokenReader::new(&caller);
    let looks_up = caller.has_role(Role::AuthenticationLookup);
    let (tokens, principal, now) = (caller.state.tokens.clone(), caller.principal(), caller.state.auth.now());
    run_with_permit(caller.light_permit(), move || {
        let page = tokens.users(&principal, after.as_ref(), USERS_PER_PAGE)?;
        let mut rows = Vec::new();
        for user in &page.items {
            rows.push(UserDetails::new(user, tokens.count_live_tokens(&principal, &user.login)?, now));
        }
        let warnings = if looks_up && after.is_none() { token_warnings(&reader, None)? } else { Vec::new() };
        let next_page =
            page.next.map(|login| format!("/console/people?after={}", paths::encode_query(login.as_str().as_bytes())));
        render_page(StatusCode::OK, &UserListPage { frame, rows, warnings, next_page, is_first_page: after.is_none() })
    })
    .await
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    frame: PageFrame,
    user: UserDetails,
    grants: Vec<NodePermissionRow>,
    dangling: bool,
    roles: Vec<(&'static str, bool)>,
    is_own: bool,
    looks_up: bool,
    /// Use of the storage quota in words; `None` without one.
    storage: Option<String>,
    quota: String,
    error: Option<String>,
}

/// Returns the use of a storage quota in words.
fn storage_text(quota: ByteSize, usage: StorageUsage, now: UnixMillis) -> String {
    let count = match (usage.recount_bytes, usage.counted_at) {
        (Some(bytes), _) => format!("being counted, {} so far", DisplaySize(bytes)),
        (None, Some(at)) => format!("counted {}", DisplayTime::new(at, now).words),
        (None, None) => "to be counted".to_owned(),
    };
    format!("{} of {quota} used, {count}.", DisplaySize(usage.used))
}

/// Parses the login in a URL.
///
/// # Errors
/// [`ConsoleError::NotFound`].
fn parse_login(login_text: &str) -> Result<Login> {
    login_text.parse().map_err(|_| ConsoleError::NotFound)
}

/// Shows a user.
pub(super) async fn show(caller: ConsoleCaller, Path(login_text): Path<String>) -> Result<Response> {
    user_page(&caller, parse_login(&login_text)?, None).await
}

/// Shows a user, with the error of a form of this page.
async fn user_page(caller: &ConsoleCaller, login: Login, error: Option<ConsoleError>) -> Result<Response> {
    let frame = PageFrame::new(caller, ConsoleSection::Users);
    let is_own = login == *caller.session().login();
    let assignable: Vec<Role> = Role::ALL.into_iter().filter(|role| caller.has_role(*role)).collect();
    let looks_up = caller.has_role(Role::AuthenticationLookup) || is_own;
    let (tokens, principal, now) = (caller.state.tokens.clone(), caller.principal(), caller.state.auth.now());
    run_with_permit(caller.light_permit(), move || {
        let UserProfile { user, grants, live_tokens, storage } = tokens.profile(&principal, &login)?;
        let grants: Vec<NodePermissionRow> = grants.iter().map(NodePermissionRow::new).collect();
        let held: Vec<Role> = user.roles.iter().collect();
        let offered = Role::ALL.into_iter().filter(|role| assignable.contains(role) || held.contains(role));
        let page = UserPage {
            frame,
            user: UserDetails::new(&user, live_tokens, now),
            storage: user.quota.zip(storage).map(|(quota, usage)| storage_text(quota, usage, now)),
            quota: user.quota.map(|quota| quota.to_string()).unwrap_or_default(),
            dangling: grants.iter().any(|grant| grant.dangling),
            grants,
            roles: offered.map(|role| (role.as_str(), held.contains(&role))).collect(),
            is_own,
            looks_up,
            error: error.as_ref().map(ConsoleError::public_message),
        };
        render_page(error.map_or(StatusCode::OK, |error| error.status()), &page)
    })
    .await
}
