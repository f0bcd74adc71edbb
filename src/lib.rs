//! patgate is a gateway in front of a directory tree: WebDAV and SFTP clients log in with `username` and a personal access
//! token, see only the nodes that the token may reach, and nothing else about the machine.
//!
//! The modules in reading order; each imports only from those above it (`ARCHITECTURE.md` says more):
//!
//! * [`domain`]: values and rules, without I/O or async
//! * [`store`]: the database; the only module that names `rusqlite`
//! * [`auth`]: authentication; creates a [`auth::Session`]
//! * [`tree`]: authorization and file content; creates a [`tree::View`], the only way to file content
//! * [`tokens`]: the life cycle of tokens: create, rotate, narrow, revoke, policy
//! * [`net`]: sockets, TLS and connection limits; imports [`domain`] only
//! * [`http`]: what the HTTP modules share
//! * [`webdav`]: HTTP methods in terms of a view
//! * [`sftp`]: SFTP packets in terms of a view
//! * [`api`]: REST and JSON in terms of tokens and a view
//! * [`console`]: web pages over the same calls
//! * [`gateway`]: the composition root: opens everything, starts listeners, drains
//! * [`config`]: file, environment and flags, as one typed configuration
//! * [`telemetry`]: the log, metrics and the access log
//! * [`cli`]: the command line

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod console;
pub mod domain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gateway;
pub mod http;
pub mod net;
pub mod sftp;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod tree;
pub mod webdav;
