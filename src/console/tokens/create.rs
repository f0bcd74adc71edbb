//! Creates a token.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::super::blocking::run_with_permit;
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

/// Query parameters of the form.
#[derive(Deserialize)]
pub(in super::super) struct CreateTokenQuery {
    folder: Option<String>,
    owner: Option<String>,
}

#[derive(Template)]
#[template(path = "token_create.html")]
struct CreateTokenPage {
    frame: PageFrame,
    error: Option<String>,
    fields: FormFields,
    scope_lines: Vec<ScopeLine>,
    form_id: String,
    for_others: bool,
    owner: String,
    roles: Vec<&'static str>,
    units: [(&'static str, &'static str); 6],
}

impl CreateTokenPage {
    fn new(
        caller: &ConsoleCaller,
        fields: FormFields,
        scope_lines: Vec<ScopeLine>,
        error: Option<String>,
    ) -> Result<Self> {
        let own = caller.session().login().to_string();
        Ok(Self {
            frame: PageFrame::new(caller, ConsoleSection::Tokens),
            error,
            scope_lines,
            form_id: random_token()?,
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
        ["protocol", "ips", "user_agents", "mimes", "tags", "max_file_size", "quota"]
            .iter()
            .any(|name| self.fields.text(name).is_some())
    }
}

/// Shows the form for a new token.
pub(in super::super) async fn create_form(
    caller: ConsoleCaller,
    Query(params): Query<CreateTokenQuery>,
) -> Result<Response> {
    let view = caller.view();
    let directory = params.folder.as_deref().map(paths::decode).transpose()?;
    let scope_lines = run_with_permit(caller.light_permit(), move || {
        directory.map(|directory| scope_line(&view, &directory)).transpose()
    })
    .await?;
    let fields =
        FormFields::from(params.owner.map(|owner| ("owner".to_owned(), owner)).into_iter().collect::<Vec<_>>());
    render_page(
        StatusCode::OK,
        &CreateTokenPage::new(&caller, fields, ScopeLine::pad_with_empty(scope_lines.into_iter().collect()), None)?,
    )
}

/// Returns the scope line of a folder: its path, or its node if the path is not UTF-8.
fn scope_line(view: &View, directory: &TreePath) -> Result<ScopeLine> {
    let permission = view.stat(directory)?.permission;
    let permission = if permission == Permission::NONE { "rw".to_owned() } else { permission.to_string() };
    let target = match std::str::from_utf8(directory.as_bytes()) {
        Ok(text) => format!("/{text}"),
        Err(_) => format!("node:{}", view.node_id(directory)?),
    };
    Ok(ScopeLine { target, permission })
}

fn token_request(fields: &FormFields) -> Result<TokenRequest> {
    let (lifetime, window) = form::parse_expiration(fields)?;
    Ok(TokenRequest {
        owner: fields.parse("owner")?,
        name: fields.parse("name")?,
        description: fields.parse("description")?,
        lifetime: Some(lifetime),
        window,
        scopes: form::parse_scopes(fields)?,
        limits: form::parse_limits(fields)?,
        roles: form::parse_roles(fields)?,
        ssh_key: fields.parse("ssh_key")?,
        ..TokenRequest::default()
    })
}

/// Creates a token and shows its secret, once.
pub(in super::super) async fn create(submitted: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = submitted;
    let result = match token_request(&fields) {
        Err(error) => Err(error),
        Ok(request) => {
            let form_id = fields.text("once").unwrap_or_default();
            // A form that is submitted twice (double click, reload, back button) must not create a second token that
            // nobody knows of.
            let mut submission =
                caller.browser_session.start_submission(form_id).ok_or(ConsoleError::AlreadySubmitted)?;
            let result = caller.state.tokens.issue_queued(caller.principal(), request, || submission.accept()).await;
            result.map_err(ConsoleError::from)
        }
    };
    match result {
        Ok(issued) => {
            created::created_page(&caller, issued.text.as_ref(), &issued.record, created::SecretReason::Created)
        }
        // Any other error shows the form again, with what was typed and a new form id.
        Err(error) if error.status() == StatusCode::INTERNAL_SERVER_ERROR => Err(error),
        Err(error) => {
            let scope_lines = ScopeLine::from_fields(&fields);
            render_page(
                error.status(),
                &CreateTokenPage::new(&caller, fields, scope_lines, Some(error.public_message()))?,
            )
        }
    }
}
