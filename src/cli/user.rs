//! `patgate admin user`: users and their grants.

use clap::{Args, Subcommand};

use super::context::CommandContext;
use super::user_token::CreateUserTokenCommand;
use super::{Result, output, token_format};
use crate::api::types::{CreatedUserResponse, UserResponse};
use crate::domain::{ByteSize, Login, Role, Roles};
use crate::tokens::{Grant, GrantTarget, HomeOption, UserRequest};

/// Manage users
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate admin user list")]
pub(super) struct UserCommand {
    #[command(subcommand)]
    subcommand: UserSubcommand,
}

#[derive(Debug, Subcommand)]
enum UserSubcommand {
    Create(CreateUserArgs),
    /// List the users
    #[command(after_help = "Example:\n  patgate admin user list --json")]
    List,
    /// Show a user: state, roles, grants
    #[command(after_help = "Example:\n  patgate admin user show alice")]
    Show(LoginArg),
    /// Refuse all tokens of a user from now on; open sessions are closed
    #[command(after_help = "Example:\n  patgate admin user disable alice")]
    Disable(LoginArg),
    /// Accept the tokens of a disabled user again
    #[command(after_help = "Example:\n  patgate admin user enable alice")]
    Enable(LoginArg),
    Roles(SetRolesArgs),
    Quota(SetQuotaArgs),
    /// Delete a user with its tokens and grants; files stay
    #[command(after_help = "Example:\n  patgate admin user delete alice")]
    Delete(LoginArg),
    /// Grant a user a permission on a path, in place of its present grant there
    #[command(after_help = "Example:\n  patgate admin user grant alice /projects/apollo:r")]
    Grant(GrantArgs),
    /// Remove a grant
    #[command(after_help = "Example:\n  patgate admin user revoke-grant alice /projects/apollo")]
    RevokeGrant(RevokeGrantArgs),
    Token(Box<CreateUserTokenCommand>),
}

/// Create a user, with a home unless grants are given
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user create alice
  patgate admin user create backup --grant /backup:rw --grant /projects:r
  patgate admin user create carol --role admin
  patgate admin user create dave --quota 10GiB")]
struct CreateUserArgs {
    /// The login
    login: Login,
    /// Grant /some/path:PERM, with PERM r, w or rw; repeatable
    #[arg(long = "grant", value_name = "PATH:PERM")]
    grants: Vec<Grant>,
    /// Role in the REST API and the console that its tokens may have: admin (everything), users.manage, policy.manage,
    /// audit.read, metrics.read, security.generate_tokens, security.authentication_lookup or security.revoke_tokens;
    /// repeatable
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Create no home
    #[arg(long)]
    no_home: bool,
    /// Maximum size of all files together where it may write, such as 10GiB
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
}

#[derive(Debug, Args)]
struct LoginArg {
    /// The login
    login: Login,
}

/// Set the roles of a user; its tokens lose roles that it loses
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user roles carol admin
  patgate admin user roles helpdesk users.manage security.generate_tokens
  patgate admin user roles carol --none

A token has a role only if it is created with --role, too.")]
struct SetRolesArgs {
    /// The login
    login: Login,
    /// admin (everything), users.manage, policy.manage, audit.read, metrics.read, security.generate_tokens,
    /// security.authentication_lookup or security.revoke_tokens
    #[arg(value_name = "ROLE", required_unless_present = "none", conflicts_with = "none")]
    roles: Vec<Role>,
    /// Remove all roles
    #[arg(long)]
    none: bool,
}

/// Set the storage quota of a user: the maximum size of all files together where it may write
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user quota alice 10GiB
  patgate admin user quota alice none

The files are counted anew in the background, also where the quota stays the same.")]
struct SetQuotaArgs {
    /// The login
    login: Login,
    /// Whole bytes or a unit, such as 4096, 10MiB, 1GiB or 5GB; none removes the quota
    #[arg(value_name = "SIZE", value_parser = parse_quota)]
    quota: QuotaArg,
}

/// A size, or the word `none`.
#[derive(Clone, Copy, Debug)]
struct QuotaArg(Option<ByteSize>);

fn parse_quota(text: &str) -> std::result::Result<QuotaArg, String> {
    match text.trim() {
        "none" => Ok(QuotaArg(None)),
        size => size.parse().map(|size| QuotaArg(Some(size))),
    }
}

#[derive(Debug, Args)]
struct GrantArgs {
    /// The login
    login: Login,
    /// Path and permission, with PERM r, w or rw
    #[arg(value_name = "PATH:PERM")]
    grant: Grant,
}

#[derive(Debug, Args)]
struct RevokeGrantArgs {
    /// The login
    login: Login,
    /// The path, or node:UUID for a dangling grant
    #[arg(value_name = "PATH")]
    target: GrantTarget,
}

impl UserCommand {
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        match &self.subcommand {
            UserSubcommand::Create(create) => create.run(context),
            UserSubcommand::List => list_users(context),
            UserSubcommand::Show(LoginArg { login }) => show_user(context, login),
            UserSubcommand::Disable(LoginArg { login }) => {
                context.backend()?.set_disabled(login, true)?;
                print_result(context, login, "is disabled: none of its tokens is accepted")
            }
            UserSubcommand::Enable(LoginArg { login }) => {
                context.backend()?.set_disabled(login, false)?;
                print_result(context, login, "is enabled")
            }
            UserSubcommand::Roles(SetRolesArgs { login, roles, .. }) => {
                let roles: Roles = roles.iter().copied().collect();
                context.backend()?.set_roles(login, &roles)?;
                let held_roles = match roles.iter().count() {
                    0 => "no roles".to_owned(),
                    1 => format!("the role {roles}"),
                    _ => format!("the roles {roles}"),
                };
                print_result(context, login, &format!("has {held_roles} now"))
            }
            UserSubcommand::Quota(SetQuotaArgs { login, quota: QuotaArg(quota) }) => {
                context.backend()?.set_quota(login, *quota)?;
                let quota = quota.map_or_else(|| "no quota".to_owned(), |quota| format!("a quota of {quota}"));
                print_result(context, login, &format!("has {quota} now"))
            }
            UserSubcommand::Delete(LoginArg { login }) => {
                context.backend()?.delete_user(login)?;
                if context.prints_json() {
                    return output::print_json(&serde_json::json!({ "login": login, "deleted": true }));
                }
                output::print_line(&format!("User {login} has been deleted with its tokens; its files are still there"))
            }
            UserSubcommand::Grant(GrantArgs { login, grant }) => {
                context.backend()?.create_grant(login, grant)?;
                print_result(context, login, &format!("may {} {}", permission_verb(grant), grant.path))
            }
            UserSubcommand::RevokeGrant(RevokeGrantArgs { login, target }) => {
                context.backend()?.revoke_grant(login, target)?;
                print_result(context, login, &format!("has no grant on {target} any more"))
            }
            UserSubcommand::Token(token) => token.run(context),
        }
    }
}

impl CreateUserArgs {
    fn run(&self, context: &CommandContext) -> Result {
        let home = if self.no_home || !self.grants.is_empty() { HomeOption::Skip } else { HomeOption::Create };
        let Self { login, roles, grants, .. } = self;
        let roles = roles.iter().copied().collect();
        let request = UserRequest { login: login.clone(), roles, grants: grants.clone(), home, quota: self.quota };
        let created = context.backend_or_create()?.create_user(&request)?;
        // The user exists from here on, so the state must stay even if printing fails.
        context.keep_state();
        print_result(context, login, &format!("has been created{}", created_user_summary(&created)))
    }
}

fn created_user_summary(created: &CreatedUserResponse) -> String {
    let access: Vec<_> = created.user.grants.iter().map(token_format::format_permission).collect();
    if access.is_empty() {
        return "; it has no access yet".to_owned();
    }
    let home = match &created.home {
        Some(home) if created.home_was_there => format!("; {home} and its content existed before"),
        _ => String::new(),
    };
    format!(" with access {}{home}", access.join(", "))
}

fn permission_verb(grant: &Grant) -> &'static str {
    match grant.permission.to_string().as_str() {
        "r" => "read",
        "w" => "write to",
        _ => "read and write to",
    }
}

/// Prints the outcome of a change: a sentence, or the changed user as JSON.
fn print_result(context: &CommandContext, login: &Login, outcome: &str) -> Result {
    if context.prints_json() {
        show_user(context, login)
    } else {
        output::print_line(&format!("User {login} {outcome}"))
    }
}

fn list_users(context: &CommandContext) -> Result {
    let users = context.backend()?.list_users()?;
    if context.prints_json() {
        return output::print_json(&users);
    }
    let rows: Vec<_> = users.into_iter().map(user_row).collect();
    output::print_table(["LOGIN", "STATE", "LIVE TOKENS", "ROLES", "ACCESS"], &rows)
}

fn show_user(context: &CommandContext, login: &Login) -> Result {
    let user = context.backend()?.user(login)?;
    if context.prints_json() {
        return output::print_json(&user);
    }
    let created = user.created_at.clone();
    let storage = storage_text(&user);
    let [login, state, live, roles, access] = user_row(user);
    output::print_fields(&[
        ("login", login),
        ("state", state),
        ("created", created),
        ("roles", roles),
        ("access", access),
        ("live tokens", live),
        ("storage", storage),
    ])
}

/// Returns the use of the storage quota in words.
fn storage_text(user: &UserResponse) -> String {
    let Some(quota) = user.quota else { return "no quota".to_owned() };
    let used = user.quota_used.unwrap_or_default();
    let count = match (&user.quota_counted_at, user.quota_recount_bytes) {
        (_, Some(bytes)) => format!("being counted, {bytes} bytes so far"),
        (Some(at), None) => format!("counted {at}"),
        (None, None) => "to be counted by the server".to_owned(),
    };
    format!("{used} bytes of {quota} ({count})")
}

fn user_row(user: UserResponse) -> [String; 5] {
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let access = user.grants.iter().map(token_format::format_permission).collect::<Vec<_>>().join(", ");
    let state = user.disabled_at.map_or_else(|| "enabled".to_owned(), |at| format!("disabled since {at}"));
    [user.login.to_string(), state, user.live_tokens.to_string(), or_none(user.roles.to_string()), or_none(access)]
}
