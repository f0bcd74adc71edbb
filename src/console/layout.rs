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
    pub(super) starts_group: bool,
    /// Whether the page belongs to it.
    pub(super) is_current: bool,
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
    pub(super) expires: DisplayTime,
    /// What forms carry.
    pub(super) csrf: String,
    /// The parts of the console that the caller is offered.
    pub(super) links: Vec<NavigationLink>,
}

impl PageFrame {
    /// Frames a page.
    pub(super) fn new(caller: &ConsoleCaller, section: ConsoleSection) -> Self {
        Self::for_browser_session(&caller.state, &caller.browser_session, Some(section))
    }

    /// Frames a page of a visit that belongs to a part of the console, or to none.
    pub(super) fn for_browser_session(
        state: &ConsoleState,
        browser_session: &BrowserSession,
        section: Option<ConsoleSection>,
    ) -> Self {
        let session = browser_session.session();
        let has_role = |role: Role| session.roles().is_ok_and(|roles| roles.includes(role));
        let sections_by_role = [
            (ConsoleSection::Users, Role::ManageUsers),
            (ConsoleSection::Policy, Role::ManagePolicy),
            (ConsoleSection::Audit, Role::ReadAudit),
        ];
        let sections_by_role =
            sections_by_role.into_iter().filter(|(_, role)| has_role(*role)).map(|(section, _)| section);
        let sections_of_everybody =
            [ConsoleSection::Tokens, ConsoleSection::Files, ConsoleSection::Sessions, ConsoleSection::Explain];
        let link = |(index, linked): (usize, ConsoleSection)| {
            let (href, text, icon) = linked.navigation();
            NavigationLink {
                href,
                text,
                icon,
                starts_group: index == sections_of_everybody.len(),
                is_current: Some(linked) == section,
            }
        };
        Self {
            assets: &ASSET_URLS,
            login: session.login().to_string(),
            token: session.token().to_string(),
            expires: DisplayTime::new(session.deadline(), state.auth.now()),
            csrf: browser_session.csrf_token().to_owned(),
            links: sections_of_everybody.into_iter().chain(sections_by_role).enumerate().map(link).collect(),
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
            ConsoleSection::Users => ("/console/people", "People", include_str!("templates/icons/users.svg")),
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
