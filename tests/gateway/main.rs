//! The gateway as its callers meet it: through real sockets on port 0, in one binary.

#![allow(clippy::expect_used)]

mod addresses;
mod audit;
mod both;
mod bounds;
mod console;
mod console_audit;
mod console_explain;
mod console_uploads;
mod cors;
mod crash;
mod elsewhere;
mod first_steps;
mod hidden;
mod life;
mod limits;
mod matrix;
mod model;
mod next_request;
mod open_files;
mod proxies;
mod remote_tls;
mod replays;
mod rest;
mod rest_cli;
mod rest_doors;
mod rfc4918;
mod sftp;
mod sftp_files;
mod sftp_letter;
mod sftp_paths;
mod sftp_resume;
mod ssh;
mod ssh_login;
mod support;
mod sync;
mod times;
mod tokens;
mod uploads;
mod uploads_apart;
mod uploads_kept;
mod upstream;
mod webdav;
mod webdav_faults;
mod webdav_rfcs;
