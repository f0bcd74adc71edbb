//! patgate puts one door in front of a folder: WebDAV and SFTP clients come in with
//! `username` / `personal access token`, see only the nodes that the token may reach, and nothing
//! else about the machine.
//!
//! The map of the house, in reading order; a room imports only from those above it:
//!
//! * [`domain`]: pure values and rules, without I/O or async
//! * [`store`]: what is kept; the only room that names `rusqlite`
//! * [`auth`]: who; makes a [`auth::Session`]
//! * [`tree`]: may they, and the bytes; makes a [`tree::View`], the only way to a byte
//! * [`tokens`]: a token's life: issue, rotate, narrow, revoke, policy
//! * [`net`]: sockets, TLS and connection caps; imports [`domain`] only
//! * [`http`]: what the HTTP rooms share
//! * [`webdav`]: HTTP verbs in terms of a view
//! * [`sftp`]: SFTP packets in terms of a view
//! * [`api`]: REST and JSON in terms of tokens and a view
//! * [`console`]: web pages over the same calls
//! * [`gateway`]: the composition root: opens everything, starts listeners, drains
//! * [`config`]: file, environment and flags, as one typed configuration
//! * [`telemetry`]: what it says of itself
//! * [`cli`]: the command line

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod console;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod net;
pub mod sftp;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod tree;
pub mod webdav;
