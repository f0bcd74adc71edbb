//! Tests of the whole gateway: each test starts one on port 0 and talks to it over real sockets, as clients do. One
//! module covers one theme, and its first lines say which. Tests of the program as a process (exit codes, signals) are
//! in `tests/cli`, of floods and failing disks in `tests/resilience`, of random SFTP sequences in `tests/handles`.

#![allow(clippy::expect_used)]

mod audit;
mod bug_reports;
mod capabilities;
mod client_replays;
mod clock_jumps;
mod connection_limits;
mod console;
mod console_audit;
mod console_explain;
mod console_uploads;
mod cross_device;
mod cross_origin;
mod cross_protocol;
mod directory_handles;
mod hidden_or_missing;
mod host_header;
mod http1_transport;
mod http2_transport;
mod immediate_revocation;
mod kill_recovery;
mod long_paths;
mod modification_times;
mod open_file_limits;
mod open_files;
mod partial_uploads;
mod permission_matrix;
mod proxies;
mod random_operations;
mod redaction;
mod refusal_order;
mod remote_tls;
mod resource_bounds;
mod rest;
mod rest_cli;
mod rest_concurrency;
mod rest_integrations;
mod rest_tokens;
mod rfc4918;
mod russh_upstream;
mod scope_escape;
mod sftp;
mod sftp_conformance;
mod sftp_files;
mod sftp_resume;
mod slow_peers;
mod smoke;
mod special_bits;
mod ssh;
mod ssh_login;
mod state_limits;
mod support;
mod sync_collection;
mod sync_model;
mod throttle;
mod token_lifetime;
mod token_limits;
mod tokens;
mod upload_isolation;
mod upload_persistence;
mod webdav;
mod webdav_extensions;
mod webdav_hostile_requests;
