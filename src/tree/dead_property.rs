//! Dead properties (RFC 4918 section 4) as values.

use crate::store::PropertyRow;

/// The name of a property: an XML namespace (may be empty) and a local name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PropertyName {
    /// URI of the XML namespace; empty for none.
    pub namespace: String,
    /// Local name, without a prefix.
    pub name: String,
}

/// A stored property: a dead one, or a live one whose value is what the client stored, as `displayname`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProperty {
    /// Expanded name of the element.
    pub name: PropertyName,
    /// The whole element as XML that declares every prefix it uses.
    pub value: String,
}

/// One step of a PROPPATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyChange {
    /// Sets a property.
    Set(DeadProperty),
    /// Removes a property, if it is there.
    Remove(PropertyName),
}

impl From<PropertyRow> for DeadProperty {
    fn from(PropertyRow { namespace, name, value }: PropertyRow) -> Self {
        Self { name: PropertyName { namespace, name }, value }
    }
}
