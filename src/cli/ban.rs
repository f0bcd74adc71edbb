//! `patgate admin ban`: addresses from which nothing is accepted.

use clap::{Args, Subcommand};

use super::context::CommandContext;
use super::{Result, output};
use crate::api::types::BanResponse;
use crate::domain::{BannedNetwork, Lifetime};
use crate::tokens::BanRequest;

/// Show, add and remove bans of addresses
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate admin ban list")]
pub(super) struct BanCommand {
    #[command(subcommand)]
    subcommand: BanSubcommand,
}

#[derive(Debug, Subcommand)]
enum BanSubcommand {
    /// List the bans in force
    #[command(after_help = "Example:\n  patgate admin ban list --json")]
    List,
    Add(AddBanArgs),
    /// Remove a ban before its end
    #[command(after_help = "Example:\n  patgate admin ban remove 192.0.2.7")]
    Remove {
        /// The address or network, as `patgate admin ban list` shows it
        address: BannedNetwork,
    },
}

/// Ban an address or network, in place of a ban that it has; its sessions end within a second
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin ban add 192.0.2.7
  patgate admin ban add 192.0.2.0/24 --for 7d --reason scans
  patgate admin ban add 2001:db8::/48 --for 12h")]
struct AddBanArgs {
    /// The address or network (CIDR); an IPv6 address is banned with its /64
    address: BannedNetwork,
    /// How long, such as 12h [default: until it is removed]
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Lifetime>,
    /// Why, for other administrators
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

impl BanCommand {
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        match &self.subcommand {
            BanSubcommand::List => print_bans(context, &context.backend()?.bans()?),
            BanSubcommand::Add(AddBanArgs { address, duration, reason }) => {
                let request = BanRequest { network: *address, duration: *duration, reason: reason.clone() };
                let ban = context.backend()?.add_ban(&request)?;
                if context.prints_json() {
                    return output::print_json(&ban);
                }
                let end =
                    ban.until.map_or_else(|| "until it is removed".to_owned(), |until| format!("until {}", until.0));
                output::print_line(&format!("{} is banned {end}", ban.network))
            }
            BanSubcommand::Remove { address } => {
                context.backend()?.remove_ban(*address)?;
                if context.prints_json() {
                    return Ok(());
                }
                output::print_line(&format!("{address} is no longer banned"))
            }
        }
    }
}

fn print_bans(context: &CommandContext, bans: &[BanResponse]) -> Result {
    if context.prints_json() {
        return output::print_json(&bans);
    }
    let rows = bans.iter().map(|ban| {
        let until = ban.until.as_ref().map_or_else(|| "removed".to_owned(), |until| until.0.to_string());
        let origin = if ban.automatic { "automatic" } else { "administrator" };
        [ban.network.to_string(), ban.since.0.to_string(), until, origin.to_owned(), ban.reason.clone()]
    });
    output::print_table(["ADDRESS", "SINCE", "UNTIL", "BY", "REASON"], &rows.collect::<Vec<_>>())
}
