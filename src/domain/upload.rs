//! What uploads must fit: the limits of a token and of all above it, joined into one rule; what those that are not
//! finished may hold, and dead properties.

use std::str::FromStr;

use super::ShareLimits;
use super::limits::{ByteSize, Limits, MimePattern, Tag};

/// What the uploads of a session must fit. It only ever narrows along a chain of tokens: the smallest
/// size counts, and types and tags have to be on every list there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadRule {
    max_file_size: Option<ByteSize>,
    mimes: Vec<Vec<MimePattern>>,
    tags: Vec<Vec<Tag>>,
}

impl UploadRule {
    /// Joins the limits of a token and of those above it.
    pub fn join<'a>(chain: impl IntoIterator<Item = &'a Limits>) -> Self {
        let mut rule = Self::default();
        for Limits { max_file_size, mimes, tags, .. } in chain {
            rule.max_file_size = rule.max_file_size.into_iter().chain(*max_file_size).min();
            rule.mimes.extend((!mimes.is_empty()).then(|| mimes.clone()));
            rule.tags.extend((!tags.is_empty()).then(|| tags.clone()));
        }
        rule
    }

    /// Returns the size that no file may pass.
    pub fn max_file_size(&self) -> Option<ByteSize> {
        self.max_file_size
    }

    /// Tells whether the media types of files are limited.
    pub fn limits_types(&self) -> bool {
        !self.mimes.is_empty()
    }

    /// Tells whether tags are limited.
    pub fn limits_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Tells whether a media type that goes by these names is on every list.
    pub fn allows_type(&self, names: &[&str]) -> bool {
        let on = |list: &[MimePattern]| list.iter().any(|pattern| names.iter().any(|name| pattern.fits(name)));
        self.mimes.iter().all(|list| on(list))
    }

    /// Returns the first of the tags that is not on every list.
    pub fn refused_tag<'t>(&self, tags: &'t [Tag]) -> Option<&'t Tag> {
        tags.iter().find(|tag| !self.tags.iter().all(|list| list.contains(tag)))
    }
}

/// Space that dead properties may take, in bytes, 256 for each beside its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertySpace {
    /// Those that one user has set.
    pub per_user: u64,
    /// All.
    pub all: u64,
}

impl Default for PropertySpace {
    /// 64 MiB for each user, 1 GiB for all.
    fn default() -> Self {
        Self { per_user: 64 << 20, all: 1 << 30 }
    }
}

/// How many bytes all unfinished uploads together may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadSpace {
    /// So many.
    Bytes(u64),
    /// So many percent of what would be free without them.
    Share(u8),
}

impl UploadSpace {
    /// Returns how many bytes they may hold, announced ones among them, when so many are free, and they have written
    /// so many.
    pub fn most(self, free: u64, written: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(percent) => {
                let share = u128::from(free.saturating_add(written)) * u128::from(percent) / 100;
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        }
    }
}

/// How many bytes unfinished uploads may hold: those of one user, and all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadSpaces {
    /// Those of one user.
    pub per_user: UploadSpace,
    /// All.
    pub all: UploadSpace,
}

impl UploadSpaces {
    /// Returns how many bytes they may hold, as [`UploadSpace::most`] does.
    pub fn most(self, free: u64, written: u64) -> ShareLimits {
        ShareLimits { per_user: self.per_user.most(free, written), in_all: self.all.most(free, written) }
    }
}

impl Default for UploadSpaces {
    /// A quarter of what is free for each user, half of it for all.
    fn default() -> Self {
        Self { per_user: UploadSpace::Share(25), all: UploadSpace::Share(50) }
    }
}

impl FromStr for UploadSpace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.parse::<ByteSize>().map(|size| Self::Bytes(size.bytes()));
        };
        let percent = percent.trim_end().parse().ok().filter(|percent| *percent <= 100);
        percent.map(Self::Share).ok_or_else(|| "give a size, such as 10GiB, or a share from 0% to 100%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(size: Option<u64>, mimes: &[&str], tags: &[&str]) -> Limits {
        Limits {
            max_file_size: size.map(ByteSize::from_bytes),
            mimes: mimes.iter().map(|text| text.parse().expect("type")).collect(),
            tags: tags.iter().map(|text| text.parse().expect("tag")).collect(),
            ..Limits::default()
        }
    }

    #[test]
    fn the_least_size_of_a_chain_counts() {
        let join = |sizes: &[Option<u64>]| {
            let chain: Vec<_> = sizes.iter().map(|size| limits(*size, &[], &[])).collect();
            UploadRule::join(&chain).max_file_size().map(ByteSize::bytes)
        };
        assert_eq!(join(&[]), None);
        assert_eq!(join(&[None, Some(7), None]), Some(7));
        assert_eq!(join(&[Some(7), Some(3), Some(9)]), Some(3));
    }

    #[test]
    fn a_type_has_to_be_on_every_list_there_is() {
        let chain =
            [limits(None, &["image/png", "text/*"], &[]), limits(None, &[], &[]), limits(None, &["image/*"], &[])];
        let rule = UploadRule::join(&chain);
        assert!(rule.limits_types());
        assert!(rule.allows_type(&["image/png"]) && rule.allows_type(&["image/gif", "image/png"]));
        assert!(!rule.allows_type(&["image/gif"]) && !rule.allows_type(&["text/plain"]) && !rule.allows_type(&[]));
        assert!(UploadRule::default().allows_type(&["x/y"]) && !UploadRule::default().limits_types());
    }

    #[test]
    fn tags_have_to_be_on_every_list_there_is() {
        let tags = |list: &[&str]| limits(None, &[], list).tags;
        let rule = UploadRule::join(&[limits(None, &[], &["a", "b"]), limits(None, &[], &["b", "c"])]);
        assert_eq!(rule.refused_tag(&tags(&["b", "a"])), Some(&tags(&["a"])[0]));
        assert_eq!(rule.refused_tag(&tags(&["b"])), None);
        assert_eq!(rule.refused_tag(&[]), None);
        assert_eq!(UploadRule::default().refused_tag(&tags(&["x"])), None);
    }

    #[test]
    fn unfinished_uploads_hold_a_size_or_a_share() {
        let most = |text: &str, free, written| text.parse::<UploadSpace>().map(|space| space.most(free, written));
        assert_eq!(most("1KiB", 0, 9), Ok(1024));
        assert_eq!(most("50%", 90, 10), Ok(50));
        assert_eq!(most(" 100 %", u64::MAX, 10), Ok(u64::MAX));
        assert_eq!(most("0%", 90, 10), Ok(0));
        for text in ["", "%", "-1%", "101%", "1.5%", "many"] {
            assert!(text.parse::<UploadSpace>().is_err(), "{text}");
        }
    }
}
