//! What stands around every page.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::ConsoleState;
use super::assets::{ASSET_URLS, AssetUrls};
use super::browser_sessions::BrowserSession;
use super::error::{ConsoleError, Result};
use super::format::DisplayTime;
use super::guard::ConsoleCaller;
use crate::domain::Role;

/// The parts of the console, in the order in which they are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsoleSection {
    /// Tokens.
    Tokens,
    /// Files.
    Files,
    /// Open sessions.
    Sessions,
    /// Which rule decides.
    Explain,
    /// Users.
    Users,
    /// The policy.
    Policy,
    /// The audit trail.
    Audit,
}

/// A link to a part of the console.
pub(super) struct NavigationLink {
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
pub(super) struct PageFrame {
    /// What pages load.
    pub(super) assets: &'static AssetUrls,
    /// Who is signed in.
    pub(super) login: String,
    /// With which token.
    pub(super) token: String,
    /// When that dies unless it is used before.
    pub(super) ends: DisplayTime,
    /// What forms carry.
    pub(super) csrf: String,
    /// The parts of the console that the caller is offered.
    pub(super) links: Vec<NavigationLink>,
}

impl PageFrame {
    /// Frames a page.
    pub(super) fn new(caller: &ConsoleCaller, part: ConsoleSection) -> Self {
        Self::for_browser_session(&caller.state, &caller.browser_session, Some(part))
    }

    /// Frames a page of a visit that belongs to a part of the console, or to none.
    pub(super) fn for_browser_session(
        shared: &ConsoleState,
        visit: &BrowserSession,
        part: Option<ConsoleSection>,
    ) -> Self {
        let session = visit.session();
        let has = |role: Role| session.roles().is_ok_and(|roles| roles.includes(role));
        let kept = [
            (ConsoleSection::Users, Role::ManageUsers),
            (ConsoleSection::Policy, Role::ManagePolicy),
            (ConsoleSection::Audit, Role::ReadAudit),
        ];
        let kept = kept.into_iter().filter(|(_, role)| has(*role)).map(|(own, _)| own);
        let own = [ConsoleSection::Tokens, ConsoleSection::Files, ConsoleSection::Sessions, ConsoleSection::Explain];
        let link = |(at, own_part): (usize, ConsoleSection)| {
            let (href, text, icon) = own_part.navigation();
            NavigationLink { href, text, icon, gap: at == own.len(), here: Some(own_part) == part }
        };
        Self {
            assets: &ASSET_URLS,
            login: session.login().to_string(),
            token: session.token().to_string(),
            ends: DisplayTime::new(session.deadline(), shared.auth.now()),
            csrf: visit.csrf_token().to_owned(),
            links: own.into_iter().chain(kept).enumerate().map(link).collect(),
        }
    }
}

impl ConsoleSection {
    /// Returns where it is, what it is called, and its icon.
    fn navigation(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ConsoleSection::Tokens => ("/console/tokens", "Tokens", include_str!("templates/icons/key.svg")),
            ConsoleSection::Files => ("/console/files", "Files", include_str!("templates/icons/folder.svg")),
            ConsoleSection::Sessions => ("/console/sessions", "Sessions", include_str!("templates/icons/live.svg")),
            ConsoleSection::Explain => ("/console/explain", "Explain", include_str!("templates/icons/explain.svg")),
            ConsoleSection::Users => ("/console/people", "People", include_str!("templates/icons/people.svg")),
            ConsoleSection::Policy => ("/console/policy", "Policy", include_str!("templates/icons/policy.svg")),
            ConsoleSection::Audit => ("/console/audit", "Audit", include_str!("templates/icons/audit.svg")),
        }
    }
}

/// Answers with a page.
///
/// # Errors
/// [`ConsoleError::Internal`] when it can't be written.
pub(super) fn render_page(status: StatusCode, page: &impl Template) -> Result<Response> {
    let text = page.render().map_err(|_| ConsoleError::Internal)?;
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}
