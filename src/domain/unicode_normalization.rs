//! Unicode normalization of names: macOS sends names decomposed (`a` and a combining diaeresis) that other systems
//! write composed (`ä`).

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

use super::path::{EntryName, TreePath};

impl EntryName {
    /// Returns the normalization forms NFC and NFD of the name that differ from it; none where the name has no other
    /// form or is not UTF-8.
    pub fn alternate_normalizations(&self) -> Vec<EntryName> {
        let bytes = self.as_bytes();
        if bytes.is_ascii() {
            return Vec::new();
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
        let composed = ComposingNormalizerBorrowed::new_nfc().normalize(text);
        let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(text);
        let others = [composed, decomposed].into_iter().filter(|other| *other != text);
        let mut names: Vec<EntryName> = others.filter_map(|other| EntryName::new(other.as_bytes()).ok()).collect();
        names.dedup();
        names
    }
}

impl TreePath {
    /// Tells whether a component of the path has another normalization form.
    pub fn has_alternate_normalizations(&self) -> bool {
        !self.as_bytes().is_ascii() && self.names().any(|name| !name.alternate_normalizations().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_nfc_and_nfd_alternates() {
        let others = |text: &str| -> Vec<String> {
            let name = EntryName::new(text.as_bytes()).expect(text);
            name.alternate_normalizations().iter().map(ToString::to_string).collect()
        };
        assert_eq!(others("\u{e4}"), ["a\u{308}"]);
        assert_eq!(others("a\u{308}"), ["\u{e4}"]);
        assert_eq!(others("\u{e4}a\u{308}"), ["\u{e4}\u{e4}", "a\u{308}a\u{308}"]);
        assert_eq!(others("\u{ac00}"), ["\u{1100}\u{1161}"]);
        for text in ["plain", "\u{65e5}\u{672c}", "\u{df}"] {
            assert_eq!(others(text), [""; 0], "{text}");
        }
        assert!(EntryName::new(b"\xe4").expect("bytes").alternate_normalizations().is_empty());
    }
}
