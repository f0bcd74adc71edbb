//! What is written of every entry, laid out once for the whole answer.

use super::live::{Live, Subject};
use super::request::names;
use crate::domain::TreePath;
use crate::tree::{DeadProperty, Entry, PropertyName};
use crate::webdav::call::Call;
use crate::webdav::multistatus;
use crate::webdav::xml::{DAV, Element};

/// What is written of every entry.
pub(in crate::webdav) struct Plan {
    shape: Shape,
    /// Those asked for by name: found or told of as missing.
    columns: Vec<Column>,
    /// Whether those that are missing are told of.
    tells_missing: bool,
    scratch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    All,
    Names,
    Named,
}

enum Column {
    Live(Live),
    Dead(PropertyName),
}

/// An entry on its way into the answer.
pub(in crate::webdav) struct Row<'a> {
    /// Its URL.
    pub(in crate::webdav) href: &'a str,
    /// What it is called.
    pub(in crate::webdav) title: &'a [u8],
    /// What it shows of itself.
    pub(in crate::webdav) entry: &'a Entry,
    /// Where it is.
    pub(in crate::webdav) path: &'a dyn Fn() -> TreePath,
    /// Its dead properties.
    pub(in crate::webdav) dead: &'a [DeadProperty],
    /// Whether it is the only one in the answer.
    pub(in crate::webdav) alone: bool,
}

impl Plan {
    /// Writes all there is, and tells of those in `more` that there are not.
    pub(in crate::webdav) fn all(more: Vec<PropertyName>) -> Self {
        let columns =
            columns(more).into_iter().filter(|c| !matches!(c, Column::Live(live) if Live::ALL.contains(live)));
        Self { shape: Shape::All, columns: columns.collect(), tells_missing: true, scratch: String::new() }
    }

    /// Writes the names of all there is.
    pub(in crate::webdav) fn names() -> Self {
        Self { shape: Shape::Names, columns: Vec::new(), tells_missing: true, scratch: String::new() }
    }

    /// Writes those that an element names; none when there are too many.
    pub(in crate::webdav) fn of_element(prop: &Element) -> Option<Self> {
        names(prop).map(Self::named)
    }

    /// Writes these.
    pub(in crate::webdav) fn named(names: Vec<PropertyName>) -> Self {
        Self { shape: Shape::Named, columns: columns(names), tells_missing: true, scratch: String::new() }
    }

    /// Leaves out what is missing (RFC 8144 section 2.1).
    pub(in crate::webdav) fn brief(self, brief: bool) -> Self {
        Self { tells_missing: !brief, ..self }
    }

    /// Tells whether dead properties are needed at all.
    pub(in crate::webdav) fn reads_dead(&self) -> bool {
        let dead = |column: &Column| matches!(column, Column::Dead(_) | Column::Live(Live::DisplayName));
        self.shape != Shape::Named || self.columns.iter().any(dead)
    }

    /// Appends the `D:response` of one entry.
    pub(in crate::webdav) fn write(&mut self, call: &Call, row: &Row<'_>, out: &mut String) {
        let subject = Subject { entry: row.entry, title: row.title, path: row.path, alone: row.alone };
        out.push_str("<D:response><D:href>");
        out.push_str(row.href);
        out.push_str("</D:href><D:propstat><D:prop>");
        let mut missing = std::mem::take(&mut self.scratch);
        missing.clear();
        match self.shape {
            Shape::All => all(call, &subject, row.dead, out),
            Shape::Names => all_names(row, out),
            Shape::Named => {}
        }
        let whole = self.shape == Shape::All;
        for column in &self.columns {
            match column {
                Column::Live(live) => live_or_missing(*live, call, &subject, row.dead, out, &mut missing),
                Column::Dead(_) if whole && row.dead.iter().any(|p| column.is(p)) => {}
                Column::Dead(name) => match row.dead.iter().find(|p| column.is(p)) {
                    Some(property) => out.push_str(&property.value),
                    None => multistatus::bare(name, &mut missing),
                },
            }
        }
        if !self.tells_missing {
            missing.clear();
        }
        if out.ends_with("<D:prop>") && !missing.is_empty() {
            out.truncate(out.len() - "<D:propstat><D:prop>".len());
        } else {
            out.push_str("</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>");
        }
        if !missing.is_empty() {
            multistatus::propstat(&missing, "404 Not Found", None, out);
        }
        self.scratch = missing;
        out.push_str("</D:response>\n");
    }
}

impl Column {
    fn is(&self, property: &DeadProperty) -> bool {
        matches!(self, Self::Dead(name) if *name == property.name)
    }
}

fn columns(names: Vec<PropertyName>) -> Vec<Column> {
    names.into_iter().map(|name| Live::of(&name).map_or(Column::Dead(name), Column::Live)).collect()
}

fn live_or_missing(
    live: Live,
    call: &Call,
    subject: &Subject<'_>,
    dead: &[DeadProperty],
    out: &mut String,
    missing: &mut String,
) {
    match given_name(live, dead) {
        Some(property) => out.push_str(&property.value),
        None if live.write(call, subject, out) => {}
        None => live.write_bare(missing),
    }
}

/// Returns the `displayname` that a client gave: it stands in for the name.
fn given_name(live: Live, dead: &[DeadProperty]) -> Option<&DeadProperty> {
    dead.iter().find(|p| live == Live::DisplayName && p.name.namespace == DAV && p.name.name == "displayname")
}

fn all(call: &Call, subject: &Subject<'_>, dead: &[DeadProperty], out: &mut String) {
    for live in Live::ALL {
        if given_name(live, dead).is_none() {
            live.write(call, subject, out);
        }
    }
    dead.iter().for_each(|property| out.push_str(&property.value));
}

fn all_names(row: &Row<'_>, out: &mut String) {
    for live in Live::ALL.into_iter().filter(|live| live.exists(row.entry) && given_name(*live, row.dead).is_none()) {
        live.write_bare(out);
    }
    row.dead.iter().for_each(|property| multistatus::bare(&property.name, out));
}
