//! The gateway under attack by its own users: what one of them does takes no turn, no memory and no answer from others.
//! And what becomes of a served tree when what is below it changes: file systems that go and come back, odd ones, and other
//! servers on the same folders. Tests that mount something need root, and say so where they can't.

#![allow(clippy::expect_used)]

mod argon2;
mod connection;
mod file_systems;
mod mounts;
mod overlap;
#[allow(dead_code, unused_imports, reason = "shared with tests/gateway, which uses all of it")]
#[path = "../gateway/support/mod.rs"]
mod support;
mod unmounted;
