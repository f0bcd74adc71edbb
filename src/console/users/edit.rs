//! Making a user, and whatever is changed about one.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::blocking::in_turn;
use super::super::error::{ConsoleError, Result};
use super::super::guard::{ConsoleCaller, FormFields, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::super::paths;
use super::super::tokens::form;
use super::{parse_login, user_page};
use crate::domain::{Login, Role, ScopeTarget};
use crate::tokens::{Error, Grant, GrantTarget, HomeOption, Principal, TokenService, UserRequest};

#[derive(Template)]
#[template(path = "person_new.html")]
struct CreateUserPage {
    frame: PageFrame,
    fault: Option<String>,
    login: String,
    home: bool,
    lines: Vec<form::ScopeLine>,
    roles: Vec<(&'static str, bool)>,
}

impl CreateUserPage {
    fn new(caller: &ConsoleCaller, fields: &FormFields, fault: Option<String>) -> Self {
        let chosen = |role: Role| fields.values("role").any(|chosen| chosen == role.as_str());
        let offered = Role::ALL.into_iter().filter(|role| caller.has_role(*role));
        Self {
            frame: PageFrame::new(caller, ConsoleSection::Users),
            login: fields.text("login").unwrap_or_default().to_owned(),
            home: fault.is_none() || fields.text("home").is_some(),
            lines: form::ScopeLine::from_fields(fields),
            roles: offered.map(|role| (role.as_str(), chosen(role))).collect(),
            fault,
        }
    }
}

#[derive(Template)]
#[template(path = "person_delete.html")]
struct DeleteUserPage {
    frame: PageFrame,
    login: String,
    href: String,
}

/// Asks for a new user.
pub(in super::super) async fn create_form(caller: ConsoleCaller) -> Result<Response> {
    render_page(StatusCode::OK, &CreateUserPage::new(&caller, &FormFields::default(), None))
}

fn user_request(fields: &FormFields) -> Result<UserRequest> {
    let login: Option<Login> = fields.parse("login")?;
    let grants = form::parse_scopes(fields)?.unwrap_or_default().into_iter().map(path_grant).collect::<Result<_>>()?;
    Ok(UserRequest {
        login: login.ok_or_else(|| ConsoleError::InvalidForm("give a login".to_owned()))?,
        roles: form::parse_roles(fields)?,
        grants,
        home: if fields.text("home").is_some() { HomeOption::Create } else { HomeOption::Skip },
    })
}

fn path_grant(target: ScopeTarget) -> Result<Grant> {
    match target {
        ScopeTarget::Path(path, permission) => Ok(Grant { path, permission }),
        ScopeTarget::Node(_) => Err(ConsoleError::InvalidForm("give the path of a folder or file".to_owned())),
    }
}

/// Makes a user.
pub(in super::super) async fn create(sent: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = sent;
    let made = match user_request(&fields) {
        Err(fault) => Err(fault),
        Ok(request) => {
            let (tokens, who) = (caller.state.tokens.clone(), caller.authority());
            in_turn(caller.light(), move || {
                tokens.create_user(&who, &request)?;
                Ok(request.login)
            })
            .await
        }
    };
    match made {
        Ok(login) => Ok(redirect_to_user(&login)),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => render_page(fault.status(), &CreateUserPage::new(&caller, &fields, Some(fault.public_message()))),
    }
}

/// Asks whether a user is to be deleted.
pub(in super::super) async fn confirm_delete(caller: ConsoleCaller, Path(text): Path<String>) -> Result<Response> {
    let login = parse_login(&text)?;
    let (tokens, who, asked) = (caller.state.tokens.clone(), caller.authority(), login.clone());
    in_turn(caller.light(), move || Ok(tokens.user(&who, &asked)?)).await?;
    let href = paths::encode_query(login.as_str().as_bytes());
    render_page(
        StatusCode::OK,
        &DeleteUserPage { frame: PageFrame::new(&caller, ConsoleSection::Users), login: login.to_string(), href },
    )
}

/// Deletes a user.
pub(in super::super) async fn delete(Path(text): Path<String>, sent: SubmittedForm) -> Result<Response> {
    let login = parse_login(&text)?;
    let (tokens, who) = (sent.caller.state.tokens.clone(), sent.caller.authority());
    in_turn(sent.caller.revoking(), move || Ok(tokens.delete_user(&who, &login)?)).await?;
    Ok(Redirect::to("/console/people").into_response())
}

/// Changes something about a user: grants, roles, whether it may come in.
pub(in super::super) async fn update(
    Path((text, what)): Path<(String, String)>,
    sent: SubmittedForm,
) -> Result<Response> {
    let SubmittedForm { caller, fields } = sent;
    let login = parse_login(&text)?;
    let (tokens, who, asked) = (caller.state.tokens.clone(), caller.authority(), login.clone());
    match in_turn(caller.revoking(), move || apply_action(&tokens, &who, &asked, &what, &fields)).await {
        Ok(()) => Ok(redirect_to_user(&login)),
        Err(ConsoleError::NotFound) => Err(ConsoleError::NotFound),
        Err(ConsoleError::Tokens(error @ (Error::UnknownUser(_) | Error::SessionEnded))) => Err(error.into()),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => user_page(&caller, login, Some(fault)).await,
    }
}

fn apply_action(tokens: &TokenService, who: &Principal, login: &Login, what: &str, fields: &FormFields) -> Result<()> {
    match what {
        "grant" => {
            let targets = form::parse_scopes(fields)?
                .ok_or_else(|| ConsoleError::InvalidForm("give the path of a folder or file".into()))?;
            for target in targets {
                tokens.grant(who, login, &path_grant(target)?)?;
            }
        }
        "revoke-grant" => {
            let node = fields.parse("node")?.ok_or(ConsoleError::NotFound)?;
            tokens.revoke_grant(who, login, &GrantTarget::Node(node))?;
        }
        "roles" => tokens.set_roles(who, login, &form::parse_roles(fields)?)?,
        "disable" => tokens.disable_user(who, login)?,
        "enable" => tokens.enable_user(who, login)?,
        _ => return Err(ConsoleError::NotFound),
    }
    Ok(())
}

fn redirect_to_user(login: &Login) -> Response {
    Redirect::to(&format!("/console/people/{}", paths::encode_query(login.as_str().as_bytes()))).into_response()
}
