//! Why a token or user was not made, found or changed.

use crate::domain::{Lifetime, Login, NodeId, PolicyFault, TokenId, TreePath};
use crate::store::{StoreError, TokenState};
use crate::tree;

use super::LabelError;

/// A refusal, or a fault of store or tree. Each text is for the caller, but those of the last two.
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
    Disabled(Login),
    /// No token has that id.
    #[error("there is no token {0}")]
    UnknownToken(TokenId),
    /// The token is not accepted any more.
    #[error("the token {0} is {state} and can't be rotated", state = word(*.1))]
    Dead(TokenId, TokenState),
    /// A grace of more than a day.
    #[error("the old secret may be accepted for 24h at most, not {0}")]
    Grace(Lifetime),
    /// The node was never named, has ended, or something else stands in its place.
    #[error("the node {0} does not exist or has ended")]
    UnknownNode(NodeId),
    /// Nothing is at that path.
    #[error("nothing is at {0}")]
    NoPath(TreePath),
    /// What is at that path can't be named: a symbolic link, or neither file nor folder.
    #[error("{0} is neither a file nor a folder")]
    Unnameable(TreePath),
    /// Scopes were asked for where no folder is served.
    #[error("a scope needs the served folder")]
    NoTree,
    /// Something that is no folder is where the home would be.
    #[error("{0} is no folder: it can't be a home")]
    NoHome(TreePath),
    /// The owner's grants don't cover the scope.
    #[error("the scope {scope} is outside what {login} may reach")]
    OutsideReach {
        /// The scope as it was asked for.
        scope: String,
        /// The owner.
        login: Login,
        /// What the owner may reach, for the hint.
        reach: Vec<String>,
    },
    /// The user has no grant there.
    #[error("{login} has no grant on {place}")]
    NoGrant {
        /// The user.
        login: Login,
        /// The path or node.
        place: String,
    },
    /// More than the policy gives.
    #[error(transparent)]
    Policy(#[from] PolicyFault),
    /// A window beside a life without end.
    #[error("a token that never expires has no sliding window: leave one of the two out")]
    NeverSlides,
    /// A name or description that can't be.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A policy key or value that can't be.
    #[error("{0}")]
    Setting(String),
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
            other => Error::Store(other),
        }
    }
}

/// Turns what the tree says of a path into what the caller is told.
pub(super) fn at(path: &TreePath) -> impl FnOnce(tree::Error) -> Error {
    let path = path.clone();
    move |error| match error {
        tree::Error::Absent | tree::Error::NoParent | tree::Error::NotFolder => Error::NoPath(path),
        tree::Error::Unsupported => Error::Unnameable(path),
        tree::Error::Store(error) => error.into(),
        other => Error::Tree(other),
    }
}

fn word(state: TokenState) -> &'static str {
    match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}
