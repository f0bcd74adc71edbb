//! `patgate admin notice`: notices that wait for their receivers, and tests of whether they arrive.

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::CommandContext;
use super::notice_settings::notice_settings;
use super::{CommandError, Result, output};
use crate::auth::Clock;
use crate::config::Settings;
use crate::gateway::{NoticeReceivers, TestOutcome};

/// Maximum number of notices that are listed.
const MAX_LISTED_NOTICES: usize = 1000;

/// Test whether notices arrive, and show those that wait
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin notice test --config /etc/patgate/patgate.toml
  patgate admin notice list")]
pub(super) struct NoticeCommand {
    #[command(subcommand)]
    subcommand: NoticeSubcommand,
}

#[derive(Debug, Subcommand)]
enum NoticeSubcommand {
    /// Send a test to each webhook and mail address of the configuration, and show what became of it
    ///
    /// It is sent by this command, once and without the server's queue. Run it as the user of the server, with the same
    /// configuration file and environment.
    #[command(after_help = "Example:\n  patgate admin notice test --config /etc/patgate/patgate.toml")]
    Test,
    /// List the notices that wait for their receivers, those that are due first in front
    #[command(after_help = "Example:\n  patgate admin notice list --json")]
    List,
}

impl NoticeCommand {
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        match self.subcommand {
            NoticeSubcommand::Test => {
                context.require_local("admin notice test")?;
                send_test(context)
            }
            NoticeSubcommand::List => {
                context.require_local("admin notice list")?;
                list_notices(context)
            }
        }
    }
}

fn send_test(context: &CommandContext) -> Result {
    let settings = Settings::load(&context.config_sources(Vec::new()))?;
    let receivers =
        NoticeReceivers::open(&notice_settings(&settings)).map_err(|error| CommandError::new(error.to_string()))?;
    if receivers.names().is_empty() {
        return Err(CommandError::new("no receiver of notices is configured")
            .with_hint("set webhook_urls, or smtp_server, mail_from and mail_to, and name the file with --config"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(receivers.send_test(Clock::system().now()));
    print_outcomes(context, &outcomes)?;
    match outcomes.iter().filter(|outcome| outcome.failure.is_some()).count() {
        0 => Ok(()),
        failed => Err(CommandError::new(format!("{failed} of {} receivers did not take the test", outcomes.len()))
            .with_hint("the table above says why; docs/notices.md says what they need")),
    }
}

fn print_outcomes(context: &CommandContext, outcomes: &[TestOutcome]) -> Result {
    if context.prints_json() {
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|outcome| json!({ "receiver": outcome.receiver, "delivered": outcome.failure.is_none(), "failure": outcome.failure }))
            .collect();
        return output::print_json(&outcomes);
    }
    let rows = outcomes.iter().map(|TestOutcome { receiver, failure }| {
        let status = if failure.is_none() { "delivered" } else { "failed" };
        [receiver.clone(), status.to_owned(), failure.clone().unwrap_or_default()]
    });
    output::print_table(["RECEIVER", "STATUS", "FAILURE"], &rows.collect::<Vec<_>>())
}

fn list_notices(context: &CommandContext) -> Result {
    let queued = context.open_state()?.queued_notices(MAX_LISTED_NOTICES)?;
    let kind = |notice: &crate::domain::Notice| notice.content.kind().map(|kind| kind.as_str()).unwrap_or_default();
    if context.prints_json() {
        let queued: Vec<_> = queued
            .iter()
            .map(|queued| {
                json!({
                    "id": queued.notice.message_id,
                    "at": queued.notice.at.to_string(),
                    "receiver": queued.receiver,
                    "attempts": queued.attempts,
                    "due_at": queued.due_at.to_string(),
                    "failure": queued.failure,
                    "notice": queued.notice.content,
                })
            })
            .collect();
        return output::print_json(&queued);
    }
    let rows = queued.iter().map(|queued| {
        [
            queued.notice.at.to_string(),
            kind(&queued.notice).to_owned(),
            queued.receiver.clone(),
            queued.attempts.to_string(),
            queued.due_at.to_string(),
            queued.failure.clone().unwrap_or_default(),
        ]
    });
    let heading = ["TIME", "NOTICE", "RECEIVER", "ATTEMPTS", "NEXT ATTEMPT", "LAST FAILURE"];
    output::print_table(heading, &rows.collect::<Vec<_>>())
}
