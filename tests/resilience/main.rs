//! What accidents of disk, clock and store, and what one user does to the others, leave of the gateway's promises. Slow
//! tests, and such as need mounts.

#![allow(clippy::expect_used)]

mod argon2;
mod connection;
mod full_disk;
mod old_state;
mod store_held;
#[allow(dead_code, unused_imports, reason = "shared with tests/gateway, which uses all of it")]
#[path = "../gateway/support/mod.rs"]
mod support;
