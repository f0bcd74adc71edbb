//! Why a page can't be shown or a form not be done, and, as the very last step, the page that says so.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, Uri};

use super::assets::{ASSET_URLS, AssetUrls};
use super::layout::{PageFrame, render_page};
use super::paths;
use crate::auth::{AuthError, TooMuchWork, WorkPermit};
use crate::domain::redact_tokens_in_text;
use crate::http::set_retry_after;
use crate::store::{ClientStoreError, StoreError};
use crate::tree::View;
use crate::{tokens, tree};

/// The result of a page.
pub(super) type Result<T> = std::result::Result<T, ConsoleError>;

/// A refusal, or a fault of what stands behind the page.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    /// No page has that address.
    #[error("No page has this address.")]
    NotFound,
    /// Nobody is signed in, or not any more; `next` is the page to come back to.
    #[error("You are not signed in, or your session has ended.")]
    NotSignedIn {
        /// The page that was asked for.
        next: Option<Uri>,
    },
    /// A link on another site's page led to `next`, for which browsers leave out what tells who is signed in.
    #[error("Follow the link to go on.")]
    CrossSiteLink {
        /// The page that was asked for.
        next: Uri,
    },
    /// The form was sent by another site's page, or by one from before the last sign-in.
    #[error("This form did not come from a page of this session. Go back, reload the page, and try again.")]
    CrossSite,
    /// A form that can't be done as it was filled in.
    #[error("{0}")]
    InvalidForm(String),
    /// A form or file that came more slowly than it has to.
    #[error("It came too slowly.")]
    TooSlow,
    /// A form that makes something was sent a second time.
    #[error(
        "This form was sent before, and what it asked for is done. A secret is shown only once: rotate the token if it was lost."
    )]
    AlreadySubmitted,
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// What has to do with tokens and users was refused.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// Nobody was let in.
    #[error(transparent)]
    Authentication(#[from] AuthError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The caller has as much work waiting as may wait.
    #[error(transparent)]
    TooMuchWork(#[from] TooMuchWork),
    /// Work was lost inside the server.
    #[error("work was lost inside the server")]
    Internal,
}

/// Answers an address that no page has, or that only forms are sent to.
pub(super) async fn not_found() -> ConsoleError {
    ConsoleError::NotFound
}

/// Runs work that blocks where blocking is allowed: the blocks of a file, one at a time for each connection.
///
/// # Errors
/// What the work says; [`ConsoleError::Internal`] when it panicked.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConsoleError::Internal))
}

/// Runs work that blocks in a turn of the caller's. Nothing of it is begun for a caller who has hung up while he waited.
///
/// # Errors
/// As [`run_blocking`]; [`ConsoleError::TooMuchWork`].
pub(super) async fn in_turn<T: Send + 'static>(
    turn: impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let turn = turn.await?;
    run_blocking(move || {
        // Until the work has ended, also where nobody waits for it any more.
        let _turn = turn;
        work()
    })
    .await
}

/// Runs work on the tree that keeps a processor busy for long, likewise; it is cancelled when the connection goes.
///
/// # Errors
/// As [`in_turn`].
pub(super) async fn on_tree<T: Send + 'static>(
    view: View,
    work: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    let session = view.session().clone();
    let gone = view.cancellation().cancel_on_drop();
    let done = in_turn(async move { session.acquire_work_permit().await }, move || work(&view)).await;
    gone.disarm();
    done
}

/// What a page says of a fault: set as an extension of a response, which becomes that page.
#[derive(Clone, Debug)]
pub(super) struct ErrorMessage {
    title: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "fault.html")]
struct ErrorPage {
    frame: PageFrame,
    said: ErrorMessage,
}

/// The page for one who is not signed in.
#[derive(Template)]
#[template(path = "fault_alone.html")]
struct SignedOutErrorPage {
    assets: &'static AssetUrls,
    said: ErrorMessage,
}

#[derive(Template)]
#[template(path = "elsewhere.html")]
struct CrossSiteLinkPage {
    assets: &'static AssetUrls,
    next: String,
}

impl ErrorMessage {
    /// Writes the page, with what stands around the pages of one who is signed in.
    pub(super) fn into_page(self, status: StatusCode, frame: Option<PageFrame>) -> Response {
        let page = match frame {
            Some(frame) => render_page(status, &ErrorPage { frame, said: self }),
            None => render_page(status, &SignedOutErrorPage { assets: &ASSET_URLS, said: self }),
        };
        page.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

impl ConsoleError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            ConsoleError::NotFound => StatusCode::NOT_FOUND,
            ConsoleError::NotSignedIn { .. } => StatusCode::UNAUTHORIZED,
            ConsoleError::CrossSiteLink { .. } => StatusCode::OK,
            ConsoleError::CrossSite => StatusCode::FORBIDDEN,
            ConsoleError::InvalidForm(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ConsoleError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ConsoleError::AlreadySubmitted => StatusCode::CONFLICT,
            ConsoleError::Tree(error) => tree_error_status(error),
            ConsoleError::Tokens(error) => token_error_status(error),
            ConsoleError::Authentication(AuthError::Denied) => StatusCode::UNAUTHORIZED,
            ConsoleError::Authentication(AuthError::Throttled(_)) => StatusCode::TOO_MANY_REQUESTS,
            ConsoleError::Authentication(AuthError::Busy | AuthError::TooManyConnections)
            | ConsoleError::TooMuchWork(_) => StatusCode::SERVICE_UNAVAILABLE,
            ConsoleError::Authentication(AuthError::Store(error)) | ConsoleError::Store(error) => {
                store_error_status(error)
            }
            ConsoleError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns what the caller is told; what is for the log alone is not.
    pub(super) fn public_message(&self) -> String {
        match self {
            _ if self.status() == StatusCode::INTERNAL_SERVER_ERROR => {
                "The server has a fault. Its log says more.".to_owned()
            }
            ConsoleError::Tokens(error @ tokens::Error::OutsideAccess { reach, .. }) if !reach.is_empty() => {
                to_sentence(&format!("{error}: that is {}", reach.join(", ")))
            }
            other => to_sentence(
                &other.store_shortage().map_or_else(|| other.to_string(), |short| short.message().to_owned()),
            ),
        }
    }

    /// Returns what the store is short of, where that is why.
    fn store_shortage(&self) -> Option<ClientStoreError> {
        match self {
            ConsoleError::Authentication(AuthError::Store(error))
            | ConsoleError::Store(error)
            | ConsoleError::Tokens(tokens::Error::Store(error) | tokens::Error::Tree(tree::Error::Store(error)))
            | ConsoleError::Tree(tree::Error::Store(error)) => error.client_error(),
            _ => None,
        }
    }

    fn title(&self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "Nothing is here",
            StatusCode::UNAUTHORIZED => "Sign in first",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::TOO_MANY_REQUESTS => "Too many attempts",
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => "The server can’t do that now",
            _ => "That can’t be done",
        }
    }
}

fn tree_error_status(error: &tree::Error) -> StatusCode {
    match error {
        tree::Error::Absent | tree::Error::NoParent => StatusCode::NOT_FOUND,
        tree::Error::Forbidden => StatusCode::FORBIDDEN,
        tree::Error::AlreadyExists
        | tree::Error::NotADirectory
        | tree::Error::IsADirectory
        | tree::Error::DirectoryNotEmpty
        | tree::Error::Overlap
        | tree::Error::Unsupported => StatusCode::CONFLICT,
        tree::Error::TypeNotAllowed(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        tree::Error::TagNotAllowed(_) => StatusCode::FORBIDDEN,
        tree::Error::Locked { .. } => StatusCode::LOCKED,
        tree::Error::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        tree::Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        tree::Error::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        tree::Error::TooManyOpenFiles => StatusCode::SERVICE_UNAVAILABLE,
        tree::Error::InvalidName | tree::Error::WriteFailed | tree::Error::PathTooLong => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        tree::Error::Replaced | tree::Error::Superseded | tree::Error::UploadInProgress => StatusCode::CONFLICT,
        tree::Error::WrongOpenMode => StatusCode::FORBIDDEN,
        tree::Error::SessionEnded(_) => StatusCode::UNAUTHORIZED,
        tree::Error::Unavailable(_) | tree::Error::TreeMismatch => StatusCode::SERVICE_UNAVAILABLE,
        tree::Error::Store(error) => store_error_status(error),
        tree::Error::Filesystem(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn store_error_status(error: &StoreError) -> StatusCode {
    match error.client_error() {
        Some(ClientStoreError::InsufficientStorage(_)) => StatusCode::INSUFFICIENT_STORAGE,
        Some(ClientStoreError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn token_error_status(error: &tokens::Error) -> StatusCode {
    use tokens::Error;
    match error {
        Error::UnknownUser(_) | Error::UnknownToken(_) | Error::GrantNotFound { .. } => StatusCode::NOT_FOUND,
        Error::Forbidden(_) | Error::RestrictedToken => StatusCode::FORBIDDEN,
        Error::SessionEnded => StatusCode::UNAUTHORIZED,
        Error::UserExists(_) | Error::VersionConflict(_) | Error::TokenInactive(..) => StatusCode::CONFLICT,
        Error::UserDisabled(_)
        | Error::RoleNotHeld { .. }
        | Error::ExceedsParent(_)
        | Error::ExceedsCaller(_)
        | Error::WidensToken(_)
        | Error::ExtendsLifetime(..)
        | Error::OutlivesParent { .. }
        | Error::ExpiresInPast(_)
        | Error::EmptyScopes
        | Error::ChainTooLong(_)
        | Error::GraceTooLong(_)
        | Error::UnknownNode(_)
        | Error::PathNotFound(_)
        | Error::UnsupportedNodeType(_)
        | Error::NoServedRoot
        | Error::HomeNotDirectory(_)
        | Error::OutsideAccess { .. }
        | Error::Policy(_)
        | Error::WindowWithoutExpiration
        | Error::Label(_)
        | Error::InvalidSetting(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Error::Store(error) => store_error_status(error),
        Error::Tree(error) => tree_error_status(error),
        Error::TaskPanicked => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Writes what the rooms say as a sentence.
fn to_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        if let ConsoleError::NotSignedIn { next: Some(next) } = &self {
            let path = next.path_and_query().map_or("", |path| path.as_str());
            return Redirect::to(&format!("/console/sign-in?next={}", paths::encode_query(path.as_bytes())))
                .into_response();
        }
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
        let text = redact_tokens_in_text(&self.public_message()).into_owned();
        response.extensions_mut().insert(ErrorMessage { title: self.title(), text });
        response
    }
}
