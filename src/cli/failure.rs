//! Why a command did not do what it was asked: one line for people, then a hint on what to do next.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::config::ConfigError;
use crate::domain::PolicyFault;
use crate::gateway::StartError;
use crate::store::{StoreError, TokenState};
use crate::{tokens, tree};

const REFUSED: u8 = 1;
const MISUSED: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// Says that a command was refused or failed.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: REFUSED }
    }

    /// Says that a command makes no sense as it was typed.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: MISUSED }
    }

    /// Adds what to do next.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds what to do next, where there is something to say.
    fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Prints it and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let mut text = String::new();
        for line in self.message.lines() {
            let _ = writeln!(text, "error: {line}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        ExitCode::from(self.code)
    }
}

/// Turns what clap says of a misused command into one line and a hint; prints help and version where
/// they were asked for, and help where nothing was.
pub(super) fn misused(error: &clap::Error, command: &str) -> super::Result {
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
            return Err(Failure::usage(format!("{command} needs to be told what to do")).hint(hint));
        }
        _ => {}
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
    let hint = tip.unwrap_or_else(|| format!("{command} --help shows how it is used, with an example"));
    Err(Failure::usage(line).hint(hint))
}

impl From<tokens::Error> for Failure {
    fn from(error: tokens::Error) -> Self {
        use tokens::Error;
        let hint = match &error {
            Error::UnknownUser(_) => Some("patgate admin user list shows who there is".to_owned()),
            Error::UserExists(login) => Some(format!("patgate admin user show {login} shows it")),
            Error::Disabled(login) => Some(format!("patgate admin user enable {login}")),
            Error::UnknownToken(_) => Some("patgate apitoken list shows the ids".to_owned()),
            Error::Dead(_, TokenState::Live | TokenState::Expired | TokenState::Revoked) => {
                Some("make a new one: patgate admin user token -u LOGIN".to_owned())
            }
            Error::Grace(_) => Some("give --grace 24h or less".to_owned()),
            Error::UnknownNode(_) => Some("patgate node id PATH tells a node's id".to_owned()),
            Error::NoPath(_) | Error::Unnameable(_) => {
                Some("paths start at the served folder, / is the folder itself".to_owned())
            }
            Error::NoHome(_) => Some("give --grant PATH:PERM or --no-home".to_owned()),
            Error::OutsideReach { login, reach, .. } => Some(reach_hint(login.as_str(), reach)),
            Error::NoGrant { login, .. } => Some(format!("patgate admin user show {login} shows its grants")),
            Error::Policy(fault) => Some(policy_hint(fault)),
            Error::Setting(_) => Some("patgate policy show shows every key".to_owned()),
            Error::RoleNotHeld { login, .. } => Some(format!("patgate admin user show {login} shows its roles")),
            Error::Forbidden(_)
            | Error::Narrow
            | Error::Ended
            | Error::Wider(_)
            | Error::Narrower(_)
            | Error::Widens(_)
            | Error::Longer(..)
            | Error::Changed(_)
            | Error::Past(_)
            | Error::NoScopes
            | Error::Chain(_)
            | Error::NoTree
            | Error::NeverSlides
            | Error::Label(_)
            | Error::Tree(_) => None,
            Error::Store(error) => store_hint(error),
        };
        Self::new(error.to_string()).maybe_hint(hint)
    }
}

fn reach_hint(login: &str, reach: &[String]) -> String {
    match reach {
        [] => format!("{login} reaches nothing: patgate admin user grant {login} PATH:PERM"),
        reach => format!("{login} reaches {}", reach.join(", ")),
    }
}

fn policy_hint(fault: &PolicyFault) -> String {
    match fault {
        PolicyFault::TooLong { max, .. } => {
            format!("ask for {max} or less, or raise it: patgate policy set max-lifetime DURATION")
        }
        PolicyFault::Never => "give -e DURATION, or allow it: patgate policy set allow-never true".to_owned(),
        PolicyFault::TooMany(_) => {
            "revoke one (patgate apitoken revoke ID), or raise it: patgate policy set max-tokens-per-user N".to_owned()
        }
    }
}

fn store_hint(error: &StoreError) -> Option<String> {
    match error {
        StoreError::State { .. } => Some("run it as the user that the server runs as, or give --state DIR".to_owned()),
        _ => None,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string()).maybe_hint(store_hint(&error))
    }
}

impl From<tree::Error> for Failure {
    fn from(error: tree::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = if error.is_misuse() { Self::usage(error.to_string()) } else { Self::new(error.to_string()) };
        failure.hint("patgate serve --help lists every setting, examples/patgate.toml shows them")
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let hint = match &error {
            StartError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("something listens there already: stop it, or give another --http or --sftp".to_owned())
            }
            StartError::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need CAP_NET_BIND_SERVICE: give another --http or --sftp".to_owned())
            }
            StartError::Store(error) => store_hint(error),
            _ => Some("patgate doctor looks at state, served folder and system".to_owned()),
        };
        Self::new(error.to_string()).maybe_hint(hint)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}
