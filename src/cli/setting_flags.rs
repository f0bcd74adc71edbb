//! Every setting as a flag of `serve`, made from the table of settings.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::config::{CONFIG_KEYS, CommandLineSetting, ConfigKey, ConfigValueType, RENAMED_KEYS, RenamedKey};

/// The settings that were given as flags, as texts: the configuration reads them.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingFlags(pub(super) Vec<CommandLineSetting>);

const SET_ARGUMENT: &str = "set";

/// Returns the settings that have a flag of their own here; the state directory's is global.
fn flag_keys() -> impl Iterator<Item = &'static ConfigKey> {
    CONFIG_KEYS.iter().filter(|key| key.name != "state")
}

impl Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = flag_keys().fold(command, |command, key| command.arg(key_argument(key)));
        let command = RENAMED_KEYS.iter().fold(command, |command, key| command.arg(renamed_argument(key)));
        let set = Arg::new(SET_ARGUMENT).long(SET_ARGUMENT).value_name("KEY=VALUE").action(ArgAction::Append);
        command.arg(set.help("Any setting by its key, as in the configuration file; repeatable"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Returns the flag of a key that was renamed. Its value goes to the configuration, which says what it is called now.
fn renamed_argument(key: &'static RenamedKey) -> Arg {
    let help = format!("Called {} now", key.new);
    Arg::new(key.old).long(key.old_flag).num_args(0..=1).hide(true).help(help)
}

fn key_argument(key: &'static ConfigKey) -> Arg {
    let default = key.default().filter(|text| !text.is_empty()).map(|text| format!(" [default: {text}]"));
    let help = format!("{} [env: {}]{}", key.description(), key.environment_variable(), default.unwrap_or_default());
    let argument = Arg::new(key.name).long(key.flag()).value_name(key.value_name).help(help);
    match key.value_type {
        ConfigValueType::Boolean => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        ConfigValueType::List => argument.action(ArgAction::Append),
        ConfigValueType::Text | ConfigValueType::Number => argument,
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Vec::new();
        for set in matches.get_many::<String>(SET_ARGUMENT).unwrap_or_default() {
            let Some((key, value)) = set.split_once('=') else {
                let text = format!("--set {set}: give KEY=VALUE, such as --set drain_seconds=30");
                return Err(clap::Error::raw(clap::error::ErrorKind::ValueValidation, text));
            };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            flags.push(CommandLineSetting { typed_name: format!("--set {key}"), key, value });
        }
        for key in flag_keys().filter(|key| matches.value_source(key.name) == Some(ValueSource::CommandLine)) {
            let values: Vec<_> = matches.get_many::<String>(key.name).unwrap_or_default().cloned().collect();
            flags.push(CommandLineSetting {
                typed_name: format!("--{}", key.flag()),
                key: key.name.to_owned(),
                value: values.join(","),
            });
        }
        let is_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        for key in RENAMED_KEYS.iter().filter(|key| is_given(key.old)) {
            flags.push(CommandLineSetting {
                typed_name: format!("--{}", key.old_flag),
                key: key.old.to_owned(),
                value: String::new(),
            });
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
