//! Tags: labels of files, kept as a dead property in a form of its own, so that they follow a file and its
//! copies as dead properties do.

use super::{Property, PropertyChange, PropertyName};
use crate::domain::FileTag;

const HEAD: &str = "<tags xmlns=\"urn:patgate\">";
const TAIL: &str = "</tags>";

/// Returns the name of the property that holds tags: `{urn:patgate}tags`, a list with commas.
pub fn tags_property() -> PropertyName {
    PropertyName { namespace: "urn:patgate".to_owned(), name: "tags".to_owned() }
}

/// Returns the change that labels with these tags, and no others; each counts once.
pub fn label(tags: &[FileTag]) -> PropertyChange {
    let mut list: Vec<&str> = Vec::new();
    for tag in tags.iter().map(FileTag::as_str) {
        if !list.contains(&tag) {
            list.push(tag);
        }
    }
    if list.is_empty() {
        return PropertyChange::Remove(tags_property());
    }
    let text = list.join(",").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    PropertyChange::Set(Property { name: tags_property(), value: format!("{HEAD}{text}{TAIL}") })
}

/// Reads the tags back; none of what [`label`] didn't write.
pub(super) fn tags_of(value: &str) -> Option<Vec<FileTag>> {
    let text = value.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    text.split(',').map(|tag| tag.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_were_written() {
        let tags: Vec<FileTag> = ["a", "b & <c>", "a", "&lt;"].iter().map(|text| text.parse().expect("tag")).collect();
        let PropertyChange::Set(property) = label(&tags) else { panic!("set") };
        assert_eq!(property.value, "<tags xmlns=\"urn:patgate\">a,b &amp; &lt;c&gt;,&amp;lt;</tags>");
        let unique: Vec<FileTag> = [&tags[0], &tags[1], &tags[3]].map(Clone::clone).into();
        assert_eq!(tags_of(&property.value), Some(unique));
        assert_eq!(label(&[]), PropertyChange::Remove(tags_property()));
        assert_eq!(tags_of("<x:tags xmlns:x=\"urn:patgate\">a</x:tags>"), None);
    }
}
