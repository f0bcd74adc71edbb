//! Reasons why a page can't be shown or a form not be carried out, each with its status and message. [`super::error_page`]
//! renders them.

use http::{StatusCode, Uri};

use crate::auth::{AuthError, TooMuchWork};
use crate::store::{ClientStoreError, StoreError};
use crate::{tokens, tree};

/// The result of a handler.
pub(super) type Result<T> = std::result::Result<T, ConsoleError>;

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    /// No page has this URL.
    #[error("There is no page at this address.")]
    NotFound,
    /// The request has no valid browser session; `next` is the page to return to after sign-in.
    #[error("You are not signed in, or your session has ended.")]
    NotSignedIn {
        /// The requested page.
        next: Option<Uri>,
    },
    /// A link on another site led to `next`, so that the browser did not send the `SameSite=Strict` cookie.
    #[error("Follow the link to continue.")]
    CrossSiteLink {
        /// The requested page.
        next: Uri,
    },
    /// The form was sent by a page of another site or of another browser session.
    #[error("This form did not come from a page of this session. Go back, reload the page, and try again.")]
    CrossSite,
    /// The form has a missing or invalid value.
    #[error("{0}")]
    InvalidForm(String),
    /// The request body arrived too slowly.
    #[error("The data arrived too slowly. Try again.")]
    TooSlow,
    /// A form that creates a secret was submitted a second time.
    #[error(
        "This form was already submitted and carried out. A secret is shown only once: rotate the token if it was lost."
    )]
    AlreadySubmitted,
    /// The tree refused the operation.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The management of tokens and users refused the operation.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// Authentication failed.
    #[error(transparent)]
    Authentication(#[from] AuthError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The caller's queue of work is full.
    #[error(transparent)]
    TooMuchWork(#[from] TooMuchWork),
    /// A task panicked, or a template failed.
    #[error("a task of the server failed")]
    Internal,
}

/// Answers an unknown URL, or a method that the URL does not support.
pub(super) async fn not_found() -> ConsoleError {
    ConsoleError::NotFound
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

    /// Returns the message for the user. Details of internal errors are for the log only.
    pub(super) fn public_message(&self) -> String {
        match self {
            // First, for all variants: internal errors name host paths and SQL, which are for the log only.
            _ if self.status() == StatusCode::INTERNAL_SERVER_ERROR => {
                "Internal server error. The server’s log has the details.".to_owned()
            }
            ConsoleError::Tokens(error @ tokens::Error::OutsideAccess { reach, .. }) if !reach.is_empty() => {
                to_sentence(&format!("{error}: that is {}", reach.join(", ")))
            }
            other => to_sentence(
                &other.store_shortage().map_or_else(|| other.to_string(), |short| short.message().to_owned()),
            ),
        }
    }

    /// Returns the shortage of the store that caused the error, if any.
    fn store_shortage(&self) -> Option<ClientStoreError> {
        match self {
            ConsoleError::Authentication(AuthError::Store(error))
            | ConsoleError::Store(error)
            | ConsoleError::Tokens(tokens::Error::Store(error) | tokens::Error::Tree(tree::Error::Store(error)))
            | ConsoleError::Tree(tree::Error::Store(error)) => error.client_error(),
            _ => None,
        }
    }

    /// Returns the heading of the page that reports the error.
    pub(super) fn title(&self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::UNAUTHORIZED => "Sign in first",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::TOO_MANY_REQUESTS => "Too many attempts",
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => "The server can’t do this now",
            _ => "Request refused",
        }
    }
}

fn tree_error_status(error: &tree::Error) -> StatusCode {
    match error {
        // This match and that of token errors list every variant, so that a new error does not compile without a
        // status.
        tree::Error::Absent | tree::Error::NoParent => StatusCode::NOT_FOUND,
        tree::Error::Forbidden | tree::Error::RefusedByHost(_) => StatusCode::FORBIDDEN,
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
        tree::Error::NoSpace | tree::Error::StorageQuotaExceeded { .. } => StatusCode::INSUFFICIENT_STORAGE,
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
        Error::UnknownUser(_) | Error::UnknownToken(_) | Error::UnknownBan(_) | Error::GrantNotFound { .. } => {
            StatusCode::NOT_FOUND
        }
        Error::Forbidden(_) | Error::RestrictedToken => StatusCode::FORBIDDEN,
        Error::SessionEnded => StatusCode::UNAUTHORIZED,
        Error::UserExists(_) | Error::VersionConflict(_) | Error::TokenInactive(..) => StatusCode::CONFLICT,
        Error::OwnerMissing
        | Error::LifetimeAndExpiration
        | Error::UserDisabled(_)
        | Error::RoleNotHeld { .. }
        | Error::ExceedsParent(_)
        | Error::ExceedsCaller(_)
        | Error::WidensToken(_)
        | Error::ExtendsLifetime(..)
        | Error::OutlivesParent { .. }
        | Error::ExpiresInPast(_)
        | Error::EmptyScopes
        | Error::ChainTooLong(_)
        | Error::SshKeyInUse(_)
        | Error::SshKeyMissing(_)
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
        | Error::InvalidBan(_)
        | Error::InvalidSetting(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Error::Store(error) => store_error_status(error),
        Error::Tree(error) => tree_error_status(error),
        Error::TaskPanicked => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Turns the message of another module into a sentence.
pub(super) fn to_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}
