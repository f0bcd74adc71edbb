//! The gateway under attack by its own users: what one of them does takes no turn, no memory and no answer from others.

#![allow(clippy::expect_used)]

mod argon2;
mod connection;
#[allow(dead_code, unused_imports, reason = "shared with tests/gateway, which uses all of it")]
#[path = "../gateway/support/mod.rs"]
mod support;
