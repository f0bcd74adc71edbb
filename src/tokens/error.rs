//! Errors of token and user management.

use crate::auth::AuthError;
use crate::domain::{
    BannedNetwork, ExceedsPrivileges, Lifetime, Login, NodeId, PolicyViolation, Role, TokenId, TreePath, UnixMillis,
};
use crate::store::{StoreError, TokenState};
use crate::tree;

use super::LabelError;

/// A refusal, or an error of store or tree. Each text is for the caller, except for those of the last three.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No user has that login.
    #[error("there is no user {0}")]
    UnknownUser(Login),
    /// A user with that login exists already.
    #[error("the user {0} already exists")]
    UserExists(Login),
    /// The administrator named no owner for a new token.
    #[error("the owner is missing: name one")]
    OwnerMissing,
    /// The owner is disabled, so a new token would not be accepted.
    #[error("the user {0} is disabled")]
    UserDisabled(Login),
    /// No token has that id.
    #[error("there is no token {0}")]
    UnknownToken(TokenId),
    /// The caller lacks the role that the operation needs.
    #[error("this needs the role {0}")]
    Forbidden(Role),
    /// The caller has the role, but with a restricted token, whose bounds the result of the operation would not have.
    #[error("this needs a token without scopes, limits or parent")]
    RestrictedToken,
    /// The calling token is not accepted any more.
    #[error("the session has ended")]
    SessionEnded,
    /// The owner may not give its tokens that role.
    #[error("the user {login} does not hold the role {role}")]
    RoleNotHeld {
        /// The requested role.
        role: Role,
        /// The owner.
        login: Login,
    },
    /// The requested privileges exceed those of the calling token.
    #[error("a token can't have more privileges than its parent: {0}")]
    ExceedsParent(ExceedsPrivileges),
    /// The privileges of the token to be rotated exceed those of the calling token.
    #[error("a token can only be rotated with one that has all of its privileges: {0}")]
    ExceedsCaller(ExceedsPrivileges),
    /// A change would extend the privileges of the token.
    #[error("a token can only be narrowed: {0}")]
    WidensToken(ExceedsPrivileges),
    /// A change would extend the lifetime of the token.
    #[error("the token {0} expires at {1} at the latest: its lifetime can't be extended")]
    ExtendsLifetime(TokenId, UnixMillis),
    /// The token's version is not the one that the caller has seen.
    #[error("the token {0} was changed meanwhile")]
    VersionConflict(TokenId),
    /// The requested expiration is in the past.
    #[error("{0} is in the past")]
    ExpiresInPast(UnixMillis),
    /// The list of scopes is empty.
    #[error("an empty list of scopes allows nothing: leave it out, or name a node")]
    EmptyScopes,
    /// The requested lifetime ends after that of the calling token.
    #[error(
        "{asked} is longer than the lifetime of the token that it is created with, which ends at {until}: {} at most",
        longest.map_or_else(|| "nothing".to_owned(), |longest| longest.to_string())
    )]
    OutlivesParent {
        /// The requested lifetime, window or time.
        asked: String,
        /// The longest lifetime that is allowed.
        longest: Option<Lifetime>,
        /// Hard limit of the calling token.
        until: UnixMillis,
    },
    /// The chain of tokens above a new one would be too long.
    #[error("a token can have at most {0} tokens above it: create this one with a token further up the chain")]
    ChainTooLong(usize),
    /// The SSH key proves another live token of the owner.
    #[error("this SSH key proves the token {0} of the same user already: revoke that one first, or give another key")]
    SshKeyInUse(TokenId),
    /// The token is proven by a key, which a new secret would replace.
    #[error("the token {0} is proven by an SSH key: give the new key that is to replace it")]
    SshKeyMissing(TokenId),
    /// The token is revoked or expired.
    #[error("the token {0} is {state} and can't be changed", state = state_name(*.1))]
    TokenInactive(TokenId, TokenState),
    /// The requested grace is longer than a day.
    #[error("the old secret may be accepted for 24h at most, not {0}")]
    GraceTooLong(Lifetime),
    /// The node does not exist, was deleted, or is hidden from the caller.
    #[error("the node {0} does not exist or was deleted")]
    UnknownNode(NodeId),
    /// No entry exists at that path, or it is hidden from the caller.
    #[error("nothing is at {0}")]
    PathNotFound(TreePath),
    /// The entry at that path can't have a node id: a symbolic link, or another special file.
    #[error("{0} is neither a file nor a directory")]
    UnsupportedNodeType(TreePath),
    /// Scopes, grants or a home directory were requested without a served directory.
    #[error("scopes, grants and home directories need the served directory")]
    NoServedRoot,
    /// The entry at the path of a home directory is not a directory.
    #[error("{0} is not a directory: it can't be a home directory")]
    HomeNotDirectory(TreePath),
    /// The scope is not within the owner's grants, or not within the access of the calling token.
    #[error("the scope {scope} is outside of what {login} may access")]
    OutsideAccess {
        /// The scope as it was requested.
        scope: String,
        /// The owner.
        login: Login,
        /// The permissions and paths that may be given, for the hint.
        reach: Vec<String>,
    },
    /// The user has no grant on that path or node.
    #[error("{login} has no grant on {place}")]
    GrantNotFound {
        /// The user.
        login: Login,
        /// The path or node.
        place: String,
    },
    /// The request exceeds the policy.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// A sliding window was requested together with no expiration.
    #[error("a token that never expires has no sliding window: leave one of the two out")]
    WindowWithoutExpiration,
    /// Both a lifetime and a time of expiration were requested.
    #[error("lifetime and expires_at can't be combined: give one of them")]
    LifetimeAndExpiration,
    /// The name or description is invalid.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The policy key or value is invalid.
    #[error("{0}")]
    InvalidSetting(String),
    /// The ban is invalid, or would shut the caller out.
    #[error("{0}")]
    InvalidBan(String),
    /// The network is not banned.
    #[error("{0} is not banned")]
    UnknownBan(BannedNetwork),
    /// The queue of argon2 or of store operations is full.
    #[error("the server is busy: try again")]
    Busy,
    /// A task of the server panicked.
    #[error("an internal task of the server failed")]
    TaskPanicked,
    /// The served directory failed; the text is for the administrator.
    #[error("the served directory failed: {0}")]
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
            StoreError::KeyInUse(token) => Error::SshKeyInUse(token),
            other => Error::Store(other),
        }
    }
}

impl From<AuthError> for Error {
    fn from(refusal: AuthError) -> Self {
        match refusal {
            AuthError::Busy => Error::Busy,
            AuthError::Store(error) => error.into(),
            // Hashing a new secret returns none of these: they refuse logins.
            AuthError::Denied | AuthError::Throttled(_) | AuthError::TooManyConnections => Error::SessionEnded,
        }
    }
}

/// Translates an error of the tree about a path into one for the caller.
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
