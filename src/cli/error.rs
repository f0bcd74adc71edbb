//! Why a command did not do what it was asked: one line for people, then a hint on what to do next.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::api::types::ProblemDetails;
use crate::config::ConfigError;
use crate::domain::{Login, Role};
use crate::gateway::StartError;
use crate::store::StoreError;
use crate::{tokens, tree};

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct CommandError {
    message: String,
    hint: Option<String>,
    exit_code: u8,
}

impl CommandError {
    /// Says that a command was refused or failed.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_FAILURE }
    }

    /// Says that a command makes no sense as it was typed.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_USAGE }
    }

    /// Adds what to do next.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds what to do next, where there is something to say.
    fn with_optional_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Adds to the commands of the hint the flags that say where the refused one worked.
    pub(super) fn with_context_flags(self, flags: &str) -> Self {
        let Some(hint) = self.hint.as_deref().filter(|_| !flags.is_empty()) else { return self };
        let mut text = hint.to_owned();
        for command in ["admin", "apitoken", "node", "policy", "audit", "explain"] {
            text = text.replace(&format!("patgate {command} "), &format!("patgate{flags} {command} "));
        }
        // Those work on this machine alone, and say so where a server is named.
        if !flags.contains("--server") {
            text = text.replace("patgate doctor ", &format!("patgate{flags} doctor "));
        }
        Self { hint: Some(text), ..self }
    }

    /// Prints it and returns the exit code.
    pub(super) fn print(&self) -> ExitCode {
        let mut text = String::new();
        for line in self.message.lines() {
            let _ = writeln!(text, "error: {line}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        ExitCode::from(self.exit_code)
    }
}

/// Turns what clap says of a misused command into one line and a hint; prints help and version where
/// they were asked for, and help where nothing was.
pub(super) fn usage_error(error: &clap::Error, command: &str) -> super::Result {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return Ok(());
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            if command == "patgate" {
                let _ = error.print();
            }
            let hint = format!("{command} --help shows what there is, with an example");
            return Err(CommandError::usage(format!("{command} needs to be told what to do")).with_hint(hint));
        }
        _ => {}
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
    let hint = tip.unwrap_or_else(|| format!("{command} --help shows how it is used, with an example"));
    Err(CommandError::usage(line).with_hint(hint))
}

impl From<&ProblemDetails> for CommandError {
    fn from(problem: &ProblemDetails) -> Self {
        Self::new(problem.detail.as_str()).with_optional_hint(problem_hint(problem))
    }
}

impl From<tokens::Error> for CommandError {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Store(error) => error.into(),
            tokens::Error::Tree(_) | tokens::Error::NoServedRoot => Self::new(error.to_string()),
            refusal => Self::from(&ProblemDetails::from(&refusal)),
        }
    }
}

/// Says what to do about a problem: the same whether it was met here or at a server.
fn problem_hint(problem: &ProblemDetails) -> Option<String> {
    let user = problem.user.as_ref().map_or("LOGIN", Login::as_str);
    let hint = match problem.type_name() {
        "unknown-user" => "patgate admin user list shows who there is",
        "user-exists" => return Some(format!("patgate admin user show {user} shows it")),
        "user-disabled" => return Some(format!("patgate admin user enable {user}")),
        "role-not-held" => return Some(format!("patgate admin user roles {user} ROLE… gives them to the user first")),
        "no-grant" => return Some(format!("patgate admin user show {user} shows its grants")),
        "outside-reach" => return Some(reach_hint(user, problem.reach.as_deref().unwrap_or_default())),
        "unknown-token" => "patgate apitoken list shows the ids",
        "dead-token" => "make a new one: patgate admin user token -u LOGIN",
        "grace" => "give --grace 24h or less",
        "unknown-node" => "patgate node id PATH tells a node's id",
        "no-path" => CREATE_PATH_HINT,
        "unnameable" => "name a file or a folder: a symbolic link, a device or a socket is nothing to name",
        "no-home" => "give --grant PATH:PERM or --no-home",
        "too-long" => {
            let longest = problem.most.as_deref().unwrap_or("less");
            return Some(format!("ask for {longest} or less, or raise it: patgate policy set max-lifetime DURATION"));
        }
        "outlives" => {
            let longest = problem.most.as_deref().unwrap_or("less");
            return Some(format!("ask for {longest} or less, leave it out, or ask with a token that lives longer"));
        }
        "never" => "give -e DURATION, or allow it: patgate policy set allow-never true",
        "never-slides" => "give -e never alone, or -a DURATION with an end: -e DURATION",
        "too-many-tokens" => {
            "revoke one (patgate apitoken revoke ID), or raise it: patgate policy set max-tokens-per-user N"
        }
        "unfit" => "patgate policy show tells what tokens may ask for",
        "role-missing" => {
            let role = problem.role.map_or("ROLE", Role::as_str);
            return Some(format!(
                "ask with a token that has the role: patgate admin user token -u LOGIN --role {role} makes one"
            ));
        }
        "wider" => "ask with a token that is at least as wide and lives as long: best without scopes, limits or parent",
        "widens" => "make a new token: patgate admin user token -u LOGIN",
        "changed" => "look it up again, and try again",
        "denied" => "PATGATE_TOKEN must be a live token of that server's that allows the protocol api and this address",
        "throttled" | "busy" => "wait, and try again",
        "fault" => "the server's log says more",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What helps where a path leads nowhere.
pub(super) const CREATE_PATH_HINT: &str = "make it first; paths start at the served folder, which is / itself";

fn reach_hint(login: &str, reach: &[String]) -> String {
    match reach {
        [] => format!("{login} reaches nothing: patgate admin user grant {login} PATH:PERM"),
        reach => format!("{login} reaches {}", reach.join(", ")),
    }
}

fn store_hint(error: &StoreError) -> String {
    match error {
        StoreError::SchemaTooOld { .. } => "start the server once with this version: patgate serve".to_owned(),
        StoreError::DiskFull => "revoking, disabling and narrowing go on; patgate doctor looks at the disk".to_owned(),
        StoreError::StateDirectory { .. } => {
            "run it as the user that it belongs to, or give another --state DIR".to_owned()
        }
        _ => DOCTOR_HINT.to_owned(),
    }
}

/// Who looks further.
const DOCTOR_HINT: &str = "patgate doctor looks at state, served folder and system";

/// What helps where another folder is to be served than nodes were named in.
pub(super) const OTHER_TREE_HINT: &str = "mount what belongs there; if this is the tree, patgate node reattach (with --root DIR \
    where it is elsewhere now) tells what stands at the paths that were granted, and --yes binds them to that";

/// What helps where an SSH host key is broken.
pub(super) const BROKEN_HOST_KEY_HINT: &str =
    "restore it from a backup, or remove it: the next start makes another, and clients ask whether to trust it";

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string()).with_hint(store_hint(&error))
    }
}

impl From<tree::Error> for CommandError {
    fn from(error: tree::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let failure =
            if error.is_command_line_only() { Self::usage(error.to_string()) } else { Self::new(error.to_string()) };
        failure.with_hint("patgate serve --help lists every setting, examples/patgate.toml shows them")
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        let hint = match &error {
            StartError::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "something listens there already: stop it, or give another --http or --sftp"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE: give another --http or --sftp"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: give 0.0.0.0 or [::] for all it has"
                }
                _ => DOCTOR_HINT,
            },
            StartError::Tree { path, source: tree::Error::Filesystem(io_error) } => {
                let hint = match io_error.kind() {
                    io::ErrorKind::WouldBlock => {
                        "stop that one first; two servers need a folder and a state directory (--state DIR) each, and none \
                         of the folders lies in another"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "let the user that this runs as read and write it, or give another --root"
                    }
                    _ => DOCTOR_HINT,
                };
                return Self::new(format!("the folder {} can't be served: {io_error}", path.display())).with_hint(hint);
            }
            StartError::Tree { source: tree::Error::TreeMismatch, .. } => OTHER_TREE_HINT,
            StartError::Tls(_) => {
                "--tls-cert and --tls-key name files in PEM: the certificate with its chain, and its key"
            }
            StartError::HostKeys(_) => BROKEN_HOST_KEY_HINT,
            StartError::Store(error) => return Self::new(error.to_string()).with_hint(store_hint(error)),
            StartError::Tree { .. } | StartError::OverlappingDirectories { .. } => DOCTOR_HINT,
        };
        Self::new(error.to_string()).with_hint(hint)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}
