//! Changes the name of a token, and narrows it.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::blocking::run_with_permit;
use super::super::error::Result;
use super::super::guard::{ConsoleCaller, FormFields, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::detail::{find_token, parse_id};
use super::form::{self, DURATION_UNITS, ScopeLine};
use super::{TokenDetails, limit_labels};
use crate::domain::Role;
use crate::store::TokenRecord;
use crate::tokens::NarrowRequest;

#[derive(Template)]
#[template(path = "token_edit.html")]
struct EditTokenPage {
    frame: PageFrame,
    error: Option<String>,
    token: TokenDetails,
    name: String,
    description: String,
    version: u64,
    fields: FormFields,
    scope_lines: Vec<ScopeLine>,
    roles: Vec<(&'static str, bool)>,
    units: [(&'static str, &'static str); 6],
    unlimited: bool,
}

impl EditTokenPage {
    fn new(caller: &ConsoleCaller, record: &TokenRecord, fields: FormFields, error: Option<String>) -> Self {
        let scope_line = |located: &crate::store::LocatedScope| ScopeLine {
            target: super::NodePermissionRow::new(located).target,
            permission: located.permission.to_string(),
        };
        let scope_lines = if error.is_some() {
            ScopeLine::from_fields(&fields)
        } else {
            ScopeLine::pad_with_empty(
                record.scopes.iter().flatten().filter(|located| located.path.is_some()).map(scope_line).collect(),
            )
        };
        let is_kept = |role: Role| error.is_none() || fields.values("role").any(|kept| kept == role.as_str());
        Self {
            frame: PageFrame::new(caller, ConsoleSection::Tokens),
            token: TokenDetails::new(record, caller.session().token(), &caller.state.auth),
            name: fields.text("name").unwrap_or(&record.name).to_owned(),
            description: fields.text("description").unwrap_or(&record.description).to_owned(),
            // Sent along with the form, so that a change that somebody else made meanwhile is reported and not
            // overwritten.
            version: record.version,
            scope_lines,
            roles: record.roles.iter().map(|role| (role.as_str(), is_kept(role))).collect(),
            units: DURATION_UNITS,
            unlimited: limit_labels(&record.limits).is_empty(),
            error,
            fields,
        }
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.values(name).any(|chosen| chosen == value)
    }

    fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or_default()
    }
}

/// Shows the form for changes of a token.
pub(in super::super) async fn edit_form(caller: ConsoleCaller, Path(id_text): Path<String>) -> Result<Response> {
    let record = find_token(&caller, parse_id(&id_text)?).await?;
    render_page(StatusCode::OK, &EditTokenPage::new(&caller, &record, FormFields::default(), None))
}

fn narrowing(caller: &ConsoleCaller, record: &TokenRecord, fields: &FormFields) -> Result<NarrowRequest> {
    let now = caller.state.auth.now();
    let unchanged = record.scopes.iter().flatten().filter(|located| located.path.is_some());
    let unchanged: Vec<_> = unchanged
        .map(|located| (super::NodePermissionRow::new(located).target, located.permission.to_string()))
        .collect();
    let requested: Vec<_> = ScopeLine::from_fields(fields)
        .into_iter()
        .filter(|line| !line.target.is_empty())
        .map(|line| (line.target, line.permission))
        .collect();
    Ok(NarrowRequest {
        name: fields.parse("name")?,
        description: Some(fields.parse("description")?.unwrap_or_default()),
        // Scopes that the user left unchanged are not requested again: the form does not show dangling ones, which
        // would get lost.
        scopes: if requested == unchanged { None } else { form::parse_scopes(fields)? },
        limits: form::parse_limits(fields)?,
        roles: if record.roles.is_empty() { None } else { Some(form::parse_roles(fields)?) },
        expires_at: form::parse_duration(fields, "life")?
            .map(|expires_in| now.saturating_add(expires_in.as_duration())),
    })
}

/// Applies the changes.
pub(in super::super) async fn update(Path(id_text): Path<String>, submitted: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = submitted;
    let id = parse_id(&id_text)?;
    let record = find_token(&caller, id).await?;
    let version = fields.parse("version")?;
    let result = match narrowing(&caller, &record, &fields) {
        Err(error) => Err(error),
        Ok(narrowing) => {
            let (tokens, principal) = (caller.state.tokens.clone(), caller.principal());
            run_with_permit(caller.revocation_permit(), move || Ok(tokens.narrow(&principal, id, &narrowing, version)?))
                .await
        }
    };
    match result {
        Ok(_) => Ok(Redirect::to(&format!("/console/tokens/{id}")).into_response()),
        Err(error) if error.status().is_server_error() => Err(error),
        Err(error) => {
            render_page(error.status(), &EditTokenPage::new(&caller, &record, fields, Some(error.public_message())))
        }
    }
}
