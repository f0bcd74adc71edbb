//! Why a token or user was not made, found or changed.

use crate::auth::AuthError;
use crate::domain::{ExceedsPrivileges, Lifetime, Login, NodeId, PolicyViolation, Role, TokenId, TreePath, UnixMillis};
use crate::store::{StoreError, TokenState};
use crate::tree;

use super::LabelError;

/// A refusal, or a fault of store or tree. Each text is for the caller, but those of the last three.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody has that login.
    #[error("there is no user {0}")]
    UnknownUser(Login),
    /// Somebody has that login.
    #[error("the user {0} already exists")]
    UserExists(Login),
    /// A token of a disabled user would be dead at birth.
    #[error("the user {0} is disabled")]
    UserDisabled(Login),
    /// No token has that id.
    #[error("there is no token {0}")]
    UnknownToken(TokenId),
    /// The caller may see it, but lacks this role to do what it asked for.
    #[error("this needs the role {0}")]
    Forbidden(Role),
    /// The caller has the role, but with a token that is bound as what it asks for would not be.
    #[error("this needs a token without scopes, limits or parent")]
    RestrictedToken,
    /// The token that asks is dead.
    #[error("the session has ended")]
    SessionEnded,
    /// The owner may not give its tokens that role.
    #[error("the user {login} does not hold the role {role}")]
    RoleNotHeld {
        /// The role that was asked for.
        role: Role,
        /// The owner.
        login: Login,
    },
    /// What is asked for is wider than the token that asks.
    #[error("a token can't be wider than the one it is made with: {0}")]
    ExceedsParent(ExceedsPrivileges),
    /// The token to be rotated is wider than the one that asks.
    #[error("a token is rotated only with one that is at least as wide: {0}")]
    ExceedsCaller(ExceedsPrivileges),
    /// A change would make the token wider.
    #[error("a token can be made narrower only: {0}")]
    WidensToken(ExceedsPrivileges),
    /// A change would make the token live longer.
    #[error("the token {0} dies at {1} at the latest: its life can't be made longer")]
    ExtendsLifetime(TokenId, UnixMillis),
    /// The token is not as the caller has seen it.
    #[error("the token {0} was changed meanwhile")]
    VersionConflict(TokenId),
    /// An end before the beginning.
    #[error("{0} is past")]
    ExpiresInPast(UnixMillis),
    /// A list of scopes with nothing in it.
    #[error("an empty list of scopes reaches nothing: leave it out, or name a node")]
    EmptyScopes,
    /// A lifetime that ends after that of the token that asks.
    #[error(
        "{asked} is longer than the token that it is made with lives, until {until}: {} at most",
        longest.map_or_else(|| "nothing".to_owned(), |longest| longest.to_string())
    )]
    OutlivesParent {
        /// The lifetime, window or instant that was asked for.
        asked: String,
        /// The longest lifetime that is allowed.
        longest: Option<Lifetime>,
        /// When the token that asks expires at the latest.
        until: UnixMillis,
    },
    /// As many tokens as may stand above one another.
    #[error("no more than {0} tokens may stand above one another: make this one with a token further up")]
    ChainTooLong(usize),
    /// The token is not accepted any more.
    #[error("the token {0} is {state} and can't be changed", state = state_name(*.1))]
    TokenInactive(TokenId, TokenState),
    /// A grace of more than a day.
    #[error("the old secret may be accepted for 24h at most, not {0}")]
    GraceTooLong(Lifetime),
    /// The node was never named, has ended, or something else stands in its place.
    #[error("the node {0} does not exist or has ended")]
    UnknownNode(NodeId),
    /// Nothing is at that path.
    #[error("nothing is at {0}")]
    PathNotFound(TreePath),
    /// What is at that path can't be named: a symbolic link, or neither file nor folder.
    #[error("{0} is neither a file nor a folder")]
    UnsupportedNodeType(TreePath),
    /// Scopes, grants or a home were asked for where no folder is served.
    #[error("scopes, grants and homes need the served folder")]
    NoServedRoot,
    /// Something that is no folder is where the home would be.
    #[error("{0} is no folder: it can't be a home")]
    HomeNotDirectory(TreePath),
    /// The owner's grants don't cover the scope.
    #[error("the scope {scope} is outside what {login} may reach")]
    OutsideAccess {
        /// The scope as it was asked for.
        scope: String,
        /// The owner.
        login: Login,
        /// What the owner may reach, for the hint.
        reach: Vec<String>,
    },
    /// The user has no grant there.
    #[error("{login} has no grant on {place}")]
    GrantNotFound {
        /// The user.
        login: Login,
        /// The path or node.
        place: String,
    },
    /// More than the policy gives.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// A window beside a life without end.
    #[error("a token that never expires has no sliding window: leave one of the two out")]
    WindowWithoutExpiration,
    /// A name or description that can't be.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A policy key or value that can't be.
    #[error("{0}")]
    InvalidSetting(String),
    /// As many runs of argon2 as may wait do so.
    #[error("the server is busy: try again")]
    Busy,
    /// Work was lost inside the server.
    #[error("work was lost inside the server")]
    TaskPanicked,
    /// The served folder failed; the text is for the administrator.
    #[error("the served folder failed: {0}")]
    Tree(#[source] tree::Error),
    /// The store failed; the text is for the administrator.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Policy(fault) => Error::Policy(fault),
            StoreError::ChainTooLong(most) => Error::ChainTooLong(most),
            other => Error::Store(other),
        }
    }
}

impl From<AuthError> for Error {
    fn from(refusal: AuthError) -> Self {
        match refusal {
            AuthError::Busy => Error::Busy,
            AuthError::Store(error) => error.into(),
            // Of a secret that is sealed, none of these is said.
            AuthError::Denied | AuthError::Throttled(_) | AuthError::TooManyConnections => Error::SessionEnded,
        }
    }
}

/// Turns what the tree says of a path into what the caller is told.
pub(super) fn path_error(path: &TreePath) -> impl FnOnce(tree::Error) -> Error {
    let path = path.clone();
    move |error| match error {
        tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory => Error::PathNotFound(path),
        tree::Error::Unsupported => Error::UnsupportedNodeType(path),
        tree::Error::Store(error) => error.into(),
        other => Error::Tree(other),
    }
}

fn state_name(state: TokenState) -> &'static str {
    match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}
