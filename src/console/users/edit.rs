//! Creates, changes and deletes users.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::blocking::run_with_permit;
use super::super::error::{ConsoleError, Result};
use super::super::guard::{ConsoleCaller, FormFields, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::super::paths;
use super::super::tokens::form;
use super::{parse_login, user_page};
use crate::domain::{Login, Role, ScopeTarget};
use crate::tokens::{Error, Grant, GrantTarget, HomeOption, Principal, TokenService, UserRequest};

#[derive(Template)]
#[template(path = "user_create.html")]
struct CreateUserPage {
    frame: PageFrame,
    error: Option<String>,
    login: String,
    home: bool,
    quota: String,
    scope_lines: Vec<form::ScopeLine>,
    roles: Vec<(&'static str, bool)>,
}

impl CreateUserPage {
    fn new(caller: &ConsoleCaller, fields: &FormFields, error: Option<String>) -> Self {
        let is_chosen = |role: Role| fields.values("role").any(|chosen| chosen == role.as_str());
        let offered = Role::ALL.into_iter().filter(|role| caller.has_role(*role));
        Self {
            frame: PageFrame::new(caller, ConsoleSection::Users),
            login: fields.text("login").unwrap_or_default().to_owned(),
            quota: fields.text("quota").unwrap_or_default().to_owned(),
            home: error.is_none() || fields.text("home").is_some(),
            scope_lines: form::ScopeLine::from_fields(fields),
            roles: offered.map(|role| (role.as_str(), is_chosen(role))).collect(),
            error,
        }
    }
}

#[derive(Template)]
#[template(path = "user_delete.html")]
struct DeleteUserPage {
    frame: PageFrame,
    login: String,
    href: String,
}

/// Shows the form for a new user.
pub(in super::super) async fn create_form(caller: ConsoleCaller) -> Result<Response> {
    render_page(StatusCode::OK, &CreateUserPage::new(&caller, &FormFields::default(), None))
}

fn user_request(fields: &FormFields) -> Result<UserRequest> {
    let login: Option<Login> = fields.parse("login")?;
    let grants = form::parse_scopes(fields)?.unwrap_or_default().into_iter().map(path_grant).collect::<Result<_>>()?;
    Ok(UserRequest {
        login: login.ok_or_else(|| ConsoleError::InvalidForm("enter a login".to_owned()))?,
        roles: form::parse_roles(fields)?,
        grants,
        quota: fields.parse("quota")?,
        home: if fields.text("home").is_some() { HomeOption::Create } else { HomeOption::Skip },
    })
}

fn path_grant(target: ScopeTarget) -> Result<Grant> {
    match target {
        ScopeTarget::Path(path, permission) => Ok(Grant { path, permission }),
        ScopeTarget::Node(_) => Err(ConsoleError::InvalidForm("enter the path of a folder or file".to_owned())),
    }
}

/// Creates a user.
pub(in super::super) async fn create(submitted: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = submitted;
    let result = match user_request(&fields) {
        Err(error) => Err(error),
        Ok(request) => {
            let (tokens, principal) = (caller.state.tokens.clone(), caller.principal());
            run_with_permit(caller.light_permit(), move || {
                tokens.create_user(&principal, &request)?;
                Ok(request.login)
            })
            .await
        }
    };
    match result {
        Ok(login) => Ok(redirect_to_user(&login)),
        Err(error) if error.status().is_server_error() => Err(error),
        Err(error) => render_page(error.status(), &CreateUserPage::new(&caller, &fields, Some(error.public_message()))),
    }
}

/// Asks for confirmation before a user is deleted.
pub(in super::super) async fn confirm_delete(
    caller: ConsoleCaller,
    Path(login_text): Path<String>,
) -> Result<Response> {
    let login = parse_login(&login_text)?;
    let (tokens, principal, target_login) = (caller.state.tokens.clone(), caller.principal(), login.clone());
    run_with_permit(caller.light_permit(), move || Ok(tokens.user(&principal, &target_login)?)).await?;
    let href = paths::encode_query(login.as_str().as_bytes());
    render_page(
        StatusCode::OK,
        &DeleteUserPage { frame: PageFrame::new(&caller, ConsoleSection::Users), login: login.to_string(), href },
    )
}

/// Deletes a user.
pub(in super::super) async fn delete(Path(login_text): Path<String>, submitted: SubmittedForm) -> Result<Response> {
    let login = parse_login(&login_text)?;
    let (tokens, principal) = (submitted.caller.state.tokens.clone(), submitted.caller.principal());
    run_with_permit(submitted.caller.revocation_permit(), move || Ok(tokens.delete_user(&principal, &login)?)).await?;
    Ok(Redirect::to("/console/people").into_response())
}

/// Changes a user: adds or removes a grant, sets its roles, disables or enables it.
pub(in super::super) async fn update(
    Path((login_text, action)): Path<(String, String)>,
    submitted: SubmittedForm,
) -> Result<Response> {
    let SubmittedForm { caller, fields } = submitted;
    let login = parse_login(&login_text)?;
    let (tokens, principal, target_login) = (caller.state.tokens.clone(), caller.principal(), login.clone());
    match run_with_permit(caller.revocation_permit(), move || {
        apply_action(&tokens, &principal, &target_login, &action, &fields)
    })
    .await
    {
        Ok(()) => Ok(redirect_to_user(&login)),
        // These errors leave no user to show the form of.
        Err(ConsoleError::NotFound) => Err(ConsoleError::NotFound),
        Err(ConsoleError::Tokens(error @ (Error::UnknownUser(_) | Error::SessionEnded))) => Err(error.into()),
        Err(error) if error.status().is_server_error() => Err(error),
        Err(error) => user_page(&caller, login, Some(error)).await,
    }
}

fn apply_action(
    tokens: &TokenService,
    principal: &Principal,
    login: &Login,
    action: &str,
    fields: &FormFields,
) -> Result<()> {
    match action {
        "grant" => {
            let targets = form::parse_scopes(fields)?
                .ok_or_else(|| ConsoleError::InvalidForm("enter the path of a folder or file".into()))?;
            for target in targets {
                tokens.grant(principal, login, &path_grant(target)?)?;
            }
        }
        "revoke-grant" => {
            let node = fields.parse("node")?.ok_or(ConsoleError::NotFound)?;
            tokens.revoke_grant(principal, login, &GrantTarget::Node(node))?;
        }
        "roles" => tokens.set_roles(principal, login, &form::parse_roles(fields)?)?,
        "quota" => tokens.set_quota(principal, login, fields.parse("quota")?)?,
        "disable" => tokens.disable_user(principal, login)?,
        "enable" => tokens.enable_user(principal, login)?,
        _ => return Err(ConsoleError::NotFound),
    }
    Ok(())
}

fn redirect_to_user(login: &Login) -> Response {
    Redirect::to(&format!("/console/people/{}", paths::encode_query(login.as_str().as_bytes()))).into_response()
}
