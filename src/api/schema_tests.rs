//! The schemas of values in the OpenAPI document against the parsers of the values: what is accepted matches.

use std::str::FromStr;

use proptest::prelude::*;
use regex::Regex;

use crate::domain;
use crate::domain::schema::all_schemas;
use crate::tokens::{RequestedLifetime, TokenLabel};

/// Whether a parser takes a text.
type Parser = fn(&str) -> bool;

fn accepts<T: FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

/// Schemas by name, each with the parser of its values.
const PARSERS: [(&str, Parser); 13] = [
    ("TokenId", accepts::<domain::TokenId>),
    ("Login", accepts::<domain::Login>),
    ("Label", accepts::<TokenLabel>),
    ("Time", accepts::<domain::UnixMillis>),
    ("Duration", accepts::<domain::Lifetime>),
    ("Lifetime", accepts::<RequestedLifetime>),
    ("NodeId", accepts::<domain::NodeId>),
    ("Scope", accepts::<domain::ScopeTarget>),
    ("Network", |text| domain::parse_network(text).is_ok()),
    ("ForeignRole", accepts::<domain::ForeignRole>),
    ("UserAgent", accepts::<domain::UserAgentPattern>),
    ("Mime", accepts::<domain::MimePattern>),
    ("Tag", accepts::<domain::FileTag>),
];

/// What a small mistake puts into a text.
const INSERTED: [&str; 23] = [
    " ", "\n", "\t", "\u{a0}", "\u{2003}", "\0", "\u{7f}", "+", "-", "0", "9", "٣", "a", "Z", ".5", "é", "/", ":", "{",
    "[", ",", ";q=1", "00000000",
];

fn altered(text: &str, edits: &[(usize, usize)]) -> String {
    let mut text = text.to_owned();
    for &(place, edit) in edits {
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect::<Vec<_>>();
        let at = starts[place % starts.len()];
        match edit {
            0 if at < text.len() => drop(text.remove(at)),
            1 => text = text.to_uppercase(),
            2 => text = text.repeat(2),
            _ => text.insert_str(at, INSERTED[edit % INSERTED.len()]),
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsers_accept_nothing_beyond_the_pattern(
        schema in 0..PARSERS.len(),
        edits in prop::collection::vec((any::<usize>(), 0..INSERTED.len() + 3), 1..4),
    ) {
        let (name, accepts) = PARSERS[schema];
        let (_, declared) = all_schemas().find(|(other, _)| *other == name).expect("a schema");
        let declared = serde_json::to_value(declared).expect("json");
        let example = declared["examples"][0].as_str().expect("an example");
        prop_assert!(accepts(example), "{name}: {example:?}");
        let text = altered(example, &edits);
        if accepts(&text) {
            let pattern = Regex::new(declared["pattern"].as_str().expect("a pattern")).expect("a pattern");
            let max_length = declared["maxLength"].as_u64().expect("a length");
            prop_assert!(pattern.is_match(&text), "{name}: {text:?}");
            prop_assert!(text.chars().count() as u64 <= max_length, "{name}: {text:?}");
        }
    }
}
