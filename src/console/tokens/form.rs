//! Parses the fields of a token in a form: scopes, expiration, limits and roles.

use std::str::FromStr;

use super::super::error::{ConsoleError, Result};
use super::super::guard::FormFields;
use crate::domain::{
    Lifetime, NodeId, Permission, Role, Roles, Scope, ScopeTarget, TokenLimits, TreePath, parse_network,
};
use crate::tokens::RequestedLifetime;

/// Units of a duration.
pub(super) const DURATION_UNITS: [(&str, &str); 6] =
    [("m", "minutes"), ("h", "hours"), ("d", "days"), ("w", "weeks"), ("M", "months"), ("Y", "years")];

/// Number of scope lines that a form starts with; the script adds more.
const INITIAL_SCOPE_LINES: usize = 3;

/// A scope as it is typed in a form.
pub(in super::super) struct ScopeLine {
    pub(in super::super) target: String,
    pub(in super::super) permission: String,
}

impl ScopeLine {
    /// Returns the scope lines of a submitted form, filled up with empty ones.
    pub(in super::super) fn from_fields(fields: &FormFields) -> Vec<Self> {
        let filled = fields.raw_values("scope_path").zip(fields.raw_values("scope_permission"));
        let filled =
            filled.map(|(target, permission)| Self { target: target.to_owned(), permission: permission.to_owned() });
        Self::pad_with_empty(filled.filter(|line| !line.target.is_empty()).collect())
    }

    /// Adds empty lines up to [`INITIAL_SCOPE_LINES`].
    pub(in super::super) fn pad_with_empty(mut lines: Vec<Self>) -> Vec<Self> {
        while lines.len() < INITIAL_SCOPE_LINES {
            lines.push(Self { target: String::new(), permission: "rw".to_owned() });
        }
        lines
    }
}

/// Parses a duration: a number and a unit in two fields.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(super) fn parse_duration(fields: &FormFields, name: &str) -> Result<Option<Lifetime>> {
    let Some(number) = fields.text(name) else { return Ok(None) };
    let unit = format!("{name}_unit");
    let text = format!("{number}{}", fields.text(&unit).unwrap_or("d"));
    text.parse().map(Some).map_err(|error: crate::domain::LifetimeError| ConsoleError::InvalidForm(error.to_string()))
}

/// Parses the expiration: lifetime and sliding window.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(super) fn parse_expiration(fields: &FormFields) -> Result<(RequestedLifetime, Option<Lifetime>)> {
    let missing = |what| ConsoleError::InvalidForm(format!("{what} is empty: enter a duration"));
    match fields.text("model").unwrap_or("default") {
        "default" => Ok((RequestedLifetime::Default, None)),
        "hard" => Ok((
            RequestedLifetime::For(parse_duration(fields, "life")?.ok_or_else(|| missing("the hard limit"))?),
            None,
        )),
        "auto" => {
            let window = parse_duration(fields, "window")?.ok_or_else(|| missing("the sliding window"))?;
            Ok((
                parse_duration(fields, "cap")?.map_or(RequestedLifetime::Default, RequestedLifetime::For),
                Some(window),
            ))
        }
        "never" => Ok((RequestedLifetime::Never, None)),
        _ => Err(ConsoleError::InvalidForm("choose an expiration".to_owned())),
    }
}

/// Parses the scope lines: a path or `node:UUID`, and a permission. Returns `None` if all lines are empty.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(in super::super) fn parse_scopes(fields: &FormFields) -> Result<Option<Vec<ScopeTarget>>> {
    let targets = fields.raw_values("scope_path").map(str::trim);
    let filled = targets.zip(fields.raw_values("scope_permission")).filter(|(target, _)| !target.is_empty());
    let scopes = filled.map(|(target, permission)| parse_scope(target, permission)).collect::<Result<Vec<_>>>()?;
    Ok((!scopes.is_empty()).then_some(scopes))
}

/// Parses one scope.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
fn parse_scope(target: &str, permission: &str) -> Result<ScopeTarget> {
    let permission: Permission = permission.parse().map_err(ConsoleError::InvalidForm)?;
    match target.strip_prefix("node:") {
        Some(node) => {
            let node: NodeId = node.parse().map_err(ConsoleError::InvalidForm)?;
            Ok(ScopeTarget::Node(Scope { node, permission }))
        }
        None => Ok(ScopeTarget::Path(parse_path(target)?, permission)),
    }
}

/// Parses a path as it is typed.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(in super::super) fn parse_path(text: &str) -> Result<TreePath> {
    TreePath::parse(text.as_bytes()).map_err(|error| ConsoleError::InvalidForm(format!("{text}: {error}")))
}

/// Parses the limits; an empty field limits nothing.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(super) fn parse_limits(fields: &FormFields) -> Result<TokenLimits> {
    Ok(TokenLimits {
        protocols: fields
            .values("protocol")
            .map(|text| text.parse().map_err(ConsoleError::InvalidForm))
            .collect::<Result<_>>()?,
        ips: field_items(fields, "ips")
            .map(|text| parse_network(text).map_err(ConsoleError::InvalidForm))
            .collect::<Result<_>>()?,
        // One on a line, since a user agent may hold commas.
        user_agents: field_lines(fields, "user_agents")
            .map(|text| text.parse().map_err(ConsoleError::InvalidForm))
            .collect::<Result<_>>()?,
        mimes: parse_list(fields, "mimes")?,
        tags: parse_list(fields, "tags")?,
        max_file_size: fields.parse("max_file_size")?,
        quota: fields.parse("quota")?,
    })
}

/// Parses the roles, each of which has a checkbox.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(in super::super) fn parse_roles(fields: &FormFields) -> Result<Roles> {
    fields.values("role").map(|text| text.parse::<Role>().map_err(ConsoleError::InvalidForm)).collect()
}

fn field_lines<'a>(fields: &'a FormFields, name: &'a str) -> impl Iterator<Item = &'a str> {
    fields.text(name).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
}

fn field_items<'a>(fields: &'a FormFields, name: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = field_lines(fields, name).flat_map(|line| line.split(','));
    parts.map(str::trim).filter(|item| !item.is_empty())
}

fn parse_list<T: FromStr<Err = String>>(fields: &FormFields, name: &str) -> Result<Vec<T>> {
    field_items(fields, name).map(|text| text.parse().map_err(ConsoleError::InvalidForm)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> FormFields {
        FormFields::from(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn hard_limit_and_sliding_window_are_parsed() {
        let hard = parse_expiration(&fields(&[("model", "hard"), ("life", "90"), ("life_unit", "d")])).expect("read");
        assert_eq!(hard, (RequestedLifetime::For("90d".parse().expect("lifetime")), None));
        let auto = parse_expiration(&fields(&[("model", "auto"), ("window", "10"), ("window_unit", "m"), ("cap", "")]))
            .expect("read");
        assert_eq!(auto, (RequestedLifetime::Default, Some("10m".parse().expect("lifetime"))));
        for pairs in
            [&[("model", "hard")][..], &[("model", "auto")], &[("model", "hard"), ("life", "0")], &[("model", "x")]]
        {
            assert!(parse_expiration(&fields(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn empty_scope_lines_are_ignored() {
        let empty =
            fields(&[("scope_path", ""), ("scope_permission", "r"), ("scope_path", " "), ("scope_permission", "rw")]);
        assert_eq!(parse_scopes(&empty).expect("read"), None);
        let mixed =
            fields(&[("scope_path", ""), ("scope_permission", "r"), ("scope_path", "/a"), ("scope_permission", "rw")]);
        let expected = "path:/a:rw".parse::<ScopeTarget>().expect("a scope");
        assert_eq!(parse_scopes(&mixed).expect("read"), Some(vec![expected]));
        assert!(parse_scopes(&fields(&[("scope_path", "/../a"), ("scope_permission", "r")])).is_err());
    }

    #[test]
    fn limits_are_separated_by_lines_and_commas() {
        let limits = parse_limits(&fields(&[
            ("ips", "10.0.0.0/8, 192.0.2.1\n::1"),
            ("user_agents", "a, b\nc"),
            ("protocol", "sftp"),
        ]));
        let limits = limits.expect("read");
        assert_eq!((limits.ips.len(), limits.user_agents.len(), limits.protocols.len()), (3, 2, 1));
    }
}
