//! Why something is allowed or not: the one rule that decides, in a sentence and in JSON.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{ByteSize, Login, Operation, Permission, Protocol, Scope, Tag, Time, TokenId, TreePath};

/// What is asked: may a token do this? What is not said of the caller and the upload is left open, and
/// the verdict names the limits that then have to be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is to be done.
    pub operation: Operation,
    /// Where.
    pub path: TreePath,
    /// Where to, for what has a target.
    pub to: Option<TreePath>,
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
    pub tags: Vec<Tag>,
}

impl Question {
    /// Asks likewise with where to, for what has a target and for nothing else.
    ///
    /// # Errors
    /// [`TargetFault`].
    pub fn aimed(self, to: Option<TreePath>) -> Result<Self, TargetFault> {
        match (self.operation.has_target(), &to) {
            (true, None) => Err(TargetFault::Missing(self.operation)),
            (false, Some(_)) => Err(TargetFault::Needless(self.operation)),
            _ => Ok(Self { to, ..self }),
        }
    }

    /// Asks whether an operation is allowed at a path, and leaves the rest open.
    pub fn new(operation: Operation, path: TreePath) -> Self {
        Self {
            operation,
            path,
            to: None,
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
pub enum TargetFault {
    /// Nowhere is said where to.
    #[error("{0} goes somewhere: give its target (to)")]
    Missing(Operation),
    /// It goes nowhere.
    #[error("{0} goes nowhere: leave its target (to) out")]
    Needless(Operation),
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Rule {
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
        at: Time,
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
        tag: Tag,
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
pub struct Source {
    /// The node and what is allowed there.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The answer as a sentence.
    pub sentence: String,
    /// What decides.
    pub decided_by: Rule,
    /// The token.
    pub token: TokenId,
    /// Its owner.
    pub user: Login,
    /// What was asked.
    pub operation: Operation,
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
    /// What that needs.
    pub needs: Permission,
    /// The grants, and the scopes that narrow them, that allow it.
    pub by: Vec<Source>,
    /// Limits that were not asked about and have to be met as well.
    pub provided: Vec<String>,
}

impl Rule {
    /// Tells whether this rule allows.
    pub fn allows(&self) -> bool {
        matches!(self, Rule::Granted | Rule::OnTheWay)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Granted => f.write_str("a grant allows it"),
            Rule::OnTheWay => f.write_str("it lies on the way to something that may be reached"),
            Rule::Revoked { token } => write!(f, "the token {token} was revoked"),
            Rule::Expired { token, at } => write!(f, "the token {token} expired at {at}"),
            Rule::Disabled => f.write_str("the user is disabled"),
            Rule::Protocol { token } => write!(f, "the token {token} does not allow that protocol"),
            Rule::Address { token } => write!(f, "the token {token} does not allow that address"),
            Rule::UserAgent { token } => write!(f, "the token {token} does not allow that program"),
            Rule::FileSize { token, most } => write!(f, "the token {token} allows files of {most} at most"),
            Rule::MediaType { token } => write!(f, "the token {token} does not allow that media type"),
            Rule::Tag { token, tag } => write!(f, "the token {token} does not allow the tag {tag}"),
            Rule::NoGrant { at } => write!(f, "no grant allows it at {at}"),
            Rule::OutOfScope { token, at } => write!(f, "no scope of the token {token} allows it at {at}"),
            Rule::TopOfTree => f.write_str("the root of the tree can't be made, moved or removed"),
            Rule::Swapped { at } => write!(f, "what was granted or scoped at {at} was replaced by something else"),
            Rule::WouldReveal => f.write_str("what may not be read would become readable there"),
            Rule::NotTogether => f.write_str("no one grant allows both names"),
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
