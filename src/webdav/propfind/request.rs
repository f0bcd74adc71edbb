//! The body of PROPFIND (RFC 4918 section 14.20).

use super::plan::Plan;
use crate::tree::PropertyName;
use crate::webdav::xml::Element;

/// More properties than any client names.
const MAX_NAMES: usize = 512;

/// What a client wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All dead properties, the live ones of RFC 4918, and these.
    All(Vec<PropertyName>),
    /// The names of what there is.
    Names,
    /// These.
    Named(Vec<PropertyName>),
}

impl Wanted {
    /// Reads a body; an empty one wants all.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.trim_ascii().is_empty() {
            return Some(Self::All(Vec::new()));
        }
        let root = Element::parse(bytes).ok().filter(|root| root.is("propfind"))?;
        match (root.child("prop"), root.child("allprop"), root.child("propname")) {
            (Some(prop), None, None) => names(prop).map(Self::Named),
            (None, Some(_), None) => match root.child("include") {
                Some(include) => names(include).map(Self::All),
                None => Some(Self::All(Vec::new())),
            },
            (None, None, Some(_)) => Some(Self::Names),
            _ => None,
        }
    }

    /// Lays out what is written of every entry.
    pub(super) fn plan(self) -> Plan {
        match self {
            Self::All(more) => Plan::all(more),
            Self::Names => Plan::names(),
            Self::Named(names) => Plan::named(names),
        }
    }
}

/// Reads the names of the elements in one, each once; none when there are too many.
pub(super) fn names(element: &Element) -> Option<Vec<PropertyName>> {
    let mut names = Vec::new();
    for name in element.elements().map(Element::name) {
        if !names.contains(&name) {
            names.push(name);
        }
        if names.len() > MAX_NAMES {
            return None;
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(inner: &str) -> Option<Wanted> {
        Wanted::parse(format!("<propfind xmlns=\"DAV:\">{inner}</propfind>").as_bytes())
    }

    fn dav(name: &str) -> PropertyName {
        PropertyName { namespace: "DAV:".into(), name: name.into() }
    }

    #[test]
    fn a_body_wants_one_of_three_things() {
        assert_eq!(Wanted::parse(b" "), Some(Wanted::All(Vec::new())));
        assert_eq!(wanted("<allprop/>"), Some(Wanted::All(Vec::new())));
        assert_eq!(wanted("<allprop/><include><x/></include>"), Some(Wanted::All(vec![dav("x")])));
        assert_eq!(wanted("<propname/><unknown xmlns=\"u:\"/>"), Some(Wanted::Names));
        assert_eq!(wanted("<prop><a/><b/><a/></prop>"), Some(Wanted::Named(vec![dav("a"), dav("b")])));
        for inner in ["", "<x/>", "<allprop/><propname/>", "<prop/><allprop/>"] {
            assert_eq!(wanted(inner), None, "{inner}");
        }
        assert_eq!(Wanted::parse(b"<propfind><allprop/></propfind>"), None, "not in WebDAV's namespace");
    }
}
