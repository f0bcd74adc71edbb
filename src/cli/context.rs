//! Where a command works: the state directory, what is kept there, and the folder that is served.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::backend::{LocalBackend, ManagementBackend, RemoteBackend, RemoteOptions};
use super::error::OTHER_TREE_HINT;
use super::fresh_state::FreshState;
use super::{CommandError, GlobalArgs, Result, output, system_user};
use crate::auth::{Clock, request_usage_flush};
use crate::config::{self, CommandLineSetting, ConfigSources, LocalConfig};
use crate::store::Store;
use crate::telemetry::{self, LogFormat};
use crate::tokens::{IssuedToken, Principal, StateFilter, TokenRequest, TokenService};
use crate::tree::{self, Tree};

/// Where a command works, and how it prints.
#[derive(Debug)]
pub(super) struct CommandContext {
    arguments: GlobalArgs,
    /// What a refused command leaves nothing of.
    new_state: RefCell<Option<FreshState>>,
}

/// What is kept, and where the served folder is.
pub(super) struct OpenState {
    /// Users, tokens and policy.
    pub(super) tokens: TokenService,
    /// Who works on it.
    pub(super) authority: Principal,
    store: Store,
    config: LocalConfig,
    tree: OnceCell<Tree>,
}

impl CommandContext {
    /// Takes what every command takes.
    pub(super) fn new(global: GlobalArgs) -> Self {
        Self { arguments: global, new_state: RefCell::default() }
    }

    /// Tells whether to print JSON.
    pub(super) fn prints_json(&self) -> bool {
        self.arguments.json
    }

    /// Returns what to log: `usual`, or more when asked for.
    pub(super) fn log_level(&self, usual: &'static str) -> &'static str {
        match self.arguments.verbose {
            0 => usual,
            1 => "info,patgate=debug",
            _ => "debug,patgate=trace",
        }
    }

    /// Returns the state directory where a flag or the environment names one.
    pub(super) fn explicit_state(&self) -> Option<PathBuf> {
        flag_or_variable(self.arguments.state.as_ref().map(PathBuf::from), "PATGATE_STATE")
    }

    /// Gathers all that says how to run, with flags of the command's own.
    pub(super) fn config_sources(&self, flags: Vec<CommandLineSetting>) -> ConfigSources {
        let state = self.arguments.state.iter().map(|value| setting_flag("state", value));
        let level = (self.arguments.verbose > 0).then(|| setting_flag("log", self.log_level("info")));
        ConfigSources {
            default_state_directory: default_state_directory(),
            file: flag_or_variable(self.arguments.config.clone(), "PATGATE_CONFIG"),
            environment: std::env::vars_os().collect(),
            flags: state.chain(flags).chain(level).collect(),
        }
    }

    /// Finds state and served folder, for a command beside the server.
    pub(super) fn local_config(&self) -> Result<LocalConfig> {
        telemetry::start_logging(self.log_level("warn"), LogFormat::Text).map_err(CommandError::new)?;
        Ok(LocalConfig::load(&self.config_sources(Vec::new()))?)
    }

    /// Opens a state that is there.
    pub(super) fn open_state(&self) -> Result<OpenState> {
        let local = self.local_config()?;
        require_owner(&local.state)?;
        if !has_state(&local.state) {
            let state = local.state.display();
            // `--state` was once how a list of tokens was narrowed.
            let is_status = self.arguments.state.as_deref().is_some_and(|state| state.parse::<StateFilter>().is_ok());
            if is_status {
                return Err(CommandError::new(format!("there is no patgate state in {state}"))
                    .with_hint("tokens of one status are listed by --status; --state names the state directory"));
            }
            return Err(CommandError::new(format!("there is no patgate state in {state}")).with_hint(
                "name the server's with --state DIR or PATGATE_STATE, or start one: patgate serve --root DIR",
            ));
        }
        open_state(local)
    }

    /// Returns where users and tokens are managed: at a server, where one is named, or on the state that
    /// is there.
    pub(super) fn backend(&self) -> Result<Box<dyn ManagementBackend>> {
        self.backend_with(Self::open_state)
    }

    /// As [`Site::backend`]; makes the state where there is none.
    pub(super) fn backend_or_create(&self) -> Result<Box<dyn ManagementBackend>> {
        self.backend_with(Self::open_or_create_state)
    }

    fn backend_with(&self, open: impl FnOnce(&Self) -> Result<OpenState>) -> Result<Box<dyn ManagementBackend>> {
        let Some(server) = self.server_url()? else { return Ok(Box::new(LocalBackend(open(self)?))) };
        let token = std::env::var("PATGATE_TOKEN").ok();
        let ca_file = self.ca_file();
        let way = RemoteOptions { ca_file: ca_file.as_deref(), allow_cleartext: self.arguments.cleartext };
        Ok(Box::new(RemoteBackend::new(&server, token, way)?))
    }

    /// Returns the server that is named. A state directory that is named on the command line comes before
    /// a server in the environment.
    fn server_url(&self) -> Result<Option<String>> {
        match (&self.arguments.server, &self.arguments.state) {
            (Some(_), Some(_)) => {
                Err(CommandError::usage("--server and --state name two places").with_hint("give one of them"))
            }
            (Some(server), None) => Ok(Some(server.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(std::env::var("PATGATE_SERVER").ok().filter(|server| !server.is_empty())),
        }
    }

    /// Returns the file of the authority to trust, where one is named.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        flag_or_variable(self.arguments.ca_file.clone(), "PATGATE_CA_FILE")
    }

    /// Tells whether things are done over the network.
    pub(super) fn is_remote(&self) -> Result<bool> {
        Ok(self.server_url()?.is_some())
    }

    /// Refuses a server that a flag names, for a command that speaks to none. One in the environment is for
    /// others.
    pub(super) fn reject_server_flag(&self, command: &str) -> Result {
        match &self.arguments.server {
            Some(_) => {
                Err(CommandError::usage(format!("patgate {command} works on this machine, not over the network"))
                    .with_hint("leave --server out; apitoken, admin, node, policy, audit and explain take it"))
            }
            None => Ok(()),
        }
    }

    /// Refuses a server, for what is done on the state directory alone.
    pub(super) fn require_local(&self, what: &str) -> Result {
        match self.server_url()? {
            Some(_) => Err(CommandError::usage(format!("{what} works on the state directory, not over the network"))
                .with_hint("run it where the server runs, with --state DIR")),
            None => Ok(()),
        }
    }

    /// Opens the state; makes it where there is none.
    pub(super) fn open_or_create_state(&self) -> Result<OpenState> {
        let local = self.local_config()?;
        self.will_create_state(&local.state);
        open_state(local)
    }

    /// Notes that the command makes a state where there is none.
    pub(super) fn will_create_state(&self, state: &Path) {
        *self.new_state.borrow_mut() = FreshState::detect(state);
    }

    /// Notes that what the command has made is in use, and stays.
    pub(super) fn keep_state(&self) {
        self.new_state.take();
    }

    /// Removes the state that a refused command has made.
    pub(super) fn discard_new_state(&self) {
        if let Some(fresh) = self.new_state.take() {
            fresh.discard();
        }
    }

    /// Returns the flags of this call that say where it works, as a shell reads them.
    pub(super) fn context_flags(&self) -> String {
        let GlobalArgs { config, state, server, ca_file, cleartext, .. } = &self.arguments;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let flags = [
            ("--config", path(config)),
            ("--state", state.clone()),
            ("--server", server.clone()),
            ("--ca-file", path(ca_file)),
        ];
        let mut text = String::new();
        for (name, value) in flags {
            if let Some(value) = value {
                text += &format!(" {name} {}", output::shell_quote(&value));
            }
        }
        text + if *cleartext { " --cleartext" } else { "" }
    }
}

impl OpenState {
    /// Returns what manages users and tokens, with the served folder where that can be looked at.
    pub(super) fn tokens_with_optional_tree(&self) -> TokenService {
        self.tree().map_or_else(|_| self.tokens.clone(), |tree| self.tokens.clone().with_tree(tree))
    }

    /// Returns what manages users and tokens, with the served folder.
    pub(super) fn tokens_with_tree(&self) -> Result<TokenService> {
        Ok(self.tokens.clone().with_tree(self.tree()?))
    }

    /// Makes a token; opens the served folder only where scopes need it.
    pub(super) fn issue(&self, request: TokenRequest) -> Result<IssuedToken> {
        let tokens = if request.scopes.is_none() { self.tokens.clone() } else { self.tokens_with_tree()? };
        Ok(tokens.issue(&self.authority, request)?)
    }

    /// Opens the served folder: the one that `serve` was last told, or else the configured one.
    pub(super) fn tree(&self) -> Result<Tree> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree.clone());
        }
        let tree = self.attach()?;
        Ok(self.tree.get_or_init(|| tree).clone())
    }

    fn attach(&self) -> Result<Tree> {
        let options = self.tree_options(None)?;
        let root = options.root.clone();
        Tree::attach(options, self.store.clone(), Clock::system())
            .map_err(|error| served_directory_error(&root, &error))
    }

    /// Tells what stands at the path of each node, and binds them to that where it is to.
    pub(super) fn reattach(&self, root: Option<PathBuf>, bind: bool) -> Result<Vec<tree::NodeReattachment>> {
        let options = self.tree_options(root)?;
        Tree::reattach(&options, &self.store, bind).map_err(|error| served_directory_error(&options.root, &error))
    }

    /// Returns how the folder is served that is named, or that `serve` was last told, or else that is configured.
    fn tree_options(&self, named: Option<PathBuf>) -> Result<tree::TreeOptions> {
        let root = match named {
            Some(root) => std::path::absolute(root)?,
            None => self.store.served_root()?.or_else(|| self.config.root.clone()).ok_or_else(|| {
                CommandError::new("no folder is served from this state yet")
                    .with_hint("start the server once (patgate serve --root DIR), or set PATGATE_ROOT")
            })?,
        };
        Ok(tree::TreeOptions { root, durability: tree_durability(self.config.durability) })
    }
}

fn served_directory_error(root: &Path, error: &tree::Error) -> CommandError {
    let failure = CommandError::new(format!("the served folder {} can't be used: {error}", root.display()));
    if matches!(error, tree::Error::TreeMismatch) { failure.with_hint(OTHER_TREE_HINT) } else { failure }
}

fn open_state(local: LocalConfig) -> Result<OpenState> {
    require_owner(&local.state)?;
    let store = Store::open_without_migration(&local.state)?;
    // What is shown is in force, also where a server holds the latest use in memory.
    request_usage_flush(&local.state);
    let tokens = TokenService::new(store.clone(), Clock::system());
    Ok(OpenState { tokens, authority: system_user::authority(), store, config: local, tree: OnceCell::new() })
}

/// Tells whether there is a state, if only a part of one.
pub(super) fn has_state(state: &Path) -> bool {
    ["patgate.db", "pepper"].iter().any(|name| state.join(name).exists())
}

/// Refuses the state of another user, which files of ours would lock out.
fn require_owner(state: &Path) -> Result {
    let (Ok(there), us) = (fs::metadata(state), rustix::process::geteuid().as_raw()) else { return Ok(()) };
    if there.uid() == us {
        return Ok(());
    }
    let (state, owner) = (state.display(), there.uid());
    Err(CommandError::new(format!("the state in {state} belongs to the user id {owner}, not to {us}"))
        .with_hint(format!("run it as that user: sudo -u '#{owner}' patgate …")))
}

/// Returns the path that a flag names, or else a variable; an empty one names none.
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
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = named("XDG_DATA_HOME").or_else(|| named("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("patgate")
}

/// Says when success is answered in the words of the tree.
pub(super) fn tree_durability(configured: config::DurabilitySetting) -> tree::CommitDurability {
    match configured {
        config::DurabilitySetting::Full => tree::CommitDurability::Full,
        config::DurabilitySetting::Fast => tree::CommitDurability::Fast,
    }
}
