//! Changing a token: its name, and whatever makes it narrower.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::fault::{Result, in_turn};
use super::super::guard::{Caller, Fields, Sent};
use super::super::page::{Frame, Part, render};
use super::form::{self, Line, UNITS};
use super::one::{find, id};
use super::{Shown, limits};
use crate::domain::Role;
use crate::store::TokenRecord;
use crate::tokens::NarrowRequest;

#[derive(Template)]
#[template(path = "token_change.html")]
struct Page {
    frame: Frame,
    fault: Option<String>,
    token: Shown,
    name: String,
    description: String,
    version: u64,
    fields: Fields,
    lines: Vec<Line>,
    roles: Vec<(&'static str, bool)>,
    units: [(&'static str, &'static str); 6],
    unlimited: bool,
}

impl Page {
    fn new(caller: &Caller, record: &TokenRecord, fields: Fields, fault: Option<String>) -> Self {
        let scope = |placed: &crate::store::LocatedScope| Line {
            place: super::Reach::new(placed).place,
            permission: placed.scope.permission.to_string(),
        };
        let lines = if fault.is_some() {
            Line::of(&fields)
        } else {
            Line::filled(record.scopes.iter().flatten().filter(|placed| placed.path.is_some()).map(scope).collect())
        };
        let kept = |role: Role| fault.is_none() || fields.all("role").any(|kept| kept == role.as_str());
        Self {
            frame: Frame::new(caller, Part::Tokens),
            token: Shown::new(record, caller.session().token(), &caller.shared.auth),
            name: fields.text("name").unwrap_or(&record.name).to_owned(),
            description: fields.text("description").unwrap_or(&record.description).to_owned(),
            version: record.version,
            lines,
            roles: record.roles.iter().map(|role| (role.as_str(), kept(role))).collect(),
            units: UNITS,
            unlimited: limits(&record.limits).is_empty(),
            fault,
            fields,
        }
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|chosen| chosen == value)
    }

    fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or_default()
    }
}

/// Asks for what to change about a token.
pub(in super::super) async fn ask_change(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    let record = find(&caller, id(&text)?).await?;
    render(StatusCode::OK, &Page::new(&caller, &record, Fields::default(), None))
}

fn narrowing(caller: &Caller, record: &TokenRecord, fields: &Fields) -> Result<NarrowRequest> {
    let now = caller.shared.auth.now();
    let unchanged = record.scopes.iter().flatten().filter(|placed| placed.path.is_some());
    let unchanged: Vec<_> =
        unchanged.map(|placed| (super::Reach::new(placed).place, placed.scope.permission.to_string())).collect();
    let asked: Vec<_> = Line::of(fields)
        .into_iter()
        .filter(|line| !line.place.is_empty())
        .map(|line| (line.place, line.permission))
        .collect();
    Ok(NarrowRequest {
        name: fields.read("name")?,
        description: Some(fields.read("description")?.unwrap_or_default()),
        // What was left as it was is not asked for again: a scope that dangles stays with the others.
        scopes: if asked == unchanged { None } else { form::scopes(fields)? },
        limits: form::limits(fields)?,
        roles: if record.roles.is_empty() { None } else { Some(form::roles(fields)?) },
        expires_at: form::span(fields, "life")?.map(|life| now.saturating_add(life.as_duration())),
    })
}

/// Changes a token.
pub(in super::super) async fn change(Path(text): Path<String>, sent: Sent) -> Result<Response> {
    let Sent { caller, fields } = sent;
    let id = id(&text)?;
    let record = find(&caller, id).await?;
    let version = fields.read("version")?;
    let changed = match narrowing(&caller, &record, &fields) {
        Err(fault) => Err(fault),
        Ok(narrowing) => {
            let (tokens, who) = (caller.shared.tokens.clone(), caller.authority());
            in_turn(caller.revoking(), move || Ok(tokens.narrow(&who, id, &narrowing, version)?)).await
        }
    };
    match changed {
        Ok(_) => Ok(Redirect::to(&format!("/console/tokens/{id}")).into_response()),
        Err(fault) if fault.status().is_server_error() => Err(fault),
        Err(fault) => render(fault.status(), &Page::new(&caller, &record, fields, Some(fault.told()))),
    }
}
