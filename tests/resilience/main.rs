//! Attacks and accidents: floods by one user or by unauthenticated clients, full disks, locked stores, file systems
//! that are unmounted and come back. Other users keep being served, and what was acknowledged is kept. Tests that mount
//! something need root and are skipped with a message without it; those longer than ten seconds are ignored unless
//! asked for with `-- --ignored`, as `.ci/run` does. A folder on a network file system is served where
//! `RESILIENCE_NETWORK_FOLDER` names one. Limits that need no load are tested in `tests/gateway`.

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
