//! Making a user, and whatever is changed about one.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::fault::{Fault, Result, in_turn};
use super::super::guard::{Caller, Fields, Sent};
use super::super::page::{Frame, Part, render};
use super::super::place;
use super::super::tokens::form;
use super::{login, page};
use crate::domain::{Login, Role, ScopeTarget};
use crate::tokens::{Error, Grant, GrantTarget, HomeOption, Principal, TokenService, UserRequest};

#[derive(Template)]
#[template(path = "person_new.html")]
struct NewPage {
    frame: Frame,
    fault: Option<String>,
    login: String,
    home: bool,
    lines: Vec<form::Line>,
    roles: Vec<(&'static str, bool)>,
}

impl NewPage {
    fn new(caller: &Caller, fields: &Fields, fault: Option<String>) -> Self {
        let chosen = |role: Role| fields.all("role").any(|chosen| chosen == role.as_str());
        let offered = Role::ALL.into_iter().filter(|role| caller.has(*role));
        Self {
            frame: Frame::new(caller, Part::People),
            login: fields.text("login").unwrap_or_default().to_owned(),
            home: fault.is_none() || fields.text("home").is_some(),
            lines: form::Line::of(fields),
            roles: offered.map(|role| (role.as_str(), chosen(role))).collect(),
            fault,
        }
    }
}

#[derive(Template)]
#[template(path = "person_delete.html")]
struct DeletePage {
    frame: Frame,
    login: String,
    href: String,
}

/// Asks for a new user.
pub(in super::super) async fn ask_new(caller: Caller) -> Result<Response> {
    render(StatusCode::OK, &NewPage::new(&caller, &Fields::default(), None))
}

fn request(fields: &Fields) -> Result<UserRequest> {
    let login: Option<Login> = fields.read("login")?;
    let grants = form::scopes(fields)?.unwrap_or_default().into_iter().map(grant).collect::<Result<_>>()?;
    Ok(UserRequest {
        login: login.ok_or_else(|| Fault::Form("give a login".to_owned()))?,
        roles: form::roles(fields)?,
        grants,
        home: if fields.text("home").is_some() { HomeOption::Create } else { HomeOption::Skip },
    })
}

fn grant(target: ScopeTarget) -> Result<Grant> {
    match target {
        ScopeTarget::Path(path, permission) => Ok(Grant { path, permission }),
        ScopeTarget::Node(_) => Err(Fault::Form("give the path of a folder or file".to_owned())),
    }
}

/// Makes a user.
pub(in super::super) async fn make(sent: Sent) -> Result<Response> {
    let Sent { caller, fields } = sent;
    let made = match request(&fields) {
        Err(fault) => Err(fault),
        Ok(request) => {
            let (tokens, who) = (caller.shared.tokens.clone(), caller.authority());
            in_turn(caller.light(), move || {
                tokens.create_user(&who, &request)?;
                Ok(request.login)
            })
            .await
        }
    };
    match made {
        Ok(login) => Ok(at(&login)),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => render(fault.status(), &NewPage::new(&caller, &fields, Some(fault.told()))),
    }
}

/// Asks whether a user is to be deleted.
pub(in super::super) async fn ask_delete(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    let login = login(&text)?;
    let (tokens, who, asked) = (caller.shared.tokens.clone(), caller.authority(), login.clone());
    in_turn(caller.light(), move || Ok(tokens.user(&who, &asked)?)).await?;
    let href = place::query(login.as_str().as_bytes());
    render(StatusCode::OK, &DeletePage { frame: Frame::new(&caller, Part::People), login: login.to_string(), href })
}

/// Deletes a user.
pub(in super::super) async fn delete(Path(text): Path<String>, sent: Sent) -> Result<Response> {
    let login = login(&text)?;
    let (tokens, who) = (sent.caller.shared.tokens.clone(), sent.caller.authority());
    in_turn(sent.caller.revoking(), move || Ok(tokens.delete_user(&who, &login)?)).await?;
    Ok(Redirect::to("/console/people").into_response())
}

/// Changes something about a user: grants, roles, whether it may come in.
pub(in super::super) async fn act(Path((text, what)): Path<(String, String)>, sent: Sent) -> Result<Response> {
    let Sent { caller, fields } = sent;
    let login = login(&text)?;
    let (tokens, who, asked) = (caller.shared.tokens.clone(), caller.authority(), login.clone());
    match in_turn(caller.revoking(), move || done(&tokens, &who, &asked, &what, &fields)).await {
        Ok(()) => Ok(at(&login)),
        Err(Fault::Nothing) => Err(Fault::Nothing),
        Err(Fault::Tokens(error @ (Error::UnknownUser(_) | Error::SessionEnded))) => Err(error.into()),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => page(&caller, login, Some(fault)).await,
    }
}

fn done(tokens: &TokenService, who: &Principal, login: &Login, what: &str, fields: &Fields) -> Result<()> {
    match what {
        "grant" => {
            let targets =
                form::scopes(fields)?.ok_or_else(|| Fault::Form("give the path of a folder or file".into()))?;
            for target in targets {
                tokens.grant(who, login, &grant(target)?)?;
            }
        }
        "revoke-grant" => {
            let node = fields.read("node")?.ok_or(Fault::Nothing)?;
            tokens.revoke_grant(who, login, &GrantTarget::Node(node))?;
        }
        "roles" => tokens.set_roles(who, login, &form::roles(fields)?)?,
        "disable" => tokens.disable_user(who, login)?,
        "enable" => tokens.enable_user(who, login)?,
        _ => return Err(Fault::Nothing),
    }
    Ok(())
}

fn at(login: &Login) -> Response {
    Redirect::to(&format!("/console/people/{}", place::query(login.as_str().as_bytes()))).into_response()
}
