//! Selection of the properties that are written for every entry, computed once per response.

use super::live_property::{LiveProperty, PropertySubject};
use crate::domain::TreePath;
use crate::tree::{DeadProperty, Entry, MediaTypeLookup, PropertyName};
use crate::webdav::multistatus;
use crate::webdav::request_context::RequestContext;
use crate::webdav::xml::{DAV_NAMESPACE, XmlElement};

/// Maximum number of properties in a request, more than any client names.
const MAX_PROPERTY_NAMES: usize = 512;

/// Properties that are written for every entry.
pub(in crate::webdav) struct PropfindPlan {
    shape: PropfindShape,
    /// Properties requested by name: written, or reported as missing.
    columns: Vec<PropertyColumn>,
    /// Whether missing properties are reported.
    reports_missing: bool,
    missing_buffer: String,
    media_types: MediaTypeLookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PropfindShape {
    AllProp,
    PropName,
    Prop,
}

enum PropertyColumn {
    Live(LiveProperty),
    Dead(PropertyName),
}

/// Entry that is written to the response.
pub(in crate::webdav) struct PropfindRow<'a> {
    /// URL path of the entry.
    pub(in crate::webdav) href: &'a str,
    /// Name for `displayname`.
    pub(in crate::webdav) display_name: &'a [u8],
    /// Attributes of the entry.
    pub(in crate::webdav) entry: &'a Entry,
    /// Returns the path of the entry; a function, since few properties need it.
    pub(in crate::webdav) path: &'a dyn Fn() -> TreePath,
    /// Dead properties of the entry.
    pub(in crate::webdav) dead_properties: &'a [DeadProperty],
    /// Whether the request has `Depth: 0`, so that it is the only entry in the response.
    pub(in crate::webdav) is_depth_zero: bool,
}

impl PropfindPlan {
    /// Writes all properties of `allprop`, and the additional ones, of which missing ones are reported.
    pub(in crate::webdav) fn allprop(additional: Vec<PropertyName>) -> Self {
        // A property that `allprop` writes anyway may also be named in `include`; it must not be written twice.
        let columns = property_columns(additional)
            .into_iter()
            .filter(|c| !matches!(c, PropertyColumn::Live(live) if LiveProperty::ALLPROP.contains(live)));
        Self::with_columns(PropfindShape::AllProp, columns.collect())
    }

    /// Writes the names of the properties that `allprop` writes.
    pub(in crate::webdav) fn propname() -> Self {
        Self::with_columns(PropfindShape::PropName, Vec::new())
    }

    /// Writes the properties that an element names; `None` when there are too many.
    pub(in crate::webdav) fn from_element(prop: &XmlElement) -> Option<Self> {
        property_names(prop).map(Self::prop)
    }

    /// Writes these properties.
    pub(in crate::webdav) fn prop(names: Vec<PropertyName>) -> Self {
        Self::with_columns(PropfindShape::Prop, property_columns(names))
    }

    fn with_columns(shape: PropfindShape, columns: Vec<PropertyColumn>) -> Self {
        let (missing_buffer, media_types) = (String::new(), MediaTypeLookup::default());
        Self { shape, columns, reports_missing: true, missing_buffer, media_types }
    }

    /// Omits missing properties when `minimal` (RFC 8144 section 2.1).
    pub(in crate::webdav) fn with_minimal_return(self, minimal: bool) -> Self {
        Self { reports_missing: !minimal, ..self }
    }

    /// Tells whether dead properties are needed at all.
    pub(in crate::webdav) fn needs_dead_properties(&self) -> bool {
        // `displayname` is live until a client sets it; then it is stored like a dead property.
        let dead = |column: &PropertyColumn| {
            matches!(column, PropertyColumn::Dead(_) | PropertyColumn::Live(LiveProperty::DisplayName))
        };
        self.shape != PropfindShape::Prop || self.columns.iter().any(dead)
    }

    /// Appends the `D:response` of one entry.
    pub(in crate::webdav) fn write_response(
        &mut self,
        context: &RequestContext,
        row: &PropfindRow<'_>,
        out: &mut String,
    ) {
        let subject = PropertySubject {
            entry: row.entry,
            display_name: row.display_name,
            path: row.path,
            media_types: &self.media_types,
            is_depth_zero: row.is_depth_zero,
        };
        out.push_str("<D:response><D:href>");
        out.push_str(row.href);
        out.push_str("</D:href><D:propstat><D:prop>");
        // Reused, so that a listing doesn't allocate a buffer for every entry.
        let mut missing = std::mem::take(&mut self.missing_buffer);
        missing.clear();
        match self.shape {
            PropfindShape::AllProp => write_allprop(context, &subject, row.dead_properties, out),
            PropfindShape::PropName => write_propname(row, out),
            PropfindShape::Prop => {}
        }
        let is_allprop = self.shape == PropfindShape::AllProp;
        for column in &self.columns {
            match column {
                PropertyColumn::Live(live) => {
                    write_live_or_missing(*live, context, &subject, row.dead_properties, out, &mut missing)
                }
                // `write_allprop` has written it.
                PropertyColumn::Dead(_) if is_allprop && row.dead_properties.iter().any(|p| column.matches(p)) => {}
                PropertyColumn::Dead(name) => match row.dead_properties.iter().find(|p| column.matches(p)) {
                    // Stored as XML with its own namespace declarations: copied as it is.
                    Some(property) => out.push_str(&property.value),
                    None => multistatus::write_empty_property(name, &mut missing),
                },
            }
        }
        if !self.reports_missing {
            missing.clear();
        }
        // No property was found: the opened propstat is removed. It stays, empty, where none is missing either, since a
        // response needs one.
        if !missing.is_empty() && out.ends_with("<D:prop>") {
            out.truncate(out.len() - "<D:propstat><D:prop>".len());
        } else {
            out.push_str("</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>");
        }
        if !missing.is_empty() {
            multistatus::write_propstat(&missing, "404 Not Found", None, out);
        }
        self.missing_buffer = missing;
        out.push_str("</D:response>\n");
    }
}

impl PropertyColumn {
    fn matches(&self, property: &DeadProperty) -> bool {
        matches!(self, Self::Dead(name) if *name == property.name)
    }
}

/// Returns the names of the child elements, without duplicates; `None` when there are more than
/// [`MAX_PROPERTY_NAMES`].
pub(super) fn property_names(element: &XmlElement) -> Option<Vec<PropertyName>> {
    let mut names = Vec::new();
    for name in element.elements().map(XmlElement::name) {
        if !names.contains(&name) {
            names.push(name);
        }
        if names.len() > MAX_PROPERTY_NAMES {
            return None;
        }
    }
    Some(names)
}

fn property_columns(names: Vec<PropertyName>) -> Vec<PropertyColumn> {
    names
        .into_iter()
        .map(|name| LiveProperty::from_name(&name).map_or(PropertyColumn::Dead(name), PropertyColumn::Live))
        .collect()
}

fn write_live_or_missing(
    live: LiveProperty,
    context: &RequestContext,
    subject: &PropertySubject<'_>,
    dead: &[DeadProperty],
    out: &mut String,
    missing: &mut String,
) {
    match custom_display_name(live, dead) {
        Some(property) => out.push_str(&property.value),
        None if live.write(context, subject, out) => {}
        None => live.write_empty(missing),
    }
}

/// Returns the `displayname` that a client set; it replaces the name of the entry.
fn custom_display_name(live: LiveProperty, dead: &[DeadProperty]) -> Option<&DeadProperty> {
    dead.iter().find(|p| {
        live == LiveProperty::DisplayName && p.name.namespace == DAV_NAMESPACE && p.name.name == "displayname"
    })
}

fn write_allprop(context: &RequestContext, subject: &PropertySubject<'_>, dead: &[DeadProperty], out: &mut String) {
    for live in LiveProperty::ALLPROP {
        if custom_display_name(live, dead).is_none() {
            live.write(context, subject, out);
        }
    }
    dead.iter().for_each(|property| out.push_str(&property.value));
}

fn write_propname(row: &PropfindRow<'_>, out: &mut String) {
    for live in LiveProperty::ALLPROP
        .into_iter()
        .filter(|live| live.is_defined_for(row.entry) && custom_display_name(*live, row.dead_properties).is_none())
    {
        live.write_empty(out);
    }
    row.dead_properties.iter().for_each(|property| multistatus::write_empty_property(&property.name, out));
}
