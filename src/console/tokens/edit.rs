//! Changing a token: its name, and whatever makes it narrower.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::blocking::in_turn;
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
#[template(path = "token_change.html")]
struct EditTokenPage {
    frame: PageFrame,
    fault: Option<String>,
    token: TokenDetails,
    name: String,
    description: String,
    version: u64,
    fields: FormFields,
    lines: Vec<ScopeLine>,
    roles: Vec<(&'static str, bool)>,
    units: [(&'static str, &'static str); 6],
    unlimited: bool,
}

impl EditTokenPage {
    fn new(caller: &ConsoleCaller, record: &TokenRecord, fields: FormFields, fault: Option<String>) -> Self {
        let scope = |placed: &crate::store::LocatedScope| ScopeLine {
            place: super::NodePermissionRow::new(placed).place,
            permission: placed.scope.permission.to_string(),
        };
        let lines = if fault.is_some() {
            ScopeLine::from_fields(&fields)
        } else {
            ScopeLine::pad_with_empty(
                record.scopes.iter().flatten().filter(|placed| placed.path.is_some()).map(scope).collect(),
            )
        };
        let kept = |role: Role| fault.is_none() || fields.values("role").any(|kept| kept == role.as_str());
        Self {
            frame: PageFrame::new(caller, ConsoleSection::Tokens),
            token: TokenDetails::new(record, caller.session().token(), &caller.state.auth),
            name: fields.text("name").unwrap_or(&record.name).to_owned(),
            description: fields.text("description").unwrap_or(&record.description).to_owned(),
            version: record.version,
            lines,
            roles: record.roles.iter().map(|role| (role.as_str(), kept(role))).collect(),
            units: DURATION_UNITS,
            unlimited: limit_labels(&record.limits).is_empty(),
            fault,
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

/// Asks for what to change about a token.
pub(in super::super) async fn edit_form(caller: ConsoleCaller, Path(text): Path<String>) -> Result<Response> {
    let record = find_token(&caller, parse_id(&text)?).await?;
    render_page(StatusCode::OK, &EditTokenPage::new(&caller, &record, FormFields::default(), None))
}

fn narrowing(caller: &ConsoleCaller, record: &TokenRecord, fields: &FormFields) -> Result<NarrowRequest> {
    let now = caller.state.auth.now();
    let unchanged = record.scopes.iter().flatten().filter(|placed| placed.path.is_some());
    let unchanged: Vec<_> = unchanged
        .map(|placed| (super::NodePermissionRow::new(placed).place, placed.scope.permission.to_string()))
        .collect();
    let asked: Vec<_> = ScopeLine::from_fields(fields)
        .into_iter()
        .filter(|line| !line.place.is_empty())
        .map(|line| (line.place, line.permission))
        .collect();
    Ok(NarrowRequest {
        name: fields.parse("name")?,
        description: Some(fields.parse("description")?.unwrap_or_default()),
        // What was left as it was is not asked for again: a scope that dangles stays with the others.
        scopes: if asked == unchanged { None } else { form::parse_scopes(fields)? },
        limits: form::parse_limits(fields)?,
        roles: if record.roles.is_empty() { None } else { Some(form::parse_roles(fields)?) },
        expires_at: form::parse_duration(fields, "life")?.map(|life| now.saturating_add(life.as_duration())),
    })
}

/// Changes a token.
pub(in super::super) async fn update(Path(text): Path<String>, sent: SubmittedForm) -> Result<Response> {
    let SubmittedForm { caller, fields } = sent;
    let id = parse_id(&text)?;
    let record = find_token(&caller, id).await?;
    let version = fields.parse("version")?;
    let changed = match narrowing(&caller, &record, &fields) {
        Err(fault) => Err(fault),
        Ok(narrowing) => {
            let (tokens, who) = (caller.state.tokens.clone(), caller.authority());
            in_turn(caller.revoking(), move || Ok(tokens.narrow(&who, id, &narrowing, version)?)).await
        }
    };
    match changed {
        Ok(_) => Ok(Redirect::to(&format!("/console/tokens/{id}")).into_response()),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => {
            render_page(fault.status(), &EditTokenPage::new(&caller, &record, fields, Some(fault.public_message())))
        }
    }
}
