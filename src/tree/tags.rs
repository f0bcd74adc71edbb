//! Tags of files, stored as a dead property with a syntax of its own, so that they follow a file and its copies as dead
//! properties do.

use super::dead_property::{DeadProperty, PropertyChange, PropertyName};
use crate::domain::FileTag;

/// XML namespace of properties that only patgate has.
pub const PATGATE_NAMESPACE: &str = "urn:patgate";

/// Returns the name of the property that holds tags: `{urn:patgate}tags`, with a comma-separated list as its text.
pub fn tags_property() -> PropertyName {
    PropertyName { namespace: PATGATE_NAMESPACE.to_owned(), name: "tags".to_owned() }
}

/// Returns the change that replaces all tags of an entry by these; duplicates are dropped, and none removes the
/// property.
pub fn set_tags_change(tags: &[FileTag]) -> PropertyChange {
    let mut list: Vec<&str> = Vec::new();
    for tag in tags.iter().map(FileTag::as_str) {
        if !list.contains(&tag) {
            list.push(tag);
        }
    }
    if list.is_empty() {
        return PropertyChange::Remove(tags_property());
    }
    // `&` is escaped first and unescaped last, or a tag that contains `&lt;` would change.
    let text = list.join(",").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    PropertyChange::Set(DeadProperty {
        name: tags_property(),
        value: format!("<tags xmlns=\"{PATGATE_NAMESPACE}\">{text}</tags>"),
    })
}

/// Parses the value of the property; `None` unless it has exactly the form that [`set_tags_change`] writes.
pub(super) fn parse_tags(value: &str) -> Option<Vec<FileTag>> {
    let text = value
        .strip_prefix("<tags xmlns=\"")?
        .strip_prefix(PATGATE_NAMESPACE)?
        .strip_prefix("\">")?
        .strip_suffix("</tags>")?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    text.split(',').map(|tag| tag.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip_through_property() {
        let tags: Vec<FileTag> = ["a", "b & <c>", "a", "&lt;"].iter().map(|text| text.parse().expect("tag")).collect();
        let PropertyChange::Set(property) = set_tags_change(&tags) else { panic!("set") };
        assert_eq!(property.value, "<tags xmlns=\"urn:patgate\">a,b &amp; &lt;c&gt;,&amp;lt;</tags>");
        let unique: Vec<FileTag> = [&tags[0], &tags[1], &tags[3]].map(Clone::clone).into();
        assert_eq!(parse_tags(&property.value), Some(unique));
        assert_eq!(set_tags_change(&[]), PropertyChange::Remove(tags_property()));
        assert_eq!(parse_tags("<x:tags xmlns:x=\"urn:patgate\">a</x:tags>"), None);
    }
}
