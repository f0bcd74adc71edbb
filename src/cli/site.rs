//! Where a command works: the state directory, what is kept there, and the folder that is served.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::desk::{Desk, Here, There, Way};
use super::failure::OTHER_TREE;
use super::fresh_state::FreshState;
use super::{Failure, Global, Result, output, system_user};
use crate::auth::{Clock, request_usage_flush};
use crate::config::{self, CommandLineSetting, ConfigSources, LocalConfig};
use crate::store::Store;
use crate::telemetry::{self, LogFormat};
use crate::tokens::{IssuedToken, Principal, StateFilter, TokenRequest, TokenService};
use crate::tree::{self, Tree};

/// Where a command works, and how it prints.
#[derive(Debug)]
pub(super) struct Site {
    global: Global,
    /// What a refused command leaves nothing of.
    fresh: RefCell<Option<FreshState>>,
}

/// What is kept, and where the served folder is.
pub(super) struct Open {
    /// Users, tokens and policy.
    pub(super) tokens: TokenService,
    /// Who works on it.
    pub(super) authority: Principal,
    store: Store,
    local: LocalConfig,
    tree: OnceCell<Tree>,
}

impl Site {
    /// Takes what every command takes.
    pub(super) fn new(global: Global) -> Self {
        Self { global, fresh: RefCell::default() }
    }

    /// Tells whether to print JSON.
    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    /// Returns what to log: `usual`, or more when asked for.
    pub(super) fn log_level(&self, usual: &'static str) -> &'static str {
        match self.global.verbose {
            0 => usual,
            1 => "info,patgate=debug",
            _ => "debug,patgate=trace",
        }
    }

    /// Returns the state directory where a flag or the environment names one.
    pub(super) fn told_state(&self) -> Option<PathBuf> {
        told(self.global.state.as_ref().map(PathBuf::from), "PATGATE_STATE")
    }

    /// Gathers all that says how to run, with flags of the command's own.
    pub(super) fn sources(&self, flags: Vec<CommandLineSetting>) -> ConfigSources {
        let state = self.global.state.iter().map(|value| flag("state", value));
        let level = (self.global.verbose > 0).then(|| flag("log", self.log_level("info")));
        ConfigSources {
            default_state_directory: default_state(),
            file: told(self.global.config.clone(), "PATGATE_CONFIG"),
            environment: std::env::vars_os().collect(),
            flags: state.chain(flags).chain(level).collect(),
        }
    }

    /// Finds state and served folder, for a command beside the server.
    pub(super) fn local(&self) -> Result<LocalConfig> {
        telemetry::start_logging(self.log_level("warn"), LogFormat::Text).map_err(Failure::new)?;
        Ok(LocalConfig::load(&self.sources(Vec::new()))?)
    }

    /// Opens a state that is there.
    pub(super) fn open(&self) -> Result<Open> {
        let local = self.local()?;
        own(&local.state)?;
        if !has_state(&local.state) {
            let state = local.state.display();
            // `--state` was once how a list of tokens was narrowed.
            let is_status = self.global.state.as_deref().is_some_and(|state| state.parse::<StateFilter>().is_ok());
            if is_status {
                return Err(Failure::new(format!("there is no patgate state in {state}"))
                    .hint("tokens of one status are listed by --status; --state names the state directory"));
            }
            return Err(Failure::new(format!("there is no patgate state in {state}"))
                .hint("name the server's with --state DIR or PATGATE_STATE, or start one: patgate serve --root DIR"));
        }
        open(local)
    }

    /// Returns where users and tokens are managed: at a server, where one is named, or on the state that
    /// is there.
    pub(super) fn desk(&self) -> Result<Box<dyn Desk>> {
        self.desk_on(Self::open)
    }

    /// As [`Site::desk`]; makes the state where there is none.
    pub(super) fn desk_or_make(&self) -> Result<Box<dyn Desk>> {
        self.desk_on(Self::open_or_make)
    }

    fn desk_on(&self, open: impl FnOnce(&Self) -> Result<Open>) -> Result<Box<dyn Desk>> {
        let Some(server) = self.server()? else { return Ok(Box::new(Here(open(self)?))) };
        let token = std::env::var("PATGATE_TOKEN").ok();
        let ca_file = self.ca_file();
        let way = Way { ca_file: ca_file.as_deref(), cleartext: self.global.cleartext };
        Ok(Box::new(There::new(&server, token, way)?))
    }

    /// Returns the server that is named. A state directory that is named on the command line comes before
    /// a server in the environment.
    fn server(&self) -> Result<Option<String>> {
        match (&self.global.server, &self.global.state) {
            (Some(_), Some(_)) => Err(Failure::usage("--server and --state name two places").hint("give one of them")),
            (Some(server), None) => Ok(Some(server.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(std::env::var("PATGATE_SERVER").ok().filter(|server| !server.is_empty())),
        }
    }

    /// Returns the file of the authority to trust, where one is named.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        told(self.global.ca_file.clone(), "PATGATE_CA_FILE")
    }

    /// Tells whether things are done over the network.
    pub(super) fn is_remote(&self) -> Result<bool> {
        Ok(self.server()?.is_some())
    }

    /// Refuses a server that a flag names, for a command that speaks to none. One in the environment is for
    /// others.
    pub(super) fn refuse_server(&self, command: &str) -> Result {
        match &self.global.server {
            Some(_) => Err(Failure::usage(format!("patgate {command} works on this machine, not over the network"))
                .hint("leave --server out; apitoken, admin, node, policy, audit and explain take it")),
            None => Ok(()),
        }
    }

    /// Refuses a server, for what is done on the state directory alone.
    pub(super) fn here_only(&self, what: &str) -> Result {
        match self.server()? {
            Some(_) => Err(Failure::usage(format!("{what} works on the state directory, not over the network"))
                .hint("run it where the server runs, with --state DIR")),
            None => Ok(()),
        }
    }

    /// Opens the state; makes it where there is none.
    pub(super) fn open_or_make(&self) -> Result<Open> {
        let local = self.local()?;
        self.makes(&local.state);
        open(local)
    }

    /// Notes that the command makes a state where there is none.
    pub(super) fn makes(&self, state: &Path) {
        *self.fresh.borrow_mut() = FreshState::look(state);
    }

    /// Notes that what the command has made is in use, and stays.
    pub(super) fn keeps(&self) {
        self.fresh.take();
    }

    /// Removes the state that a refused command has made.
    pub(super) fn discard(&self) {
        if let Some(fresh) = self.fresh.take() {
            fresh.discard();
        }
    }

    /// Returns the flags of this call that say where it works, as a shell reads them.
    pub(super) fn place_flags(&self) -> String {
        let Global { config, state, server, ca_file, cleartext, .. } = &self.global;
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
                text += &format!(" {name} {}", output::quoted(&value));
            }
        }
        text + if *cleartext { " --cleartext" } else { "" }
    }
}

impl Open {
    /// Returns what manages users and tokens, with the served folder where that can be looked at.
    pub(super) fn looking(&self) -> TokenService {
        self.tree().map_or_else(|_| self.tokens.clone(), |tree| self.tokens.clone().with_tree(tree))
    }

    /// Returns what manages users and tokens, with the served folder.
    pub(super) fn with_tree(&self) -> Result<TokenService> {
        Ok(self.tokens.clone().with_tree(self.tree()?))
    }

    /// Makes a token; opens the served folder only where scopes need it.
    pub(super) fn issue(&self, request: TokenRequest) -> Result<IssuedToken> {
        let tokens = if request.scopes.is_none() { self.tokens.clone() } else { self.with_tree()? };
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
        let options = self.options(None)?;
        let root = options.root.clone();
        Tree::attach(options, self.store.clone(), Clock::system()).map_err(|error| unusable(&root, &error))
    }

    /// Tells what stands at the path of each node, and binds them to that where it is to.
    pub(super) fn reattach(&self, root: Option<PathBuf>, bind: bool) -> Result<Vec<tree::NodeReattachment>> {
        let options = self.options(root)?;
        Tree::reattach(&options, &self.store, bind).map_err(|error| unusable(&options.root, &error))
    }

    /// Returns how the folder is served that is named, or that `serve` was last told, or else that is configured.
    fn options(&self, named: Option<PathBuf>) -> Result<tree::TreeOptions> {
        let root = match named {
            Some(root) => std::path::absolute(root)?,
            None => self.store.served_root()?.or_else(|| self.local.root.clone()).ok_or_else(|| {
                Failure::new("no folder is served from this state yet")
                    .hint("start the server once (patgate serve --root DIR), or set PATGATE_ROOT")
            })?,
        };
        Ok(tree::TreeOptions { root, durability: durability(self.local.durability) })
    }
}

fn unusable(root: &Path, error: &tree::Error) -> Failure {
    let failure = Failure::new(format!("the served folder {} can't be used: {error}", root.display()));
    if matches!(error, tree::Error::TreeMismatch) { failure.hint(OTHER_TREE) } else { failure }
}

fn open(local: LocalConfig) -> Result<Open> {
    own(&local.state)?;
    let store = Store::open_without_migration(&local.state)?;
    // What is shown is in force, also where a server holds the latest use in memory.
    request_usage_flush(&local.state);
    let tokens = TokenService::new(store.clone(), Clock::system());
    Ok(Open { tokens, authority: system_user::authority(), store, local, tree: OnceCell::new() })
}

/// Tells whether there is a state, if only a part of one.
pub(super) fn has_state(state: &Path) -> bool {
    ["patgate.db", "pepper"].iter().any(|name| state.join(name).exists())
}

/// Refuses the state of another user, which files of ours would lock out.
fn own(state: &Path) -> Result {
    let (Ok(there), us) = (fs::metadata(state), rustix::process::geteuid().as_raw()) else { return Ok(()) };
    if there.uid() == us {
        return Ok(());
    }
    let (state, owner) = (state.display(), there.uid());
    Err(Failure::new(format!("the state in {state} belongs to the user id {owner}, not to {us}"))
        .hint(format!("run it as that user: sudo -u '#{owner}' patgate …")))
}

/// Returns the path that a flag names, or else a variable; an empty one names none.
fn told(flag: Option<PathBuf>, variable: &str) -> Option<PathBuf> {
    flag.or_else(|| std::env::var_os(variable).map(PathBuf::from)).filter(|path| !path.as_os_str().is_empty())
}

fn flag(key: &str, value: &str) -> CommandLineSetting {
    CommandLineSetting { typed_name: format!("--{key}"), key: key.to_owned(), value: value.to_owned() }
}

fn default_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/patgate");
    }
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = named("XDG_DATA_HOME").or_else(|| named("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("patgate")
}

/// Says when success is answered in the words of the tree.
pub(super) fn durability(configured: config::DurabilitySetting) -> tree::CommitDurability {
    match configured {
        config::DurabilitySetting::Full => tree::CommitDurability::Full,
        config::DurabilitySetting::Fast => tree::CommitDurability::Fast,
    }
}
