//! `patgate quickstart`: serves a directory at once on this machine, with a user, a token and the commands to connect.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::CommandContext;
use super::serve::{ready_line, run_server};
use super::signals::{HarmlessSignals, stop_on_signals};
use super::{CommandError, Result, huge_pages, output, rlimit, system_user, token_format};
use crate::auth::Clock;
use crate::domain::{Login, Permission, Roles, TokenText, TreePath};
use crate::gateway::{Gateway, GatewayDependencies, GatewaySettings, StartError};
use crate::sftp::HostKeys;
use crate::telemetry::{self, LogFormat};
use crate::tokens::{Grant, HomeOption, IssuedToken, TokenRequest, TokenService, UserRequest};

const HTTP_PORT: u16 = 8080;
const SFTP_PORT: u16 = 2022;
/// Number of ports past the first that are tried.
const MAX_PORTS_TRIED: u16 = 100;
const WELCOME_FILE: &str = "welcome.txt";
const WELCOME_TEXT: &str = "This folder is served by patgate over WebDAV and SFTP.\n\
    Put files here, or delete this note; both show up everywhere at once.\n";

/// Serve a folder on this machine at once, with a user and a token
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate quickstart
  patgate quickstart /srv/files --new-token")]
pub(super) struct QuickstartCommand {
    /// The folder; created with a welcome note if it is missing
    #[arg(default_value = "./files")]
    dir: PathBuf,
    /// Create another token although there is one
    #[arg(long)]
    new_token: bool,
    /// Address of WebDAV [default: 127.0.0.1:8080 or the next free port]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Address of SFTP [default: 127.0.0.1:2022 or the next free port]
    #[arg(long, value_name = "ADDR:PORT")]
    sftp: Option<SocketAddr>,
}

impl QuickstartCommand {
    /// Serves until SIGTERM, SIGINT or SIGQUIT.
    pub(super) fn run(self, context: &CommandContext) -> Result {
        telemetry::start_logging(context.log_level("warn"), LogFormat::Text).map_err(CommandError::new)?;
        huge_pages::disable();
        let limit = rlimit::raise_open_file_limit();
        let root = std::path::absolute(&self.dir)?;
        if root.exists() && !root.is_dir() {
            let error = CommandError::new(format!("{} is not a directory", root.display()));
            return Err(error.with_hint("name the folder to serve: patgate quickstart DIR"));
        }
        let state = context.explicit_state().map_or_else(|| default_state_directory(&root), std::path::absolute)?;
        // Root before state: a directory that can't be created fails the command before there is any state to discard.
        let created_root = create_root(&root)?;
        context.will_create_state(&state);
        let result = run_server(async {
            // Before the state is opened, as `serve` does: none of these signals may end the server without a drain.
            let harmless = HarmlessSignals::register()?;
            let gateway = self.open_gateway(&root, &state, limit).await?;
            let stop = stop_on_signals()?;
            let hangup_stop = stop.clone();
            // There is no configuration to reload, and whoever closes the terminal is done with it.
            tokio::spawn(harmless.handle(move || hangup_stop.cancel(), || false));
            self.print_instructions(context, &gateway, &root, &state)?;
            // Not earlier: if the secret could not be printed, nobody knows it, and the state is worth nothing.
            context.keep_state();
            gateway.run(stop).await;
            Ok(())
        });
        if result.is_err() && created_root {
            // The welcome note must not claim that a directory is served that is not.
            let _ = fs::remove_file(root.join(WELCOME_FILE));
            let _ = fs::remove_dir(&root);
        }
        result
    }

    /// Opens the gateway on the first ports that are free.
    async fn open_gateway(&self, root: &Path, state: &Path, limit: Option<u64>) -> Result<Gateway> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut settings = GatewaySettings::new(root, state);
        if let Some(limit) = limit {
            rlimit::descriptor_budget_of_settings(limit, &settings).limit_settings(&mut settings);
        }
        let (mut http, mut sftp) = (HTTP_PORT, SFTP_PORT);
        loop {
            settings.http = Some(self.http.unwrap_or_else(|| local(http)));
            settings.sftp = Some(self.sftp.unwrap_or_else(|| local(sftp)));
            // Ports are tried by opening the gateway itself: a probe beforehand would race with other programs.
            match Gateway::open(settings.clone(), GatewayDependencies::default()).await {
                Err(StartError::Listen { address, source }) if source.kind() == io::ErrorKind::AddrInUse => {
                    let busy_address = Some(address);
                    if busy_address == settings.http && self.http.is_none() && http < HTTP_PORT + MAX_PORTS_TRIED {
                        http += 1;
                    } else if busy_address == settings.sftp && self.sftp.is_none() && sftp < SFTP_PORT + MAX_PORTS_TRIED
                    {
                        sftp += 1;
                    } else {
                        return Err(StartError::Listen { address, source }.into());
                    }
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// Creates user and token if needed, and prints how to connect.
    fn print_instructions(&self, context: &CommandContext, gateway: &Gateway, root: &Path, state: &Path) -> Result {
        let login = current_login();
        let issued = self.ensure_token(gateway, &login)?;
        let revealed = issued.as_ref().and_then(|issued| issued.text.as_ref()).map(TokenText::reveal);
        let secret = revealed.as_ref().map(|secret| secret.as_str());
        let (Some(http), Some(sftp)) = (gateway.http_address(), gateway.sftp_address()) else {
            return Err(CommandError::new("a listener has closed"));
        };
        let fingerprints = HostKeys::open(state)?.fingerprints();
        if context.prints_json() {
            return output::print_json(&json!({
                "root": root, "state": state, "url": format!("http://{http}/dav/"), "sftp": sftp.to_string(),
                "user": login, "token": secret, "fingerprints": fingerprints,
            }));
        }
        let secret_note = match &issued {
            Some(issued) => {
                format!("shown only now; expires: {}", token_format::format_expiration(&issued.record))
            }
            None => "the secret is not stored: --new-token creates another token".to_owned(),
        };
        let instructions =
            QuickstartInstructions { root, state, login: &login, secret, secret_note, http, sftp, fingerprints };
        output::print_line(&instructions.text())?;
        output::print_line(&ready_line(gateway))
    }

    /// Creates the user if there is none, and a token if there is no live one or `--new-token` is given.
    fn ensure_token(&self, gateway: &Gateway, login: &Login) -> Result<Option<IssuedToken>> {
        let (tokens, principal) =
            (TokenService::new(gateway.store().clone(), Clock::system()), &system_user::principal());
        let tokens = tokens.with_tree(gateway.tree().clone());
        if gateway.store().user(login)?.is_none() {
            let root_grant = Grant { path: TreePath::root(), permission: Permission::RW };
            let request = UserRequest {
                login: login.clone(),
                roles: Roles::none(),
                grants: vec![root_grant],
                home: HomeOption::Skip,
                quota: None,
            };
            tokens.create_user(principal, &request)?;
        }
        // A second run must not add a token each time, since policy bounds their number.
        if !self.new_token && tokens.count_live_tokens(principal, login)? > 0 {
            return Ok(None);
        }
        let mut request = TokenRequest::new(login.clone());
        request.name = "quickstart".parse().ok();
        Ok(Some(tokens.issue(principal, request)?))
    }
}

/// The instructions for people.
struct QuickstartInstructions<'a> {
    root: &'a Path,
    state: &'a Path,
    login: &'a Login,
    secret: Option<&'a str>,
    secret_note: String,
    http: SocketAddr,
    sftp: SocketAddr,
    fingerprints: Vec<String>,
}

impl QuickstartInstructions<'_> {
    fn text(&self) -> String {
        let Self { root, state, login, http, sftp, secret_note, .. } = self;
        let (root, state, secret) =
            (root.display(), output::shell_quote(&state.display().to_string()), self.secret.unwrap_or("TOKEN"));
        let (host, port) = (sftp.ip(), sftp.port());
        let (url, console) = (format!("http://{http}/dav/"), format!("http://{http}/console/"));
        let program = std::env::args_os()
            .next()
            .map_or_else(|| "patgate".to_owned(), |name| output::shell_quote(&name.to_string_lossy()));
        let keys = self.fingerprints.join("\n               ");
        format!(
            "\
patgate serves {root}

  WebDAV       {url}
  SFTP         {host} port {port}
  user name    {login}
  password     {secret}
               ({secret_note})
  host key     {keys}

In a browser, open {url} for the files, or {console} to manage
tokens, and give user name and password. Or:

  curl    curl -u '{login}:{secret}' {url}
  rclone  RCLONE_WEBDAV_PASS=$(echo '{secret}' | rclone obscure -) rclone lsf :webdav: --webdav-url {url} --webdav-user {login}
  davfs2  echo 'buf_size 256' | sudo tee -a /etc/davfs2/davfs2.conf        (once, on Linux 6 and later)
          echo '{secret}' | sudo mount -t davfs -o username={login},uid=$(id -u) {url} /mnt
  sftp    sftp -P {port} {login}@{host}        (asks for the password above)
  sshfs   echo '{secret}' | sshfs -p {port} -o password_stdin,idmap=user,StrictHostKeyChecking=accept-new {login}@{host}:/ /mnt

Step by step, also for programs with windows ({program} client lists them):

  {program} client rclone --url {url} --user {login} --sftp {sftp}

More users and tokens, while this runs or not:

  {program} --state {state} admin user create alice
  {program} --state {state} admin user token -u alice -e 24h
"
        )
    }
}

/// Returns the state directory beside a folder: `DIR.patgate`.
fn default_state_directory(root: &Path) -> io::Result<PathBuf> {
    let root = if root.file_name().is_some() { root.to_owned() } else { root.canonicalize()? };
    match root.file_name() {
        Some(name) => {
            let mut name = name.to_owned();
            name.push(".patgate");
            Ok(root.with_file_name(name))
        }
        None => Err(io::Error::other("there is no directory beside /: name the state directory with --state DIR")),
    }
}

/// Creates the directory to serve; returns whether it was missing.
fn create_root(root: &Path) -> Result<bool> {
    if root.exists() {
        return Ok(false);
    }
    let created_root = fs::create_dir_all(root).and_then(|()| {
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        fs::File::create_new(root.join(WELCOME_FILE))?.write_all(WELCOME_TEXT.as_bytes())
    });
    created_root.map(|()| true).map_err(|error| {
        CommandError::new(format!("the directory {} can't be created: {error}", root.display()))
            .with_hint("name a directory that you may create: patgate quickstart DIR")
    })
}

/// Returns the name of the user who runs this, or `me` if that is no valid login.
fn current_login() -> Login {
    let login = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    login.or_else(|| "me".parse().ok()).unwrap_or_else(|| unreachable!("`me` is a login"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_defaults_to_a_sibling_of_the_root() {
        assert_eq!(default_state_directory(Path::new("/srv/files")).expect("a place"), Path::new("/srv/files.patgate"));
        assert_eq!(
            default_state_directory(Path::new("/srv/files/")).expect("a place"),
            Path::new("/srv/files.patgate")
        );
        assert!(default_state_directory(Path::new("/")).is_err());
    }
}
