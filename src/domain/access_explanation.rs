//! Why something is allowed or not: the one rule that decides, in a sentence and in JSON.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{ByteSize, FileTag, Login, Permission, Protocol, Scope, TokenId, TreeOperation, TreePath, UnixMillis};

/// What is asked: may a token do this? What is not said of the caller and the upload is left open, and
/// the verdict names the limits that then have to be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessQuery {
    /// What is to be done.
    pub operation: TreeOperation,
    /// Where.
    pub path: TreePath,
    /// Where to, for what has a target.
    pub target: Option<TreePath>,
    /// By which door.
    pub protocol: Option<Protocol>,
    /// From which address.
    pub address: Option<IpAddr>,
    /// With which program.
    pub user_agent: Option<String>,
    /// How large a file.
    pub size: Option<ByteSize>,
    /// Of which media type.
    pub mime: Option<String>,
    /// Labelled how.
    pub tags: Vec<FileTag>,
}

impl AccessQuery {
    /// Asks likewise with where to, for what has a target and for nothing else.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn with_target(self, to: Option<TreePath>) -> Result<Self, TargetError> {
        match (self.operation.has_target(), &to) {
            (true, None) => Err(TargetError::Missing(self.operation)),
            (false, Some(_)) => Err(TargetError::Unexpected(self.operation)),
            _ => Ok(Self { target: to, ..self }),
        }
    }

    /// Asks whether an operation is allowed at a path, and leaves the rest open.
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

/// A target that is missing, or given to what has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nowhere is said where to.
    #[error("{0} goes somewhere: give its target (to)")]
    Missing(TreeOperation),
    /// It goes nowhere.
    #[error("{0} goes nowhere: leave its target (to) out")]
    Unexpected(TreeOperation),
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum DecidingRule {
    /// Grants, as narrowed by the scopes of each token, allow it.
    Granted,
    /// It lies on the way to something that may be reached.
    OnTheWay,
    /// The token, or one above it, was revoked.
    Revoked {
        /// Which.
        token: TokenId,
    },
    /// The token, or one above it, has expired.
    Expired {
        /// Which.
        token: TokenId,
        /// When.
        #[serde(serialize_with = "as_text")]
        at: UnixMillis,
    },
    /// The owner is disabled.
    Disabled,
    /// The token, or one above it, does not open this door.
    Protocol {
        /// Which.
        token: TokenId,
    },
    /// The token, or one above it, may not be used from that address.
    Address {
        /// Which.
        token: TokenId,
    },
    /// The token, or one above it, may not be used by that program.
    UserAgent {
        /// Which.
        token: TokenId,
    },
    /// The token, or one above it, may not make files so large.
    FileSize {
        /// Which.
        token: TokenId,
        /// How large at most.
        #[serde(serialize_with = "as_text")]
        most: ByteSize,
    },
    /// The token, or one above it, may not upload that media type.
    MediaType {
        /// Which.
        token: TokenId,
    },
    /// The token, or one above it, may not use that tag.
    Tag {
        /// Which.
        token: TokenId,
        /// The tag.
        tag: FileTag,
    },
    /// No grant of the user allows it.
    NoGrant {
        /// Where.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// A token's scopes don't allow it.
    OutOfScope {
        /// Whose.
        token: TokenId,
        /// Where.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// The root of the tree can't be made, moved or removed.
    TopOfTree,
    /// A folder that was granted or scoped is another by now, or gone.
    Swapped {
        /// Where.
        #[serde(serialize_with = "as_text")]
        at: TreePath,
    },
    /// What may not be read would become readable at its target.
    WouldReveal,
    /// No one grant allows both ends of a hard link.
    NotTogether,
}

/// A grant or scope that allows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessSource {
    /// The node and what is allowed there.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
}

/// The answer to a [`AccessQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessExplanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The answer as a sentence.
    pub sentence: String,
    /// What decides.
    pub decided_by: DecidingRule,
    /// The token.
    pub token: TokenId,
    /// Its owner.
    pub user: Login,
    /// What was asked.
    pub operation: TreeOperation,
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
    /// What that needs.
    pub needs: Permission,
    /// The grants, and the scopes that narrow them, that allow it.
    pub by: Vec<AccessSource>,
    /// Limits that were not asked about and have to be met as well.
    pub provided: Vec<String>,
}

impl DecidingRule {
    /// Tells whether this rule allows.
    pub fn allows(&self) -> bool {
        matches!(self, DecidingRule::Granted | DecidingRule::OnTheWay)
    }
}

impl fmt::Display for DecidingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecidingRule::Granted => f.write_str("a grant allows it"),
            DecidingRule::OnTheWay => f.write_str("it lies on the way to something that may be reached"),
            DecidingRule::Revoked { token } => write!(f, "the token {token} was revoked"),
            DecidingRule::Expired { token, at } => write!(f, "the token {token} expired at {at}"),
            DecidingRule::Disabled => f.write_str("the user is disabled"),
            DecidingRule::Protocol { token } => write!(f, "the token {token} does not allow that protocol"),
            DecidingRule::Address { token } => write!(f, "the token {token} does not allow that address"),
            DecidingRule::UserAgent { token } => write!(f, "the token {token} does not allow that program"),
            DecidingRule::FileSize { token, most } => write!(f, "the token {token} allows files of {most} at most"),
            DecidingRule::MediaType { token } => write!(f, "the token {token} does not allow that media type"),
            DecidingRule::Tag { token, tag } => write!(f, "the token {token} does not allow the tag {tag}"),
            DecidingRule::NoGrant { at } => write!(f, "no grant allows it at {at}"),
            DecidingRule::OutOfScope { token, at } => write!(f, "no scope of the token {token} allows it at {at}"),
            DecidingRule::TopOfTree => f.write_str("the root of the tree can't be made, moved or removed"),
            DecidingRule::Swapped { at } => {
                write!(f, "what was granted or scoped at {at} was replaced by something else")
            }
            DecidingRule::WouldReveal => f.write_str("what may not be read would become readable there"),
            DecidingRule::NotTogether => f.write_str("no one grant allows both names"),
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
