//! The frame of every page: navigation, session and assets.

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

/// Sections of the console, in the order of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsoleSection {
    /// Tokens.
    Tokens,
    /// Files.
    Files,
    /// Open sessions.
    Sessions,
    /// The page that explains access decisions.
    Explain,
    /// Users.
    Users,
    /// The policy.
    Policy,
    /// Banned addresses.
    Bans,
    /// The audit trail.
    Audit,
}

/// A link of the navigation.
pub(super) struct NavigationLink {
    /// URL of the section.
    pub(super) href: &'static str,
    /// Label.
    pub(super) text: &'static str,
    /// Its icon, as SVG.
    pub(super) icon: &'static str,
    /// Whether it starts a group.
    pub(super) starts_group: bool,
    /// Whether the page belongs to this section.
    pub(super) is_current: bool,
}

/// The frame of a page for a caller who is signed in.
pub(super) struct PageFrame {
    /// URLs of the assets.
    pub(super) assets: &'static AssetUrls,
    /// Login of the caller.
    pub(super) login: String,
    /// Id of the token that the caller signed in with.
    pub(super) token: String,
    /// Expiration of that token, unless its sliding window moves.
    pub(super) expires: DisplayTime,
    /// CSRF token of the forms.
    pub(super) csrf: String,
    /// Sections that the caller's roles open.
    pub(super) links: Vec<NavigationLink>,
}

impl PageFrame {
    /// Returns the frame of a page in a section.
    pub(super) fn new(caller: &ConsoleCaller, section: ConsoleSection) -> Self {
        Self::for_browser_session(&caller.state, &caller.browser_session, Some(section))
    }

    /// Returns the frame of a page for a browser session, in a section or in none.
    pub(super) fn for_browser_session(
        state: &ConsoleState,
        browser_session: &BrowserSession,
        section: Option<ConsoleSection>,
    ) -> Self {
        let session = browser_session.session();
        let has_role = |role: Role| session.roles().is_ok_and(|roles| roles.includes(role));
        // Hides links that would lead to a refusal; the pages themselves are authorized by `tokens` whatever is shown
        // here.
        let sections_by_role = [
            (ConsoleSection::Users, Role::ManageUsers),
            (ConsoleSection::Policy, Role::ManagePolicy),
            (ConsoleSection::Bans, Role::ManagePolicy),
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
    /// Returns URL, label and icon of the section.
    fn navigation(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ConsoleSection::Tokens => ("/console/tokens", "Tokens", include_str!("templates/icons/key.svg")),
            ConsoleSection::Files => ("/console/files", "Files", include_str!("templates/icons/folder.svg")),
            ConsoleSection::Sessions => ("/console/sessions", "Sessions", include_str!("templates/icons/live.svg")),
            ConsoleSection::Explain => ("/console/explain", "Explain", include_str!("templates/icons/explain.svg")),
            ConsoleSection::Users => ("/console/people", "Users", include_str!("templates/icons/users.svg")),
            ConsoleSection::Policy => ("/console/policy", "Policy", include_str!("templates/icons/policy.svg")),
            ConsoleSection::Bans => ("/console/bans", "Bans", include_str!("templates/icons/ban.svg")),
            ConsoleSection::Audit => ("/console/audit", "Audit", include_str!("templates/icons/audit.svg")),
        }
    }
}

/// Renders a page as a response.
///
/// # Errors
/// [`ConsoleError::Internal`] when the template fails.
pub(super) fn render_page(status: StatusCode, page: &impl Template) -> Result<Response> {
    let text = page.render().map_err(|_| ConsoleError::Internal)?;
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}
