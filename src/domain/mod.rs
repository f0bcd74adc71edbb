//! The words of patgate as values: pure rules, without I/O, clocks or async.
//!
//! A value that exists is valid: every type here is made by a parser or a
//! constructor that refuses what breaks its rule, so that nothing later has to
//! check again. Reading order: who ([`Login`], [`TokenId`], [`Secret`]), until when
//! ([`Time`], [`Lifetime`], [`Expiry`]), where ([`TreePath`], [`NodeId`]), what
//! ([`Permission`], [`Scope`], [`Limits`]), the rule that joins them ([`Access`]), what happened
//! ([`Event`], [`Count`]); and how clients connect ([`setup`]).

mod access;
mod base62;
mod count;
mod event;
mod expiry;
mod foreign_role;
#[cfg(test)]
mod forms;
mod forwarding_headers;
mod limits;
mod operation;
mod path;
mod permission;
mod redaction;
mod scope;
mod setting;
pub mod setup;
mod shares;
mod spelling;
mod state_limits;
mod time;
mod token;
mod upload;
mod user;
mod verdict;
mod web_address;
mod width;

pub use access::{Access, Denial, Identity, Layer, Reach, Root, Standing};
pub use count::{Count, Counted};
pub use event::{Actor, Event, EventKind, SystemUser, printable};
pub use expiry::{Expiry, Policy, PolicyFault};
pub use foreign_role::{ForeignRole, ForeignRoles};
pub use forwarding_headers::ForwardingHeaders;
pub use ipnet::IpNet;
pub use limits::{ByteSize, Limits, MimePattern, Peer, Protocol, Tag, UserAgentPattern, parse_network};
pub use operation::{Need, Operation};
pub(crate) use path::RESERVED;
pub use path::{Name, PathError, TreePath};
pub use permission::Permission;
pub use redaction::{redact_tokens, redact_tokens_in};
pub use scope::{NodeId, Scope, ScopeTarget};
pub use setting::Setting;
pub use shares::{Share, ShareLimits, Shares};
pub use state_limits::StateLimits;
pub use time::{Lifetime, LifetimeError, Time};
pub use token::{Secret, TokenError, TokenId, TokenText};
pub use upload::{PropertySpace, UploadRule, UploadSpace, UploadSpaces};
pub use user::{Login, LoginError, Role, Roles};
pub use verdict::{Question, Rule, Source, TargetFault, Verdict};
pub use web_address::{AllowedOrigins, PublicUrl, WebOrigin, public_prefix};
pub use width::{Wider, Width};
