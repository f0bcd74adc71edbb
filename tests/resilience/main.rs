//! What one user does to the others, and what accidents of disk, clock, store and mounts leave of the gateway's promises:
//! file systems that go and come back, odd ones, other servers on the same folders. Those that mount something need root,
//! and say so where they can't; those that take longer than ten seconds are ignored unless asked for, as `.ci/run` does.

#![allow(clippy::expect_used)]

mod argon2_flood;
mod attacks;
mod bystander;
mod client_disconnects;
mod combined_attacks;
mod file_systems;
mod full_disk;
mod mounts;
mod overlapping_roots;
mod persistent_connection;
mod state_migration;
mod store_locked;
#[allow(dead_code, unused_imports, reason = "shared with tests/gateway, which uses all of it")]
#[path = "../gateway/support/mod.rs"]
mod support;
mod unmounted_root;
