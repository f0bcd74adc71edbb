//! People: users, what they may reach and do, and whether they may come in.

mod change;

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

pub(super) use change::{act, ask_delete, ask_new, delete, make};

use super::fault::{Fault, Result, in_turn};
use super::guard::Caller;
use super::page::{Frame, Part, render};
use super::place;
use super::tokens::{Looker, Reach, Warning, warnings};
use super::words::Moment;
use crate::domain::{Login, Role, UnixMillis};
use crate::store::User;

/// Users on a page.
const PAGE: usize = 50;

/// What the address of the list asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    after: Option<String>,
}

/// A user as pages show it.
struct Person {
    login: String,
    href: String,
    roles: Vec<&'static str>,
    disabled: Option<Moment>,
    made: Moment,
    live: u32,
}

impl Person {
    fn new(user: &User, live: u32, now: UnixMillis) -> Self {
        Self {
            login: user.login.to_string(),
            href: format!("/console/people/{}", place::query(user.login.as_str().as_bytes())),
            roles: user.roles.iter().map(Role::as_str).collect(),
            disabled: user.disabled_at.map(|at| Moment::new(at, now)),
            made: Moment::new(user.created_at, now),
            live,
        }
    }
}

#[derive(Template)]
#[template(path = "people.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<Person>,
    attention: Vec<Warning>,
    next: Option<String>,
    first: bool,
}

/// Shows the users.
pub(super) async fn list(caller: Caller, Query(asked): Query<Asked>) -> Result<Response> {
    let frame = Frame::new(&caller, Part::People);
    let after: Option<Login> = asked.after.as_deref().map(str::parse).transpose().map_err(|_| Fault::Nothing)?;
    let looker = Looker::new(&caller);
    let looks_up = caller.has(Role::AuthenticationLookup);
    let (tokens, who, now) = (caller.shared.tokens.clone(), caller.authority(), caller.shared.auth.now());
    in_turn(caller.light(), move || {
        let page = tokens.users(&who, after.as_ref(), PAGE)?;
        let mut rows = Vec::new();
        for user in &page.items {
            rows.push(Person::new(user, tokens.count_live_tokens(&who, &user.login)?, now));
        }
        let attention = if looks_up && after.is_none() { warnings(&looker, None)? } else { Vec::new() };
        let next = page.next.map(|next| format!("/console/people?after={}", place::query(next.as_str().as_bytes())));
        render(StatusCode::OK, &ListPage { frame, rows, attention, next, first: after.is_none() })
    })
    .await
}

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    frame: Frame,
    person: Person,
    grants: Vec<Reach>,
    dangles: bool,
    roles: Vec<(&'static str, bool)>,
    own: bool,
    looks_up: bool,
    fault: Option<String>,
}

/// Reads the login of an address.
///
/// # Errors
/// [`Fault::Nothing`].
fn login(text: &str) -> Result<Login> {
    text.parse().map_err(|_| Fault::Nothing)
}

/// Shows a user.
pub(super) async fn show(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    page(&caller, login(&text)?, None).await
}

/// Shows a user, with what was wrong with a form of this page.
async fn page(caller: &Caller, login: Login, fault: Option<Fault>) -> Result<Response> {
    let frame = Frame::new(caller, Part::People);
    let own = login == *caller.session().login();
    let given: Vec<Role> = Role::ALL.into_iter().filter(|role| caller.has(*role)).collect();
    let looks_up = caller.has(Role::AuthenticationLookup) || own;
    let (tokens, who, now) = (caller.shared.tokens.clone(), caller.authority(), caller.shared.auth.now());
    in_turn(caller.light(), move || {
        let user = tokens.user(&who, &login)?;
        let grants: Vec<Reach> = tokens.grants(&who, &login)?.iter().map(Reach::new).collect();
        let held: Vec<Role> = user.roles.iter().collect();
        let offered = Role::ALL.into_iter().filter(|role| given.contains(role) || held.contains(role));
        let page = PersonPage {
            frame,
            person: Person::new(&user, tokens.count_live_tokens(&who, &login)?, now),
            dangles: grants.iter().any(|grant| grant.dangles),
            grants,
            roles: offered.map(|role| (role.as_str(), held.contains(&role))).collect(),
            own,
            looks_up,
            fault: fault.as_ref().map(Fault::told),
        };
        render(fault.map_or(StatusCode::OK, |fault| fault.status()), &page)
    })
    .await
}
