//! What a form says of a token: its reach, its end, its limits and roles.

use std::str::FromStr;

use super::super::fault::{Fault, Result};
use super::super::guard::Fields;
use crate::domain::{
    Lifetime, NodeId, Permission, Role, Roles, Scope, ScopeTarget, TokenLimits, TreePath, UserAgentPattern,
    parse_network,
};
use crate::tokens::RequestedLifetime;

/// Units that a length of time is given in.
pub(super) const UNITS: [(&str, &str); 6] =
    [("m", "minutes"), ("h", "hours"), ("d", "days"), ("w", "weeks"), ("M", "months"), ("Y", "years")];

/// Lines for scopes that are there from the start; the script adds more.
const LINES: usize = 3;

/// A scope as it stands in the form.
pub(in super::super) struct Line {
    pub(in super::super) place: String,
    pub(in super::super) permission: String,
}

impl Line {
    /// Returns the lines of a form that was filled in, or as many empty ones.
    pub(in super::super) fn of(fields: &Fields) -> Vec<Self> {
        let filled = fields.each("scope_path").zip(fields.each("scope_permission"));
        let filled =
            filled.map(|(place, permission)| Self { place: place.to_owned(), permission: permission.to_owned() });
        Self::filled(filled.filter(|line| !line.place.is_empty()).collect())
    }

    /// Adds empty lines up to as many as there are from the start.
    pub(in super::super) fn filled(mut lines: Vec<Self>) -> Vec<Self> {
        while lines.len() < LINES {
            lines.push(Self { place: String::new(), permission: "rw".to_owned() });
        }
        lines
    }
}

/// Reads a length of time: a number and a unit in two fields.
///
/// # Errors
/// [`Fault::Form`].
pub(super) fn span(fields: &Fields, name: &str) -> Result<Option<Lifetime>> {
    let Some(number) = fields.text(name) else { return Ok(None) };
    let unit = format!("{name}_unit");
    let text = format!("{number}{}", fields.text(&unit).unwrap_or("d"));
    text.parse().map(Some).map_err(|why: crate::domain::LifetimeError| Fault::Form(why.to_string()))
}

/// Reads how a token is to end.
///
/// # Errors
/// [`Fault::Form`].
pub(super) fn expiry(fields: &Fields) -> Result<(RequestedLifetime, Option<Lifetime>)> {
    let missing = |what| Fault::Form(format!("say how long: {what} is empty"));
    match fields.text("model").unwrap_or("default") {
        "default" => Ok((RequestedLifetime::Default, None)),
        "hard" => Ok((RequestedLifetime::For(span(fields, "life")?.ok_or_else(|| missing("the hard limit"))?), None)),
        "auto" => {
            let window = span(fields, "window")?.ok_or_else(|| missing("the time between uses"))?;
            Ok((span(fields, "cap")?.map_or(RequestedLifetime::Default, RequestedLifetime::For), Some(window)))
        }
        "never" => Ok((RequestedLifetime::Never, None)),
        _ => Err(Fault::Form("choose one of the ways to end".to_owned())),
    }
}

/// Reads scopes: paths (or `node:UUID`) and permissions, line by line; `None` when none is filled in.
///
/// # Errors
/// [`Fault::Form`].
pub(in super::super) fn scopes(fields: &Fields) -> Result<Option<Vec<ScopeTarget>>> {
    let places = fields.each("scope_path").map(str::trim);
    let filled = places.zip(fields.each("scope_permission")).filter(|(place, _)| !place.is_empty());
    let scopes = filled.map(|(place, permission)| target(place, permission)).collect::<Result<Vec<_>>>()?;
    Ok((!scopes.is_empty()).then_some(scopes))
}

/// Reads one scope.
///
/// # Errors
/// [`Fault::Form`].
fn target(place: &str, permission: &str) -> Result<ScopeTarget> {
    let permission: Permission = permission.parse().map_err(Fault::Form)?;
    match place.strip_prefix("node:") {
        Some(node) => {
            let node: NodeId = node.parse().map_err(Fault::Form)?;
            Ok(ScopeTarget::Node(Scope { node, permission }))
        }
        None => Ok(ScopeTarget::Path(path(place)?, permission)),
    }
}

/// Reads a path as it is typed.
///
/// # Errors
/// [`Fault::Form`].
pub(in super::super) fn path(text: &str) -> Result<TreePath> {
    TreePath::parse(text.as_bytes()).map_err(|why| Fault::Form(format!("{text}: {why}")))
}

/// Reads limits; what is left empty limits nothing.
///
/// # Errors
/// [`Fault::Form`].
pub(super) fn limits(fields: &Fields) -> Result<TokenLimits> {
    Ok(TokenLimits {
        protocols: fields.all("protocol").map(|text| text.parse().map_err(Fault::Form)).collect::<Result<_>>()?,
        ips: words(fields, "ips").map(|text| parse_network(text).map_err(Fault::Form)).collect::<Result<_>>()?,
        user_agents: lines(fields, "user_agents").map(UserAgentPattern::new).collect(),
        mimes: list(fields, "mimes")?,
        tags: list(fields, "tags")?,
        max_file_size: fields.read("max_file_size")?,
    })
}

/// Reads roles, of which each has a box.
///
/// # Errors
/// [`Fault::Form`].
pub(in super::super) fn roles(fields: &Fields) -> Result<Roles> {
    fields.all("role").map(|text| text.parse::<Role>().map_err(Fault::Form)).collect()
}

fn lines<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a str> {
    fields.text(name).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
}

fn words<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = lines(fields, name).flat_map(|line| line.split(','));
    parts.map(str::trim).filter(|word| !word.is_empty())
}

fn list<T: FromStr<Err = String>>(fields: &Fields, name: &str) -> Result<Vec<T>> {
    words(fields, name).map(|text| text.parse().map_err(Fault::Form)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields::from(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn both_ways_to_end_are_read() {
        let hard = expiry(&fields(&[("model", "hard"), ("life", "90"), ("life_unit", "d")])).expect("read");
        assert_eq!(hard, (RequestedLifetime::For("90d".parse().expect("lifetime")), None));
        let auto =
            expiry(&fields(&[("model", "auto"), ("window", "10"), ("window_unit", "m"), ("cap", "")])).expect("read");
        assert_eq!(auto, (RequestedLifetime::Default, Some("10m".parse().expect("lifetime"))));
        for pairs in
            [&[("model", "hard")][..], &[("model", "auto")], &[("model", "hard"), ("life", "0")], &[("model", "x")]]
        {
            assert!(expiry(&fields(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn lines_left_empty_are_no_scopes() {
        let empty =
            fields(&[("scope_path", ""), ("scope_permission", "r"), ("scope_path", " "), ("scope_permission", "rw")]);
        assert_eq!(scopes(&empty).expect("read"), None);
        let mixed =
            fields(&[("scope_path", ""), ("scope_permission", "r"), ("scope_path", "/a"), ("scope_permission", "rw")]);
        let expected = "path:/a:rw".parse::<ScopeTarget>().expect("a scope");
        assert_eq!(scopes(&mixed).expect("read"), Some(vec![expected]));
        assert!(scopes(&fields(&[("scope_path", "/../a"), ("scope_permission", "r")])).is_err());
    }

    #[test]
    fn limits_are_lists_by_lines_and_commas() {
        let limits =
            limits(&fields(&[("ips", "10.0.0.0/8, 192.0.2.1\n::1"), ("user_agents", "a, b\nc"), ("protocol", "sftp")]));
        let limits = limits.expect("read");
        assert_eq!((limits.ips.len(), limits.user_agents.len(), limits.protocols.len()), (3, 2, 1));
    }
}
