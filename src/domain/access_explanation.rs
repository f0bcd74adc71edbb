//! Explanations of access decisions: the rule that decides, as a sentence and in JSON.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{ByteSize, FileTag, Login, Permission, Protocol, Scope, TokenId, TreeOperation, TreePath, UnixMillis};

/// A query whether a token may do something. Properties of the caller and the upload that are left out stay open, and
/// the explanation names the limits that then have to be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessQuery {
    /// The operation.
    pub operation: TreeOperation,
    /// Path of the operation.
    pub path: TreePath,
    /// Target path, for operations that have one.
    pub target: Option<TreePath>,
    /// Protocol of the caller.
    pub protocol: Option<Protocol>,
    /// Address of the caller.
    pub address: Option<IpAddr>,
    /// Program of the caller.
    pub user_agent: Option<String>,
    /// Size of the uploaded file.
    pub size: Option<ByteSize>,
    /// Media type of the uploaded file.
    pub mime: Option<String>,
    /// Tags of the uploaded file.
    pub tags: Vec<FileTag>,
}

impl AccessQuery {
    /// Returns the query with a target path, which operations with a target require and others refuse.
    ///
    /// # Errors
    /// [`TargetError`] for a missing or an unexpected target.
    pub fn with_target(self, to: Option<TreePath>) -> Result<Self, TargetError> {
        match (self.operation.has_target(), &to) {
            (true, None) => Err(TargetError::Missing(self.operation)),
            (false, Some(_)) => Err(TargetError::Unexpected(self.operation)),
            _ => Ok(Self { target: to, ..self }),
        }
    }

    /// Returns a query for an operation on a path, with everything else left open.
    pub fn new(operation: TreeOperation, path: TreePath) -> Self {
        Self {
            operation,
            path,
            target: None,
            protocol: None,
            address: None,
            user_agent: None,
            size: None,
            mime: None,
            tags: Vec::new(),
        }
    }
}

/// A target that is missing, or given for an operation without target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The operation needs a target.
    #[error("{0} has a target: give it (to)")]
    Missing(TreeOperation),
    /// The operation has no target.
    #[error("{0} has no target: leave it out (to)")]
    Unexpected(TreeOperation),
}

/// The rule that decides an access query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum DecidingRule {
    /// Grants, narrowed by the scopes of each token, allow it.
    Granted,
    /// The path is visible, on the way to a permitted node.
    VisibleOnly,
    /// The token, or one above it, was revoked.
    Revoked {
        /// The token of the chain that decides.
        token: TokenId,
    },
    /// The token, or one above it, has expired.
    Expired {
        /// The token of the chain that decides.
        token: TokenId,
        /// Time of the expiration.
        #[serde(serialize_with = "as_text")]
        at: UnixMillis,
    },
    /// The owner is disabled.
    Disabled,
    /// The token, or one above it, does not allow the protocol.
    Protocol {
        /// The token of the chain that decides.
        token: TokenId,
    },
    /// The token, or one above it, does not allow the address.
    Address {
        /// The token of the chain that decides.
        token: TokenId,
    },
    /// The token, or one above it, does not allow the program.
    UserAgent {
        /// The token of the chain that decides.
        token: TokenId,
    },
    /// The token, or one above it, does not allow files of that size.
    FileSize {
        /// The token of the chain that decides.
        token: TokenId,
        /// Maximum file size.
        #[serde(serialize_with = "as_text")]
        max: ByteSize,
    },
    /// The token, or one above it, does not allow the media type.
    MediaType {
        /// The token of the chain that decides.
        token: TokenId,
    },
    /// The token, or one above it, does not allow the tag.
    Tag {
        /// The token of the chain that decides.
        token: TokenId,
        /// The tag.
        tag: FileTag,
    },
    /// No grant of the user allows it.
    NoGrant {
        /// Path on which the permission is needed.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// A token's scopes don't allow it.
    OutOfScope {
        /// The token with these scopes.
        token: TokenId,
        /// Path on which the permission is needed.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// The root of the tree can't be created, moved or removed.
    TreeRoot,
    /// A directory that was granted or scoped was replaced or removed.
    NodeReplaced {
        /// Path on which the permission is needed.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// Content that may not be read would become readable at the target.
    WouldReveal,
    /// No single grant allows both paths of a hard link.
    NoSingleGrant,
}

/// A grant or scope that contributes to a permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessSource {
    /// The node and the permission on it.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
    /// Path of the node.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
}

/// The answer to a [`AccessQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessExplanation {
    /// Whether the operation is allowed.
    pub allowed: bool,
    /// The answer as a sentence.
    pub sentence: String,
    /// The deciding rule.
    pub decided_by: DecidingRule,
    /// The queried token.
    pub token: TokenId,
    /// Owner of the token.
    pub user: Login,
    /// The queried operation.
    pub operation: TreeOperation,
    /// Path of the operation.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
    /// Permission that the operation needs.
    pub needs: Permission,
    /// The grants, and the scopes that narrow them, by which it is allowed.
    pub allowed_by: Vec<AccessSource>,
    /// Limits that the query left open and that have to be met as well.
    pub unchecked_limits: Vec<String>,
}

impl DecidingRule {
    /// Tells whether this rule allows the operation.
    pub fn allows(&self) -> bool {
        matches!(self, DecidingRule::Granted | DecidingRule::VisibleOnly)
    }
}

impl fmt::Display for DecidingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecidingRule::Granted => f.write_str("a grant allows it"),
            DecidingRule::VisibleOnly => f.write_str("it is on the way to a permitted file or directory"),
            DecidingRule::Revoked { token } => write!(f, "the token {token} was revoked"),
            DecidingRule::Expired { token, at } => write!(f, "the token {token} expired at {at}"),
            DecidingRule::Disabled => f.write_str("the user is disabled"),
            DecidingRule::Protocol { token } => write!(f, "the token {token} does not allow that protocol"),
            DecidingRule::Address { token } => write!(f, "the token {token} does not allow that address"),
            DecidingRule::UserAgent { token } => write!(f, "the token {token} does not allow that program"),
            DecidingRule::FileSize { token, max } => write!(f, "the token {token} allows files of {max} at most"),
            DecidingRule::MediaType { token } => write!(f, "the token {token} does not allow that media type"),
            DecidingRule::Tag { token, tag } => write!(f, "the token {token} does not allow the tag {tag}"),
            DecidingRule::NoGrant { at } => write!(f, "no grant allows it at {at}"),
            DecidingRule::OutOfScope { token, at } => write!(f, "no scope of the token {token} allows it at {at}"),
            DecidingRule::TreeRoot => f.write_str("the root of the tree can't be created, moved or removed"),
            DecidingRule::NodeReplaced { at } => {
                write!(f, "what was granted or scoped at {at} was replaced by something else")
            }
            DecidingRule::WouldReveal => f.write_str("content that may not be read would become readable there"),
            DecidingRule::NoSingleGrant => f.write_str("no single grant allows both names"),
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
