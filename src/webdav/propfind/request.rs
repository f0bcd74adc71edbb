//! Body of PROPFIND (RFC 4918 section 14.20).

use super::plan::{PropfindPlan, property_names};
use crate::tree::PropertyName;
use crate::webdav::xml::XmlElement;

/// Parsed body of PROPFIND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webdav) enum PropfindRequest {
    /// All dead properties, the live ones of RFC 4918, and these additional ones.
    AllProp(Vec<PropertyName>),
    /// Names of all properties.
    PropName,
    /// These properties.
    Prop(Vec<PropertyName>),
}

impl PropfindRequest {
    /// Parses a body; an empty one means `allprop` (RFC 4918 section 9.1). `None` when it is malformed.
    pub(in crate::webdav) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.trim_ascii().is_empty() {
            return Some(Self::AllProp(Vec::new()));
        }
        let root = XmlElement::parse(bytes).ok().filter(|root| root.is_dav("propfind"))?;
        // Exactly one of the three; unknown elements beside it are ignored (RFC 4918 section 17).
        match (root.child("prop"), root.child("allprop"), root.child("propname")) {
            (Some(prop), None, None) => property_names(prop).map(Self::Prop),
            (None, Some(_), None) => match root.child("include") {
                Some(include) => property_names(include).map(Self::AllProp),
                None => Some(Self::AllProp(Vec::new())),
            },
            (None, None, Some(_)) => Some(Self::PropName),
            _ => None,
        }
    }

    /// Returns the plan of the properties to write.
    pub(in crate::webdav) fn into_plan(self) -> PropfindPlan {
        match self {
            Self::AllProp(additional) => PropfindPlan::allprop(additional),
            Self::PropName => PropfindPlan::propname(),
            Self::Prop(names) => PropfindPlan::prop(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_propfind(inner: &str) -> Option<PropfindRequest> {
        PropfindRequest::parse(format!("<propfind xmlns=\"DAV:\">{inner}</propfind>").as_bytes())
    }

    fn dav_property(name: &str) -> PropertyName {
        PropertyName { namespace: "DAV:".into(), name: name.into() }
    }

    #[test]
    fn propfind_body_is_prop_allprop_or_propname() {
        assert_eq!(PropfindRequest::parse(b" "), Some(PropfindRequest::AllProp(Vec::new())));
        assert_eq!(parse_propfind("<allprop/>"), Some(PropfindRequest::AllProp(Vec::new())));
        assert_eq!(
            parse_propfind("<allprop/><include><x/></include>"),
            Some(PropfindRequest::AllProp(vec![dav_property("x")]))
        );
        assert_eq!(parse_propfind("<propname/><unknown xmlns=\"u:\"/>"), Some(PropfindRequest::PropName));
        assert_eq!(
            parse_propfind("<prop><a/><b/><a/></prop>"),
            Some(PropfindRequest::Prop(vec![dav_property("a"), dav_property("b")]))
        );
        for inner in ["", "<x/>", "<allprop/><propname/>", "<prop/><allprop/>"] {
            assert_eq!(parse_propfind(inner), None, "{inner}");
        }
        assert_eq!(PropfindRequest::parse(b"<propfind><allprop/></propfind>"), None, "not in WebDAV's namespace");
    }
}
