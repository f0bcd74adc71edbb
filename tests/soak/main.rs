//! A gateway in a process of its own under many clients and accidents: it is killed, reloaded, its disk fills up, its
//! clock is set, tokens and grants are revoked. Every client records what it did, with the times before and after, and
//! [`checker`] proves from the record that nothing that was acknowledged is lost, and nothing that was revoked comes
//! back. `tests/soak/run` starts it, with a seed and a duration; the tests of the checker run with all others.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking, and this one prints figures")]

mod accidents;
mod checker;
mod checker_tests;
mod content;
mod figures;
mod gateway_process;
mod history;
#[allow(dead_code, reason = "shared with tests/resilience, which uses all of it")]
#[path = "../resilience/mounts.rs"]
mod mounts;
mod outcome;
mod permission_clients;
mod random;
mod recorder;
mod run;
mod sftp_clients;
#[allow(dead_code, unused_imports, reason = "shared with tests/gateway, which uses all of it")]
#[path = "../gateway/support/mod.rs"]
mod support;
mod token_clients;
mod webdav_clients;
