//! Making a token.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::super::blocking::in_turn;
use super::super::browser_sessions::random_token;
use super::super::error::{ConsoleError, Result};
use super::super::guard::{ConsoleCaller, FormFields, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::super::paths;
use super::created;
use super::form::{self, DURATION_UNITS, ScopeLine};
use crate::domain::{Permission, Role, TreePath};
use crate::tokens::TokenRequest;
use crate::tree::View;

/// What the address of the form asks for.
#[derive(Deserialize)]
pub(in super::super) struct CreateTokenQuery {
    folder: Option<String>,
    owner: Option<String>,
}

#[derive(Template)]
#[template(path = "token_new.html")]
struct CreateTokenPage {
    frame: PageFrame,
    fault: Option<String>,
    fields: FormFields,
    lines: Vec<ScopeLine>,
    once: String,
    for_others: bool,
    owner: String,
    roles: Vec<&'static str>,
    units: [(&'static str, &'static str); 6],
}

impl CreateTokenPage {
    fn new(caller: &ConsoleCaller, fields: FormFields, lines: Vec<ScopeLine>, fault: Option<String>) -> Result<Self> {
        let own = caller.session().login().to_string();
        Ok(Self {
            frame: PageFrame::new(caller, ConsoleSection::Tokens),
            fault,
            lines,
            once: random_token()?,
            for_others: caller.has_role(Role::GenerateTokens),
            owner: fields.text("owner").map_or(own, str::to_owned),
            roles: Role::ALL.into_iter().filter(|role| caller.has_role(*role)).map(Role::as_str).collect(),
            units: DURATION_UNITS,
            fields,
        })
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.values(name).any(|chosen| chosen == value)
    }

    fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or_default()
    }

    fn or<'a>(&'a self, name: &'a str, default: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or(default)
    }

    fn limited(&self) -> bool {
        ["protocol", "ips", "user_agents", "mimes", "tags", "max_file_size"]
            .iter()
            .any(|name| self.fields.text(name).is_some())
    }
}

/// Asks for a new token.
pub(in super::super) async fn create_form(
    caller: ConsoleCaller,
    Query(asked): Query<CreateTokenQuery>,
) -> Result<Response> {
    let view = caller.view();
    let folder = asked.folder.as_deref().map(paths::decode).transpose()?;
    let lines = in_turn(caller.light(), move || folder.map(|folder| scope_line(&view, &folder)).transpose()).await?;
    let fields = FormFields::from(asked.owner.map(|owner| ("owner".to_owned(), owner)).into_iter().collect::<Vec<_>>());
    render_page(
        StatusCode::OK,
        &CreateTokenPage::new(&caller, fields, ScopeLine::pad_with_empty(lines.into_iter().collect()), None)?,
    )
}

/// Returns the line for a folder: its path, or its node where the path is no text.
fn scope_line(view: &View, folder: &TreePath) -> Result<ScopeLine> {
    let permission = view.stat(folder)?.permission;
    let permission = if permission == Permission::NONE { "rw".to_owned() } else { permission.to_string() };
    let place = match std::str::from_utf8(folder.as_bytes()) {
        Ok(text) => format!("/{text}"),
        Err(_) => format!("node:{}", view.node_id(folder)?),
    };
    Ok(ScopeLine { place, permission })
}

fn token_request(caller: &ConsoleCaller, fields: &FormFields) -> Result<TokenRequest> {
    let owner = fields.parse("owner")?.unwrap_or_else(|| caller.session().login().clone());
    let (lifetime, window) = form::parse_expiration(fields)?;
    Ok(TokenRequest {
        name: fields.parse("name")?,
        description: fields.parse("description")?.unwrap_or_default(),
        lifetime,
        window,
        scopes: form::parse_scopes(fields)?,
        limits: form::parse_limits(fields)?,
        roles: form::parse_roles(fields)?,
        ..TokenRequest::new(owner)
    })
}

/// Makes a token, and shows its secret for the one time.
pub(in super::super) async fn create(sent: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = sent;
    let issued = match token_request(&caller, &fields) {
        Err(fault) => Err(fault),
        Ok(request) => {
            let once = fields.text("once").unwrap_or_default();
            let mut form = caller.browser_session.start_submission(once).ok_or(ConsoleError::AlreadySubmitted)?;
            let issued = caller.state.tokens.issue_queued(caller.authority(), request, || form.accept()).await;
            issued.map_err(ConsoleError::from)
        }
    };
    match issued {
        Ok(issued) => created::secret_page(&caller, &issued.text, &issued.record, created::SecretReason::Created),
        Err(fault) if fault.status() == StatusCode::INTERNAL_SERVER_ERROR => Err(fault),
        Err(fault) => {
            let lines = ScopeLine::from_fields(&fields);
            render_page(fault.status(), &CreateTokenPage::new(&caller, fields, lines, Some(fault.public_message()))?)
        }
    }
}
