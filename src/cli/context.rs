//! The context of a command: global options, and the state directory or server that it works on.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::backend::{LocalBackend, ManagementBackend, RemoteBackend, RemoteOptions};
use super::fresh_state::FreshState;
use super::open_state::{OpenState, has_state, require_owner};
use super::{CommandError, GlobalArgs, Result, output};
use crate::config::{CommandLineSetting, ConfigSources, LocalConfig};
use crate::telemetry::{self, LogFormat};
use crate::tokens::StateFilter;

/// The context of a command.
#[derive(Debug)]
pub(super) struct CommandContext {
    arguments: GlobalArgs,
    /// State that the command created, which is removed if the command fails.
    new_state: RefCell<Option<FreshState>>,
}

impl CommandContext {
    /// Creates the context from the global options.
    pub(super) fn new(global: GlobalArgs) -> Self {
        Self { arguments: global, new_state: RefCell::default() }
    }

    /// Tells whether to print JSON.
    pub(super) fn prints_json(&self) -> bool {
        self.arguments.json
    }

    /// Returns the log filter: `default`, or more with `-v`.
    pub(super) fn log_level(&self, default: &'static str) -> &'static str {
        match self.arguments.verbose {
            0 => default,
            1 => "info,patgate=debug",
            _ => "debug,patgate=trace",
        }
    }

    /// Returns the state directory that a flag or the environment names, if any.
    pub(super) fn explicit_state(&self) -> Option<PathBuf> {
        flag_or_variable(self.arguments.state.as_ref().map(PathBuf::from), "PATGATE_STATE")
    }

    /// Returns the configuration file that a flag or the environment names, if any.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        flag_or_variable(self.arguments.config.clone(), "PATGATE_CONFIG")
    }

    /// Returns the sources of the configuration, including the command's own flags.
    pub(super) fn config_sources(&self, flags: Vec<CommandLineSetting>) -> ConfigSources {
        let state = self.arguments.state.iter().map(|value| setting_flag("state", value));
        let log_flag = (self.arguments.verbose > 0).then(|| setting_flag("log", self.log_level("info")));
        ConfigSources {
            default_state_directory: default_state_directory(),
            file: self.config_file(),
            environment: std::env::vars_os().collect(),
            flags: state.chain(flags).chain(log_flag).collect(),
        }
    }

    /// Loads the configuration of a command that works beside the server.
    pub(super) fn local_config(&self) -> Result<LocalConfig> {
        telemetry::start_logging(self.log_level("warn"), LogFormat::Text).map_err(CommandError::new)?;
        Ok(LocalConfig::load(&self.config_sources(Vec::new()))?)
    }

    /// Opens an existing state directory.
    pub(super) fn open_state(&self) -> Result<OpenState> {
        let local = self.local_config()?;
        // Before the state is looked at: another user's directory may not even be readable, which would look like a
        // missing state.
        require_owner(&local.state)?;
        if !has_state(&local.state) {
            let state = local.state.display();
            // `--state` was once the filter that is called `--status` now.
            let is_status = self.arguments.state.as_deref().is_some_and(|state| state.parse::<StateFilter>().is_ok());
            if is_status {
                return Err(CommandError::new(format!("there is no patgate state in {state}"))
                    .with_hint("--status filters a list of tokens; --state names the state directory"));
            }
            return Err(CommandError::new(format!("there is no patgate state in {state}")).with_hint(
                "name the server's with --state DIR or PATGATE_STATE, or start one: patgate serve --root DIR",
            ));
        }
        OpenState::open(local)
    }

    /// Returns the backend: the named server, or else the existing state directory.
    pub(super) fn backend(&self) -> Result<Box<dyn ManagementBackend>> {
        self.backend_with(Self::open_state)
    }

    /// As [`CommandContext::backend`], but creates the state directory if there is none.
    pub(super) fn backend_or_create(&self) -> Result<Box<dyn ManagementBackend>> {
        self.backend_with(Self::open_or_create_state)
    }

    fn backend_with(&self, open: impl FnOnce(&Self) -> Result<OpenState>) -> Result<Box<dyn ManagementBackend>> {
        let Some(server) = self.server_url()? else { return Ok(Box::new(LocalBackend(open(self)?))) };
        let token = std::env::var("PATGATE_TOKEN").ok();
        let ca_file = self.ca_file();
        let options = RemoteOptions { ca_file: ca_file.as_deref(), allow_cleartext: self.arguments.cleartext };
        Ok(Box::new(RemoteBackend::new(&server, token, options)?))
    }

    /// Returns the URL of the named server. A state directory on the command line takes precedence over a server in the
    /// environment.
    fn server_url(&self) -> Result<Option<String>> {
        match (&self.arguments.server, &self.arguments.state) {
            (Some(_), Some(_)) => {
                Err(CommandError::usage("--server and --state exclude each other").with_hint("give one of them"))
            }
            (Some(server), None) => Ok(Some(server.clone())),
            // PATGATE_SERVER may be exported for a whole shell; `--state` is more specific.
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(std::env::var("PATGATE_SERVER").ok().filter(|server| !server.is_empty())),
        }
    }

    /// Returns the file of the certificate authority to trust, if one is named.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        flag_or_variable(self.arguments.ca_file.clone(), "PATGATE_CA_FILE")
    }

    /// Tells whether the command works over the network.
    pub(super) fn is_remote(&self) -> Result<bool> {
        Ok(self.server_url()?.is_some())
    }

    /// Refuses `--server` for a command that works on this machine only. A server in the environment is ignored, since
    /// it is meant for other commands.
    pub(super) fn reject_server_flag(&self, command: &str) -> Result {
        match &self.arguments.server {
            Some(_) => {
                Err(CommandError::usage(format!("patgate {command} works on this machine, not over the network"))
                    .with_hint("leave --server out; apitoken, admin, node, policy, audit and explain take it"))
            }
            None => Ok(()),
        }
    }

    /// Refuses a server for an operation that works on the state directory only.
    pub(super) fn require_local(&self, what: &str) -> Result {
        match self.server_url()? {
            Some(_) => Err(CommandError::usage(format!("{what} works on the state directory, not over the network"))
                .with_hint("run it where the server runs, with --state DIR")),
            None => Ok(()),
        }
    }

    /// Opens the state directory, and creates it if there is none.
    pub(super) fn open_or_create_state(&self) -> Result<OpenState> {
        let local = self.local_config()?;
        self.will_create_state(&local.state);
        OpenState::open(local)
    }

    /// Records that the command creates a state directory, if there is none.
    pub(super) fn will_create_state(&self, state: &Path) {
        *self.new_state.borrow_mut() = FreshState::detect(state);
    }

    /// Returns the topmost directory that the command creates for its state, if there is one.
    pub(super) fn topmost_new_directory(&self) -> Option<PathBuf> {
        self.new_state.borrow().as_ref().and_then(FreshState::topmost_created).map(Path::to_owned)
    }

    /// Keeps the state directory that the command created.
    pub(super) fn keep_state(&self) {
        self.new_state.take();
    }

    /// Removes the state directory that a failed command created.
    pub(super) fn discard_new_state(&self) {
        if let Some(fresh) = self.new_state.take() {
            fresh.discard();
        }
    }

    /// Returns the flags of this call that select state directory or server, quoted for a shell.
    pub(super) fn context_flags(&self) -> String {
        let GlobalArgs { config, state, server, ca_file, cleartext, .. } = &self.arguments;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let flags = [
            ("--config", path(config)),
            ("--state", state.clone()),
            ("--server", server.clone()),
            ("--ca-file", path(ca_file)),
        ];
        let mut flags_text = String::new();
        for (name, value) in flags {
            if let Some(value) = value {
                flags_text += &format!(" {name} {}", output::shell_quote(&value));
            }
        }
        flags_text + if *cleartext { " --cleartext" } else { "" }
    }
}

/// Returns the path in a flag, or else in an environment variable; an empty one counts as absent.
fn flag_or_variable(flag: Option<PathBuf>, variable: &str) -> Option<PathBuf> {
    flag.or_else(|| std::env::var_os(variable).map(PathBuf::from)).filter(|path| !path.as_os_str().is_empty())
}

fn setting_flag(key: &str, value: &str) -> CommandLineSetting {
    CommandLineSetting { typed_name: format!("--{key}"), key: key.to_owned(), value: value.to_owned() }
}

fn default_state_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/patgate");
    }
    let absolute_variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data =
        absolute_variable("XDG_DATA_HOME").or_else(|| absolute_variable("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("patgate")
}
