//! `patgate admin user`: the logins that own tokens, and what they may reach.

use clap::{Args, Subcommand};

use super::site::Site;
use super::user_token::UserToken;
use super::{Result, output, token_view};
use crate::api::types::{CreatedUserResponse, UserResponse};
use crate::domain::{Login, Role, Roles};
use crate::tokens::{Grant, GrantTarget, HomeOption, UserRequest};

/// Manage users
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate admin user list")]
pub(super) struct UserCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(Create),
    /// List the users
    #[command(after_help = "Example:\n  patgate admin user list --json")]
    List,
    /// Show a user: state, roles, what it may reach
    #[command(after_help = "Example:\n  patgate admin user show alice")]
    Show(Named),
    /// Refuse all tokens of a user from now on; open sessions end
    #[command(after_help = "Example:\n  patgate admin user disable alice")]
    Disable(Named),
    /// Accept the tokens of a disabled user again
    #[command(after_help = "Example:\n  patgate admin user enable alice")]
    Enable(Named),
    Roles(RolesCommand),
    /// Delete a user with its tokens and grants; files stay
    #[command(after_help = "Example:\n  patgate admin user delete alice")]
    Delete(Named),
    /// Give a user a permission at a path, in place of the one it had there
    #[command(after_help = "Example:\n  patgate admin user grant alice /projects/apollo:r")]
    Grant(GrantCommand),
    /// Take a grant back
    #[command(after_help = "Example:\n  patgate admin user revoke-grant alice /projects/apollo")]
    RevokeGrant(RevokeGrant),
    Token(Box<UserToken>),
}

/// Make a user, with a home unless grants are given
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user create alice
  patgate admin user create backup --grant /backup:rw --grant /projects:r
  patgate admin user create carol --role admin")]
struct Create {
    /// The login
    login: Login,
    /// What it may reach, /some/path:PERM with PERM r, w or rw; repeatable
    #[arg(long = "grant", value_name = "PATH:PERM")]
    grants: Vec<Grant>,
    /// What its tokens may do through the REST API and in the console: admin (everything), users.manage,
    /// policy.manage, audit.read, security.generate_tokens, security.authentication_lookup or
    /// security.revoke_tokens; repeatable
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Make no home
    #[arg(long)]
    no_home: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// The login
    login: Login,
}

/// Give a user these roles and no others; its tokens lose those that it loses
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user roles carol admin
  patgate admin user roles helpdesk users.manage security.generate_tokens
  patgate admin user roles carol --none

A token has a role only where it is made with --role, too.")]
struct RolesCommand {
    /// The login
    login: Login,
    /// admin (everything), users.manage, policy.manage, audit.read, security.generate_tokens,
    /// security.authentication_lookup or security.revoke_tokens
    #[arg(value_name = "ROLE", required_unless_present = "none", conflicts_with = "none")]
    roles: Vec<Role>,
    /// Take all roles away
    #[arg(long)]
    none: bool,
}

#[derive(Debug, Args)]
struct GrantCommand {
    /// The login
    login: Login,
    /// Where and what, with PERM r, w or rw
    #[arg(value_name = "PATH:PERM")]
    grant: Grant,
}

#[derive(Debug, Args)]
struct RevokeGrant {
    /// The login
    login: Login,
    /// The path, or node:UUID for a grant that dangles
    #[arg(value_name = "PATH")]
    place: GrantTarget,
}

impl UserCommand {
    /// Does what was asked.
    pub(super) fn run(&self, site: &Site) -> Result {
        match &self.what {
            What::Create(create) => create.run(site),
            What::List => list(site),
            What::Show(Named { login }) => show(site, login),
            What::Disable(Named { login }) => {
                site.desk()?.disable(login, true)?;
                done(site, login, "is disabled: none of its tokens is accepted")
            }
            What::Enable(Named { login }) => {
                site.desk()?.disable(login, false)?;
                done(site, login, "is enabled")
            }
            What::Roles(RolesCommand { login, roles, .. }) => {
                let roles: Roles = roles.iter().copied().collect();
                site.desk()?.set_roles(login, &roles)?;
                let has = match roles.iter().count() {
                    0 => "no roles".to_owned(),
                    1 => format!("the role {roles}"),
                    _ => format!("the roles {roles}"),
                };
                done(site, login, &format!("has {has} now"))
            }
            What::Delete(Named { login }) => {
                site.desk()?.delete_user(login)?;
                if site.json() {
                    return output::json(&serde_json::json!({ "login": login, "deleted": true }));
                }
                output::say(&format!("User {login} has been deleted with its tokens; its files are still there"))
            }
            What::Grant(GrantCommand { login, grant }) => {
                site.desk()?.grant(login, grant)?;
                done(site, login, &format!("may {} {}", verb(grant), grant.path))
            }
            What::RevokeGrant(RevokeGrant { login, place }) => {
                site.desk()?.revoke_grant(login, place)?;
                done(site, login, &format!("has no grant on {place} any more"))
            }
            What::Token(token) => token.run(site),
        }
    }
}

impl Create {
    fn run(&self, site: &Site) -> Result {
        let home = if self.no_home || !self.grants.is_empty() { HomeOption::Skip } else { HomeOption::Create };
        let Self { login, roles, grants, .. } = self;
        let roles = roles.iter().copied().collect();
        let request = UserRequest { login: login.clone(), roles, grants: grants.clone(), home };
        let created = site.desk_or_make()?.create_user(&request)?;
        // Whatever becomes of what is printed.
        site.keeps();
        done(site, login, &format!("has been created{}", welcome(&created)))
    }
}

fn welcome(created: &CreatedUserResponse) -> String {
    let reaches: Vec<_> = created.user.grants.iter().map(token_view::reach).collect();
    if reaches.is_empty() {
        return "; it reaches nothing yet".to_owned();
    }
    let home = match &created.home {
        Some(home) if created.home_was_there => format!("; {home} and what is in it was there before"),
        _ => String::new(),
    };
    format!(" and reaches {}{home}", reaches.join(", "))
}

fn verb(grant: &Grant) -> &'static str {
    match grant.permission.to_string().as_str() {
        "r" => "read",
        "w" => "write to",
        _ => "read and write to",
    }
}

/// Tells that something was done to a user: a sentence, or the user as it is now.
fn done(site: &Site, login: &Login, what: &str) -> Result {
    if site.json() { show(site, login) } else { output::say(&format!("User {login} {what}")) }
}

fn list(site: &Site) -> Result {
    let users = site.desk()?.users()?;
    if site.json() {
        return output::json(&users);
    }
    let rows: Vec<_> = users.into_iter().map(row).collect();
    output::table(["LOGIN", "STATE", "LIVE TOKENS", "ROLES", "REACHES"], &rows)
}

fn show(site: &Site, login: &Login) -> Result {
    let user = site.desk()?.user(login)?;
    if site.json() {
        return output::json(&user);
    }
    let created = user.created_at.clone();
    let [login, state, live, roles, reaches] = row(user);
    output::facts(&[
        ("login", login),
        ("state", state),
        ("created", created),
        ("roles", roles),
        ("reaches", reaches),
        ("live tokens", live),
    ])
}

fn row(user: UserResponse) -> [String; 5] {
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let reaches = user.grants.iter().map(token_view::reach).collect::<Vec<_>>().join(", ");
    let state = user.disabled_at.map_or_else(|| "enabled".to_owned(), |at| format!("disabled since {at}"));
    [user.login.to_string(), state, user.live_tokens.to_string(), none(user.roles.to_string()), none(reaches)]
}
