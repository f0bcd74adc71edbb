//! Making a token.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::super::fault::{Fault, Result, in_turn};
use super::super::guard::{Caller, Fields, Sent};
use super::super::page::{Frame, Part, render};
use super::super::place;
use super::super::visits::draw;
use super::form::{self, Line, UNITS};
use super::made;
use crate::domain::{Permission, Role, TreePath};
use crate::tokens::TokenRequest;
use crate::tree::View;

/// What the address of the form asks for.
#[derive(Deserialize)]
pub(in super::super) struct Asked {
    folder: Option<String>,
    owner: Option<String>,
}

#[derive(Template)]
#[template(path = "token_new.html")]
struct Page {
    frame: Frame,
    fault: Option<String>,
    fields: Fields,
    lines: Vec<Line>,
    once: String,
    for_others: bool,
    owner: String,
    roles: Vec<&'static str>,
    units: [(&'static str, &'static str); 6],
}

impl Page {
    fn new(caller: &Caller, fields: Fields, lines: Vec<Line>, fault: Option<String>) -> Result<Self> {
        let own = caller.session().login().to_string();
        Ok(Self {
            frame: Frame::new(caller, Part::Tokens),
            fault,
            lines,
            once: draw()?,
            for_others: caller.has(Role::GenerateTokens),
            owner: fields.text("owner").map_or(own, str::to_owned),
            roles: Role::ALL.into_iter().filter(|role| caller.has(*role)).map(Role::as_str).collect(),
            units: UNITS,
            fields,
        })
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|chosen| chosen == value)
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
pub(in super::super) async fn ask(caller: Caller, Query(asked): Query<Asked>) -> Result<Response> {
    let view = caller.view();
    let folder = asked.folder.as_deref().map(place::decode).transpose()?;
    let lines = in_turn(caller.light(), move || folder.map(|folder| line(&view, &folder)).transpose()).await?;
    let fields = Fields::from(asked.owner.map(|owner| ("owner".to_owned(), owner)).into_iter().collect::<Vec<_>>());
    render(StatusCode::OK, &Page::new(&caller, fields, Line::filled(lines.into_iter().collect()), None)?)
}

/// Returns the line for a folder: its path, or its node where the path is no text.
fn line(view: &View, folder: &TreePath) -> Result<Line> {
    let permission = view.stat(folder)?.permission;
    let permission = if permission == Permission::NONE { "rw".to_owned() } else { permission.to_string() };
    let place = match std::str::from_utf8(folder.as_bytes()) {
        Ok(text) => format!("/{text}"),
        Err(_) => format!("node:{}", view.node_id(folder)?),
    };
    Ok(Line { place, permission })
}

fn request(caller: &Caller, fields: &Fields) -> Result<TokenRequest> {
    let owner = fields.read("owner")?.unwrap_or_else(|| caller.session().login().clone());
    let (lifetime, window) = form::expiry(fields)?;
    Ok(TokenRequest {
        name: fields.read("name")?,
        description: fields.read("description")?.unwrap_or_default(),
        lifetime,
        window,
        scopes: form::scopes(fields)?,
        limits: form::limits(fields)?,
        roles: form::roles(fields)?,
        ..TokenRequest::new(owner)
    })
}

/// Makes a token, and shows its secret for the one time.
pub(in super::super) async fn make(sent: Sent) -> Result<Response> {
    let Sent { caller, fields } = sent;
    let issued = match request(&caller, &fields) {
        Err(fault) => Err(fault),
        Ok(request) => {
            let once = fields.text("once").unwrap_or_default();
            let mut form = caller.visit.first(once).ok_or(Fault::SentBefore)?;
            let issued = caller.shared.tokens.issue_queued(caller.authority(), request, || form.is_done()).await;
            issued.map_err(Fault::from)
        }
    };
    match issued {
        Ok(issued) => made::page(&caller, &issued.text, &issued.record, made::Birth::New),
        Err(fault) if fault.status() == StatusCode::INTERNAL_SERVER_ERROR => Err(fault),
        Err(fault) => {
            let lines = Line::of(&fields);
            render(fault.status(), &Page::new(&caller, fields, lines, Some(fault.told()))?)
        }
    }
}
