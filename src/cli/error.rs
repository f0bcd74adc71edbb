//! Errors of commands: a message for people, a hint on what to do next, and an exit code.

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

/// The error of a command.
#[derive(Debug)]
pub(super) struct CommandError {
    message: String,
    hint: Option<String>,
    exit_code: u8,
}

impl CommandError {
    /// Creates the error of a command that was refused or failed (exit code 1).
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_FAILURE }
    }

    /// Creates the error of a misused command (exit code 2).
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_USAGE }
    }

    /// Adds a hint on what to do next.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds a hint, if there is one.
    fn with_optional_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Adds to the commands in the hint the flags that selected state directory or server of the failed one.
    pub(super) fn with_context_flags(self, flags: &str) -> Self {
        let Some(hint) = self.hint.as_deref().filter(|_| !flags.is_empty()) else { return self };
        let mut text = hint.to_owned();
        // A hint is copied and run as it is, so it must work on the same state directory or server.
        for command in ["admin", "apitoken", "node", "policy", "audit", "explain"] {
            text = text.replace(&format!("patgate {command} "), &format!("patgate{flags} {command} "));
        }
        // `doctor` works on this machine only, and would refuse `--server`.
        if !flags.contains("--server") {
            text = text.replace("patgate doctor ", &format!("patgate{flags} doctor "));
        }
        Self { hint: Some(text), ..self }
    }

    /// Prints message and hint on stderr, and returns the exit code.
    pub(super) fn print(&self) -> ExitCode {
        let mut text = String::new();
        for line in self.message.lines() {
            let _ = writeln!(text, "error: {line}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        // In one call, so that the lines of concurrent commands don't mix; a closed stderr must not panic.
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        ExitCode::from(self.exit_code)
    }
}

/// Converts an error of clap into one line and a hint; prints help and version if requested, and help if no command is
/// given.
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
            let hint = format!("{command} --help lists the subcommands, with an example");
            return Err(CommandError::usage(format!("{command} needs a subcommand")).with_hint(hint));
        }
        _ => {}
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    // The suggestion of clap for a misspelled option is better than a general hint.
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

/// Returns the hint for a problem, the same whether it occurred here or at a server.
fn problem_hint(problem: &ProblemDetails) -> Option<String> {
    let user = problem.user.as_ref().map_or("LOGIN", Login::as_str);
    let hint = match problem.type_name() {
        "unknown-user" => "patgate admin user list shows the users",
        "user-exists" => return Some(format!("patgate admin user show {user} shows it")),
        "user-disabled" => return Some(format!("patgate admin user enable {user}")),
        "role-not-held" => return Some(format!("give the user the role first: patgate admin user roles {user} ROLE…")),
        "no-grant" => return Some(format!("patgate admin user show {user} shows its grants")),
        "outside-reach" => return Some(reach_hint(user, problem.reach.as_deref().unwrap_or_default())),
        "unknown-ban" => "patgate admin ban list shows the bans in force",
        "unknown-token" => "patgate apitoken list shows the ids",
        "dead-token" => "create a new one: patgate admin user token -u LOGIN",
        "grace" => "give --grace 24h or less",
        "unknown-node" => "patgate node id PATH prints the id of a node",
        "no-path" => CREATE_PATH_HINT,
        "unnameable" => "give the path of a file or directory: symbolic links, devices and sockets have no ids",
        "no-home" => "give --grant PATH:PERM or --no-home",
        "too-long" => {
            let longest = problem.most.as_deref().unwrap_or("less");
            return Some(format!("ask for {longest} or less, or raise it: patgate policy set max-lifetime DURATION"));
        }
        "outlives" => {
            let longest = problem.most.as_deref().unwrap_or("less");
            return Some(format!("ask for {longest} or less, leave it out, or use a token with a longer lifetime"));
        }
        "never" => "give -e DURATION, or allow it: patgate policy set allow-never true",
        "never-slides" => "give -e never alone, or -a DURATION with -e DURATION",
        "too-many-tokens" => {
            "revoke one (patgate apitoken revoke ID), or raise it: patgate policy set max-tokens-per-user N"
        }
        "unfit" => "patgate policy show prints the limits for tokens",
        "role-missing" => {
            let role = problem.role.map_or("ROLE", Role::as_str);
            return Some(format!(
                "use a token with the role: patgate admin user token -u LOGIN --role {role} creates one"
            ));
        }
        "wider" => "use a token with at least the same access and lifetime, best one without scopes, limits or parent",
        "widens" => "create a new token: patgate admin user token -u LOGIN",
        "changed" => "look it up again, and try again",
        "denied" => {
            "PATGATE_TOKEN must be a live token of that server that allows the protocol api and this client address"
        }
        "throttled" | "busy" => "wait, and try again",
        "fault" => "the server's log has the details",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Hint for a path without a file or directory.
pub(super) const CREATE_PATH_HINT: &str = "create it first; paths start at the served folder, which is /";

fn reach_hint(login: &str, reach: &[String]) -> String {
    match reach {
        [] => format!("{login} has no access yet: patgate admin user grant {login} PATH:PERM"),
        reach => format!("{login} has access to {}", reach.join(", ")),
    }
}

fn store_hint(error: &StoreError) -> String {
    match error {
        StoreError::SchemaTooNew { copy: Some(copy), .. } => format!(
            "to go back, stop the server and run: patgate admin restore {} --replace (changes since the upgrade are lost)",
            copy.display()
        ),
        StoreError::SchemaTooNew { copy: None, .. } => {
            "to go back, stop the server and run: patgate admin restore FILE --replace".to_owned()
        }
        StoreError::SchemaTooOld { .. } => "start the server once with this version: patgate serve".to_owned(),
        StoreError::DiskFull => {
            "revoking, disabling and narrowing still work; patgate doctor checks the disk".to_owned()
        }
        StoreError::StateDirectory { .. } => {
            "run it as the user that it belongs to, or give another --state DIR".to_owned()
        }
        _ => DOCTOR_HINT.to_owned(),
    }
}

/// Hint to the command that finds out more.
const DOCTOR_HINT: &str = "patgate doctor checks state directory, served folder and system";

/// Hint for a served directory that is not the one that nodes were created in.
pub(super) const OTHER_TREE_HINT: &str = "mount the right file system; if this is the tree, patgate node reattach (with --root DIR \
    if it has moved) lists what is at the granted paths now, and --yes binds the grants to that";

/// Hint for an SSH host key that can't be read.
pub(super) const BROKEN_HOST_KEY_HINT: &str =
    "restore it from a backup, or remove it: the next start creates another one, and clients ask whether to trust it";

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
                    "the port is in use: stop the other server, or give another --http or --sftp"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE: give another --http or --sftp"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have the address: give 0.0.0.0 or [::] for all of its addresses"
                }
                _ => DOCTOR_HINT,
            },
            StartError::Tree { path, source: tree::Error::Filesystem(io_error) } => {
                let hint = match io_error.kind() {
                    io::ErrorKind::WouldBlock => {
                        "stop that one first; each server needs its own folder and state directory (--state DIR), and none \
                         of them may contain another"
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
            StartError::AccessLog(_) => {
                "access_log names a file whose directory exists and may be written, stderr or off"
            }
            StartError::UnusedListener { .. } | StartError::InheritedListener { .. } => {
                "the socket units of the service decide where it listens: docs/systemd.md"
            }
            StartError::Notices(_) => {
                "docs/notices.md says what webhooks and mail need; patgate admin notice test tries them"
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
