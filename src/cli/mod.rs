//! The command line: one file per command. Each calls tokens, tree or gateway and prints the result.

mod age_program;
mod apitoken;
mod audit;
mod backend;
mod backup;
mod backup_archive;
mod ban;
mod capabilities;
mod client;
mod completions;
mod context;
mod doctor;
mod error;
mod explain;
mod fresh_state;
mod huge_pages;
mod man;
mod node;
mod notice;
mod notice_settings;
mod open_state;
mod output;
mod policy;
mod quickstart;
mod restore;
mod rlimit;
mod sandbox;
mod serve;
mod service_manager;
mod setting_flags;
mod signals;
mod staged_state;
mod system_user;
mod token_flags;
mod token_format;
mod user;
mod user_token;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use context::CommandContext;
use error::CommandError;

/// The result of a command.
type Result<T = ()> = std::result::Result<T, CommandError>;

/// A gateway in front of a folder: WebDAV and SFTP with scoped personal access tokens
#[derive(Debug, Parser)]
#[command(name = "patgate", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  patgate quickstart ./files
  patgate serve --root /srv/files
  patgate admin user create alice
  patgate admin user token -u alice -e 24h")]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: CliCommand,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
struct GlobalArgs {
    /// The configuration file [env: PATGATE_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON_HEADING)]
    config: Option<PathBuf>,
    /// The state directory, see [`add_state_option`].
    #[arg(skip)]
    state: Option<String>,
    /// Work over the network: the server's address, with a token of it in PATGATE_TOKEN [env: PATGATE_SERVER]
    #[arg(long, value_name = "URL", global = true, help_heading = NETWORK_HEADING)]
    server: Option<String>,
    /// Trust the authority in this file (PEM) for --server and doctor --health, and no other [env: PATGATE_CA_FILE]
    #[arg(long, value_name = "FILE", global = true, help_heading = NETWORK_HEADING)]
    ca_file: Option<PathBuf>,
    /// Allow sending the token to --server unencrypted
    #[arg(long, global = true, help_heading = NETWORK_HEADING)]
    cleartext: bool,
    /// Print JSON
    #[arg(long, global = true, help_heading = COMMON_HEADING)]
    json: bool,
    /// Log more on stderr; repeat for still more
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = COMMON_HEADING)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    Serve(serve::ServeCommand),
    Quickstart(quickstart::QuickstartCommand),
    Admin(AdminArgs),
    /// Manage users: the same as `patgate admin user`, as the manual of Pydio Cells writes it
    #[command(hide = true)]
    User(user::UserCommand),
    Apitoken(apitoken::ApitokenCommand),
    Node(node::NodeCommand),
    Policy(policy::PolicyCommand),
    Audit(audit::AuditCommand),
    Explain(explain::ExplainCommand),
    Client(client::ClientCommand),
    Doctor(doctor::DoctorCommand),
    Completions(completions::CompletionsCommand),
    Man(man::ManCommand),
}

impl CliCommand {
    /// Returns the name of a command that works on this machine only.
    fn local_only_name(&self) -> Option<&'static str> {
        match self {
            CliCommand::Serve(_) => Some("serve"),
            CliCommand::Quickstart(_) => Some("quickstart"),
            CliCommand::Client(_) => Some("client"),
            CliCommand::Doctor(_) => Some("doctor"),
            CliCommand::Completions(_) => Some("completions"),
            CliCommand::Man(_) => Some("man"),
            CliCommand::Admin(_)
            | CliCommand::User(_)
            | CliCommand::Apitoken(_)
            | CliCommand::Node(_)
            | CliCommand::Policy(_)
            | CliCommand::Audit(_)
            | CliCommand::Explain(_) => None,
        }
    }
}

/// Manage users, their tokens and bans of addresses, test notices, back up and restore the state
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user create alice
  patgate admin backup /var/backups/patgate.tar")]
struct AdminArgs {
    #[command(subcommand)]
    subcommand: AdminSubcommand,
}

#[derive(Debug, Subcommand)]
enum AdminSubcommand {
    User(user::UserCommand),
    Ban(ban::BanCommand),
    Notice(notice::NoticeCommand),
    Backup(backup::BackupCommand),
    Restore(restore::RestoreCommand),
}

/// Runs the command in the arguments, of which the first is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let outcome = match parse(&arguments) {
        Ok(cli) => execute(cli),
        Err(error) => error::usage_error(&error, &named_command(&arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}

fn execute(cli: Cli) -> Result {
    let context = CommandContext::new(cli.global);
    dispatch(cli.command, &context).map_err(|failure| {
        // A failed command changes and creates nothing, an empty state directory included.
        context.discard_new_state();
        failure.with_context_flags(&context.context_flags())
    })
}

fn dispatch(command: CliCommand, context: &CommandContext) -> Result {
    if let Some(name) = command.local_only_name() {
        context.reject_server_flag(name)?;
    }
    match command {
        CliCommand::Serve(command) => command.run(context),
        CliCommand::Quickstart(command) => command.run(context),
        CliCommand::Admin(AdminArgs { subcommand: AdminSubcommand::User(command) }) | CliCommand::User(command) => {
            command.run(context)
        }
        CliCommand::Admin(AdminArgs { subcommand: AdminSubcommand::Ban(command) }) => command.run(context),
        CliCommand::Admin(AdminArgs { subcommand: AdminSubcommand::Notice(command) }) => command.run(context),
        CliCommand::Admin(AdminArgs { subcommand: AdminSubcommand::Backup(command) }) => command.run(context),
        CliCommand::Admin(AdminArgs { subcommand: AdminSubcommand::Restore(command) }) => command.run(context),
        CliCommand::Apitoken(command) => command.run(context),
        CliCommand::Node(command) => command.run(context),
        CliCommand::Policy(command) => command.run(context),
        CliCommand::Audit(command) => command.run(context),
        CliCommand::Explain(command) => command.run(context),
        CliCommand::Client(command) => command.run(context),
        CliCommand::Doctor(command) => command.run(context),
        CliCommand::Completions(command) => command.run(),
        CliCommand::Man(command) => command.run(),
    }
}

/// Returns the definition of the command line, also for completions and manual pages.
fn command() -> clap::Command {
    add_state_option(add_option_notes(Cli::command()))
}

/// Note on durations in the help of commands that accept one.
const DURATION_NOTE: &str =
    "A duration is a whole number and a unit: s, m, h, d, w, M (30 days) or Y (365 days), such as 36h.";
/// Note on sizes, likewise.
const SIZE_NOTE: &str = "A size is a whole number of bytes, or one with a unit: KiB, MiB, GiB, TiB, KB, MB, GB or TB.";
/// Note on repeatable options whose values commas may separate.
const COMMA_LIST_NOTE: &str = "Repeat an option that is repeatable, or separate its values with commas.";
const REPEATABLE_NOTE: &str = "Repeat an option that is repeatable: its values may hold commas.";

/// Appends notes on units and lists to the help of each command that needs them.
fn add_option_notes(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(add_option_notes);
    let takes = |name: &str| {
        let mut names = command.get_arguments().filter_map(|argument| argument.get_value_names());
        names.any(|names| names.iter().any(|own| own.as_str() == name))
    };
    let options: Vec<_> = command.get_arguments().filter(|argument| argument.get_long().is_some()).collect();
    let separated = options.iter().any(|option| option.get_value_delimiter().is_some());
    let repeated = options.iter().any(|option| matches!(option.get_action(), clap::ArgAction::Append));
    let lists = if separated { COMMA_LIST_NOTE } else { REPEATABLE_NOTE };
    let notes = [
        (takes("DURATION") || takes("WHEN"), DURATION_NOTE),
        (takes("SIZE"), SIZE_NOTE),
        (separated || repeated, lists),
    ];
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let notes: Vec<_> = notes.into_iter().filter(|(takes, _)| *takes).map(|(_, note)| note).collect();
    if notes.is_empty() { command } else { command.after_help(format!("{help}\n\n{}", notes.join("\n"))) }
}

const STATE_ARGUMENT: &str = "state_directory";
const COMMON_HEADING: &str = "Options of every command";
const NETWORK_HEADING: &str = "Over the network, for apitoken, admin, node, policy, audit and explain";

/// Adds `--state DIR` to a command and its subcommands; the last one given counts.
fn add_state_option(command: clap::Command) -> clap::Command {
    let help = "The folder of database, pepper and SSH host keys [env: PATGATE_STATE]";
    let state = Arg::new(STATE_ARGUMENT).long("state").value_name("DIR").help(help).help_heading(COMMON_HEADING);
    command.mut_subcommands(add_state_option).arg(state)
}

/// Returns the command in the arguments, as far as they name one: `patgate admin user`.
fn named_command(arguments: &[OsString]) -> String {
    let whole = command();
    let mut current = &whole;
    let mut path = current.get_name().to_owned();
    for argument in arguments.iter().skip(1) {
        let subcommand = argument.to_str().and_then(|word| current.find_subcommand(word));
        // In `patgate admni user`, which misspells `admin`, the hidden command `user` is not meant.
        if let Some(subcommand) =
            subcommand.filter(|subcommand| !subcommand.is_hide_set() || arguments.get(1) == Some(argument))
        {
            current = subcommand;
            path = format!("{path} {}", current.get_name());
        }
    }
    path
}

fn parse(arguments: &[OsString]) -> std::result::Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments.iter())?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    // `--state` is an option of every level, and no global argument of clap, so that it may be given at several of
    // them: the innermost one counts.
    let levels = std::iter::successors(Some(&matches), |level| level.subcommand().map(|(_, subcommand)| subcommand));
    let states = levels.filter_map(|level| level.try_get_one::<String>(STATE_ARGUMENT).ok().flatten());
    cli.global.state = states.last().cloned();
    Ok(cli)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn check_help(command: &clap::Command, path: &str, seen: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let path = format!("{path}{}", command.get_name());
        assert!(help.contains("Example") && help.contains(&path), "{path} has no example: {help}");
        assert!(command.get_about().is_some(), "{path} says nothing about itself");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path} {} says nothing", argument.get_id());
        }
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            check_help(subcommand, &format!("{path} "), seen);
        }
        seen.push(path);
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        let mut seen = Vec::new();
        check_help(&command(), "", &mut seen);
        assert!(seen.len() > 25, "{seen:?}");
        assert!(seen.contains(&"patgate admin user token".to_owned()));
    }

    #[test]
    fn help_explains_units_and_list_syntax() {
        let help = |line: &str| {
            let error = parse(&words(&format!("{line} --help"))).expect_err("help");
            error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for (line, notes) in [
            ("patgate admin user token", &[DURATION_NOTE, SIZE_NOTE, COMMA_LIST_NOTE][..]),
            ("patgate apitoken create", &[DURATION_NOTE, SIZE_NOTE, COMMA_LIST_NOTE]),
            ("patgate apitoken edit", &[DURATION_NOTE, SIZE_NOTE, COMMA_LIST_NOTE]),
            ("patgate apitoken rotate", &[DURATION_NOTE]),
            ("patgate admin user create", &[SIZE_NOTE, REPEATABLE_NOTE]),
            ("patgate apitoken show", &[]),
        ] {
            let notes_found: Vec<_> = [DURATION_NOTE, SIZE_NOTE, COMMA_LIST_NOTE, REPEATABLE_NOTE]
                .into_iter()
                .filter(|note| help(line).contains(note))
                .collect();
            assert_eq!(notes_found, notes, "{line}");
        }
    }

    #[test]
    fn every_example_parses() {
        fn examples(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = help.lines().map(str::trim).filter(|line| line.starts_with("patgate "));
            found.extend(lines.map(|line| line.split(" > ").next().unwrap_or(line).to_owned()));
            command.get_subcommands().for_each(|subcommand| examples(subcommand, found));
        }
        let mut found = Vec::new();
        examples(&command(), &mut found);
        for example in found {
            let understood = parse(&words(&example));
            assert!(understood.is_ok(), "{example}: {}", understood.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn state_flag_is_accepted_before_and_after_the_command() {
        let state = |line: &str| parse(&words(line)).expect(line).global.state;
        assert_eq!(state("patgate --state a policy show"), Some("a".into()));
        assert_eq!(state("patgate policy show --state b"), Some("b".into()));
        assert_eq!(state("patgate --state a policy --state b show"), Some("b".into()));
        assert_eq!(state("patgate apitoken list --state b --status live"), Some("b".into()));
        assert_eq!(state("patgate apitoken list --status live"), None);
    }

    #[test]
    fn misspelled_command_gets_a_hint_with_the_closest_one() {
        assert_eq!(named_command(&words("patgate --json admin user token -u alice -e x")), "patgate admin user token");
        assert_eq!(named_command(&words("patgate admni user")), "patgate");
    }

    #[test]
    fn user_commands_parse_without_admin() {
        let line = "patgate --state a user token -u alice -a 10m -q";
        let cli = parse(&words(line)).expect(line);
        assert!(matches!(cli.command, CliCommand::User(_)));
        assert_eq!(cli.global.state, Some("a".into()));
    }

    #[test]
    fn clap_definition_is_valid() {
        command().debug_assert();
    }
}
