//! What stands around every page.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::Shared;
use super::assets::{ASSETS, Assets};
use super::fault::{Fault, Result};
use super::guard::Caller;
use super::visits::Visit;
use super::words::Moment;
use crate::domain::Role;

/// The parts of the console, in the order in which they are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Tokens.
    Tokens,
    /// Files.
    Files,
    /// Open sessions.
    Sessions,
    /// Which rule decides.
    Explain,
    /// Users.
    People,
    /// The policy.
    Policy,
    /// The audit trail.
    Audit,
}

/// A link to a part of the console.
pub(super) struct Link {
    /// Where it leads.
    pub(super) href: &'static str,
    /// What it says.
    pub(super) text: &'static str,
    /// Its icon, as SVG.
    pub(super) icon: &'static str,
    /// Whether a new group begins with it.
    pub(super) gap: bool,
    /// Whether the page belongs to it.
    pub(super) here: bool,
}

/// What stands around a page of a caller who is signed in.
pub(super) struct Frame {
    /// What pages load.
    pub(super) assets: &'static Assets,
    /// Who is signed in.
    pub(super) login: String,
    /// With which token.
    pub(super) token: String,
    /// When that dies unless it is used before.
    pub(super) ends: Moment,
    /// What forms carry.
    pub(super) csrf: String,
    /// The parts of the console that the caller is offered.
    pub(super) links: Vec<Link>,
}

impl Frame {
    /// Frames a page.
    pub(super) fn new(caller: &Caller, part: Part) -> Self {
        Self::around(&caller.shared, &caller.visit, Some(part))
    }

    /// Frames a page of a visit that belongs to a part of the console, or to none.
    pub(super) fn around(shared: &Shared, visit: &Visit, part: Option<Part>) -> Self {
        let session = visit.session();
        let has = |role: Role| session.roles().is_ok_and(|roles| roles.includes(role));
        let kept =
            [(Part::People, Role::ManageUsers), (Part::Policy, Role::ManagePolicy), (Part::Audit, Role::ReadAudit)];
        let kept = kept.into_iter().filter(|(_, role)| has(*role)).map(|(own, _)| own);
        let own = [Part::Tokens, Part::Files, Part::Sessions, Part::Explain];
        let link = |(at, own_part): (usize, Part)| {
            let (href, text, icon) = own_part.shown();
            Link { href, text, icon, gap: at == own.len(), here: Some(own_part) == part }
        };
        Self {
            assets: &ASSETS,
            login: session.login().to_string(),
            token: session.token().to_string(),
            ends: Moment::new(session.deadline(), shared.auth.now()),
            csrf: visit.csrf().to_owned(),
            links: own.into_iter().chain(kept).enumerate().map(link).collect(),
        }
    }
}

impl Part {
    /// Returns where it is, what it is called, and its icon.
    fn shown(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Part::Tokens => ("/console/tokens", "Tokens", include_str!("templates/icons/key.svg")),
            Part::Files => ("/console/files", "Files", include_str!("templates/icons/folder.svg")),
            Part::Sessions => ("/console/sessions", "Sessions", include_str!("templates/icons/live.svg")),
            Part::Explain => ("/console/explain", "Explain", include_str!("templates/icons/explain.svg")),
            Part::People => ("/console/people", "People", include_str!("templates/icons/people.svg")),
            Part::Policy => ("/console/policy", "Policy", include_str!("templates/icons/policy.svg")),
            Part::Audit => ("/console/audit", "Audit", include_str!("templates/icons/audit.svg")),
        }
    }
}

/// Answers with a page.
///
/// # Errors
/// [`Fault::Lost`] when it can't be written.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Result<Response> {
    let text = page.render().map_err(|_| Fault::Lost)?;
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}
