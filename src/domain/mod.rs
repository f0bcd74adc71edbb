//! Values and rules of patgate, without I/O, clocks or async.
//!
//! A value that exists is valid: every type here is created by a parser or a constructor that refuses invalid input, so
//! that later code need not check again. Reading order: identities ([`Login`], [`TokenId`], [`Secret`]), times
//! ([`UnixMillis`], [`Lifetime`], [`TokenExpiry`]), paths and nodes ([`TreePath`], [`NodeId`]), permissions and limits
//! ([`Permission`], [`Scope`], [`TokenLimits`]), the rule that joins them ([`TreeAccess`]), events and counts
//! ([`AuditEvent`], [`UsageCount`]); and guides for clients ([`client_guides`]).

mod access;
mod access_explanation;
mod audit_event;
mod ban;
mod base62;
pub mod client_guides;
mod duration_histogram;
mod expiry;
mod foreign_role;
mod forwarding_headers;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod json_values;
mod limits;
mod notice;
mod operation;
mod path;
mod permission;
mod policy_setting;
mod privileges;
mod redaction;
#[cfg(test)]
mod roundtrip_tests;
pub(crate) mod schema;
mod scope;
mod ssh_public_key;
mod state_limits;
mod storage_quota;
mod striped_counters;
mod syslog_target;
mod time;
mod token;
mod unicode_normalization;
mod upload;
mod usage_count;
mod user;
mod user_quotas;
mod web_address;

pub use access::{AccessDenial, ChainLink, EffectiveGrant, NodeIdentity, PathAccess, ResolvedScope, TreeAccess};
pub use access_explanation::{AccessExplanation, AccessQuery, AccessSource, DecidingRule, TargetError};
pub use audit_event::{Actor, AuditEvent, EventKind, SystemUser, escape_for_terminal};
pub use ban::{Ban, BanOrigin, BannedNetwork};
pub use duration_histogram::{
    DURATION_BUCKET_BOUNDS, DURATION_BUCKETS, DurationCounts, DurationHistogram, duration_bucket,
};
pub use expiry::{Policy, PolicyViolation, TokenExpiry};
pub use foreign_role::{ForeignRole, ForeignRoles};
pub use forwarding_headers::ForwardingHeaders;
pub use ipnet::IpNet;
pub use json_values::{JsonObject, TextValue};
pub(crate) use json_values::{
    deserialize_object, deserialize_object_or_empty, deserialize_objects, impl_text_json, optional_text, text,
};
pub(crate) use limits::deserialize_user_agents;
pub use limits::{ByteSize, FileTag, MimePattern, Peer, Protocol, TokenLimits, UserAgentPattern, parse_network};
pub use notice::{ExpiringToken, Notice, NoticeContent, NoticeDisk, NoticeKind, notice_text};
pub use operation::{RequiredPermission, TreeOperation};
pub(crate) use path::RESERVED_DIRECTORY;
pub use path::{EntryName, PathError, TreePath};
pub use permission::Permission;
pub use policy_setting::PolicySetting;
pub use privileges::{ExceedsPrivileges, Privileges};
pub use redaction::{redact_tokens_in_bytes, redact_tokens_in_text};
pub use scope::{NodeId, Scope, ScopeTarget};
pub use ssh_public_key::{SshPublicKey, SshPublicKeyError};
pub use state_limits::StateLimits;
pub use storage_quota::{QuotaSpace, StorageAccount, StorageUsage};
pub use striped_counters::{COUNTER_STRIPES, CounterStripe, StripedCounters, stripe_of_thread};
pub use syslog_target::SyslogTarget;
pub use time::{Lifetime, LifetimeError, UnixMillis};
pub use token::{Secret, TokenError, TokenId, TokenText};
pub use upload::{PropertyQuota, UploadRule, UploadSpace, UploadSpaceLimits};
pub use usage_count::{UsageCount, UsageKind};
pub use user::{Login, LoginError, Role, Roles};
pub use user_quotas::{QuotaReservation, UserQuotaLimits, UserQuotas};
pub use web_address::{ALL_BUT_UNRESERVED, AllowedOrigins, PublicUrl, WebOrigin, parse_public_prefix};
