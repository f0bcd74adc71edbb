//! Dead properties (RFC 4918 section 4): kept for clients, never interpreted.

/// The name of a property: an XML namespace (may be empty) and a local name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PropertyName {
    /// The namespace.
    pub namespace: String,
    /// The local name.
    pub name: String,
}

/// A dead property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: PropertyName,
    /// The whole element as XML that declares every prefix it uses.
    pub value: String,
}

/// One step of a PROPPATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyChange {
    /// Sets a property.
    Set(Property),
    /// Removes a property, if it is there.
    Remove(PropertyName),
}
