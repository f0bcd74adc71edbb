//! Runs the gateway inside another program: serves a folder on free ports of this machine with a user
//! and a token of its own, says how to reach it, and stops when its standard input ends.
//!
//! ```text
//! cargo run --example embed -- FOLDER STATE
//! ```

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use patgate::auth::Clock;
use patgate::domain::{Login, Roles};
use patgate::gateway::{Gateway, GatewayDependencies, GatewaySettings};
use patgate::tokens::{HomeOption, Principal, TokenRequest, TokenService, UserRequest};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(root), Some(state)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("give the folder to serve and a folder for the state");
    };
    let mut settings = GatewaySettings::new(root, state);
    settings.http = Some(([127, 0, 0, 1], 0).into());
    settings.sftp = Some(([127, 0, 0, 1], 0).into());
    let gateway = Gateway::open(settings, GatewayDependencies::default()).await?;

    let tokens = TokenService::new(gateway.store().clone(), Clock::system()).with_tree(gateway.tree().clone());
    let administrator = Principal::Administrator;
    let owner: Login = "guest".parse()?;
    if tokens.user(&administrator, &owner).is_err() {
        let grants = vec!["/:rw".parse().map_err(anyhow::Error::msg)?];
        let user =
            UserRequest { login: owner.clone(), roles: Roles::none(), grants, home: HomeOption::Skip, quota: None };
        tokens.create_user(&administrator, &user)?;
    }
    let issued = tokens.issue(&administrator, TokenRequest::new(owner.clone()))?;

    #[allow(clippy::print_stdout)]
    {
        println!("http://{}/dav/", gateway.http_address().context("HTTP is on")?);
        println!("sftp://{}@{}/", owner, gateway.sftp_address().context("SFTP is on")?);
        println!("{}", *issued.text.context("it has a secret")?.reveal());
    }

    let stop = CancellationToken::new();
    let serving = tokio::spawn(gateway.run(stop.clone()));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    stop.cancel();
    serving.await?;
    Ok(())
}
