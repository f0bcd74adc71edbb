//! The page that reports a [`ConsoleError`]: the very last step of a refused request.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::assets::{ASSET_URLS, AssetUrls};
use super::error::ConsoleError;
use super::layout::{PageFrame, render_page};
use super::paths;
use crate::domain::redact_tokens_in_text;
use crate::http::set_retry_after;
use crate::{tokens, tree};

/// Title and text of an error, attached to a response as an extension; [`super::Console::handle`] renders it as a page.
#[derive(Clone, Debug)]
pub(super) struct ErrorMessage {
    title: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: PageFrame,
    message: ErrorMessage,
}

/// The error page for a browser that is not signed in.
#[derive(Template)]
#[template(path = "signed_out_error.html")]
struct SignedOutErrorPage {
    assets: &'static AssetUrls,
    message: ErrorMessage,
}

#[derive(Template)]
#[template(path = "cross_site_link.html")]
struct CrossSiteLinkPage {
    assets: &'static AssetUrls,
    next: String,
}

impl ErrorMessage {
    /// Renders the page, within the frame of a caller who is signed in.
    pub(super) fn into_page(self, status: StatusCode, frame: Option<PageFrame>) -> Response {
        let page = match frame {
            Some(frame) => render_page(status, &ErrorPage { frame, message: self }),
            None => render_page(status, &SignedOutErrorPage { assets: &ASSET_URLS, message: self }),
        };
        page.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        // Only a GET carries `next`; a form whose session has ended gets an error page instead of a redirect that loses
        // its content.
        if let ConsoleError::NotSignedIn { next: Some(next) } = &self {
            let path = next.path_and_query().map_or("", |path| path.as_str());
            return Redirect::to(&format!("/console/sign-in?next={}", paths::encode_query(path.as_bytes())))
                .into_response();
        }
        // The page reloads `next` from our own origin, upon which the browser sends the `SameSite=Strict` cookie.
        if let ConsoleError::CrossSiteLink { next } = &self {
            let next = next.path_and_query().map_or("/console/", |path| path.as_str()).to_owned();
            return render_page(StatusCode::OK, &CrossSiteLinkPage { assets: &ASSET_URLS, next })
                .unwrap_or_else(ConsoleError::into_response);
        }
        let status = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a page of the console failed");
        }
        let mut response = status.into_response();
        if let ConsoleError::Tree(error) | ConsoleError::Tokens(tokens::Error::Tree(error)) = &self
            && error.is_outage()
        {
            set_retry_after(response.headers_mut(), tree::OUTAGE_RETRY_AFTER);
        }
        // A user may have typed a token into a wrong field, and messages quote invalid values.
        let text = redact_tokens_in_text(&self.public_message()).into_owned();
        response.extensions_mut().insert(ErrorMessage { title: self.title(), text });
        response
    }
}
