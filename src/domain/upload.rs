//! Bounds of uploads: the limits of a token and of all above it, joined into one rule; and the space that unfinished
//! uploads and dead properties may take.

use std::str::FromStr;

use super::UserQuotaLimits;
use super::limits::{ByteSize, FileTag, MimePattern, TokenLimits};

/// The limits on the uploads of a session. They only narrow along a chain of tokens: the smallest size applies, and
/// types and tags must be on the list of every token that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadRule {
    max_file_size: Option<ByteSize>,
    mimes: Vec<Vec<MimePattern>>,
    tags: Vec<Vec<FileTag>>,
}

impl UploadRule {
    /// Joins the limits of a token and of those above it.
    pub fn intersect<'a>(chain: impl IntoIterator<Item = &'a TokenLimits>) -> Self {
        let mut rule = Self::default();
        for TokenLimits { max_file_size, mimes, tags, .. } in chain {
            rule.max_file_size = rule.max_file_size.into_iter().chain(*max_file_size).min();
            // An empty list limits nothing, so it must not become a list that allows nothing.
            rule.mimes.extend((!mimes.is_empty()).then(|| mimes.clone()));
            rule.tags.extend((!tags.is_empty()).then(|| tags.clone()));
        }
        rule
    }

    /// Returns the maximum size of a file.
    pub fn max_file_size(&self) -> Option<ByteSize> {
        self.max_file_size
    }

    /// Tells whether the media types of files are limited.
    pub fn restricts_mime_types(&self) -> bool {
        !self.mimes.is_empty()
    }

    /// Tells whether tags are limited.
    pub fn restricts_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Tells whether a media type with these names is on every list.
    pub fn allows_mime_type(&self, names: &[&str]) -> bool {
        let on = |list: &[MimePattern]| list.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)));
        self.mimes.iter().all(|list| on(list))
    }

    /// Returns the first of the tags that is not on every list.
    pub fn first_denied_tag<'t>(&self, tags: &'t [FileTag]) -> Option<&'t FileTag> {
        tags.iter().find(|tag| !self.tags.iter().all(|list| list.contains(tag)))
    }
}

/// Quota of dead properties, in bytes; each property counts with its texts and 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertyQuota {
    /// Maximum for the properties that one user has set.
    pub per_user: u64,
    /// Maximum for all properties.
    pub total: u64,
}

impl Default for PropertyQuota {
    /// Returns 64 MiB for each user, 1 GiB in all.
    fn default() -> Self {
        Self { per_user: 64 << 20, total: 1 << 30 }
    }
}

/// Space that unfinished uploads may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadSpace {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage of the space that would be free without them.
    Percent(u8),
}

impl UploadSpace {
    /// Returns the maximum number of bytes, announced ones included, when `free` bytes are free and unfinished uploads
    /// have written `written` bytes.
    pub fn limit_bytes(self, free: u64, written: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                // In 128 bits: a hundred times the free bytes may exceed 64.
                let share = u128::from(free.saturating_add(written)) * u128::from(percent) / 100;
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Space that unfinished uploads may take: those of one user, and all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadSpaceLimits {
    /// Space for the uploads of one user.
    pub per_user: UploadSpace,
    /// Space for all uploads.
    pub total: UploadSpace,
}

impl UploadSpaceLimits {
    /// Returns the maximum numbers of bytes, as [`UploadSpace::limit_bytes`] does.
    pub fn limit_bytes(self, free: u64, written: u64) -> UserQuotaLimits {
        UserQuotaLimits {
            per_user: self.per_user.limit_bytes(free, written),
            total: self.total.limit_bytes(free, written),
        }
    }
}

impl Default for UploadSpaceLimits {
    /// Returns a quarter of the free space for each user, half of it in all.
    fn default() -> Self {
        Self { per_user: UploadSpace::Percent(25), total: UploadSpace::Percent(50) }
    }
}

impl FromStr for UploadSpace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.parse::<ByteSize>().map(|size| Self::Bytes(size.bytes()));
        };
        let percent = percent.trim_end().parse().ok().filter(|percent| *percent <= 100);
        percent.map(Self::Percent).ok_or_else(|| "give a size, such as 10GiB, or a share from 0% to 100%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(size: Option<u64>, mimes: &[&str], tags: &[&str]) -> TokenLimits {
        TokenLimits {
            max_file_size: size.map(ByteSize::from_bytes),
            mimes: mimes.iter().map(|text| text.parse().expect("type")).collect(),
            tags: tags.iter().map(|text| text.parse().expect("tag")).collect(),
            ..TokenLimits::default()
        }
    }

    #[test]
    fn smallest_max_file_size_of_chain_applies() {
        let join = |sizes: &[Option<u64>]| {
            let chain: Vec<_> = sizes.iter().map(|size| limits(*size, &[], &[])).collect();
            UploadRule::intersect(&chain).max_file_size().map(ByteSize::bytes)
        };
        assert_eq!(join(&[]), None);
        assert_eq!(join(&[None, Some(7), None]), Some(7));
        assert_eq!(join(&[Some(7), Some(3), Some(9)]), Some(3));
    }

    #[test]
    fn mime_type_must_be_allowed_by_every_token_of_chain() {
        let chain =
            [limits(None, &["image/png", "text/*"], &[]), limits(None, &[], &[]), limits(None, &["image/*"], &[])];
        let rule = UploadRule::intersect(&chain);
        assert!(rule.restricts_mime_types());
        assert!(rule.allows_mime_type(&["image/png"]) && rule.allows_mime_type(&["image/gif", "image/png"]));
        assert!(
            !rule.allows_mime_type(&["image/gif"])
                && !rule.allows_mime_type(&["text/plain"])
                && !rule.allows_mime_type(&[])
        );
        assert!(UploadRule::default().allows_mime_type(&["x/y"]) && !UploadRule::default().restricts_mime_types());
    }

    #[test]
    fn tag_must_be_allowed_by_every_token_of_chain() {
        let tags = |list: &[&str]| limits(None, &[], list).tags;
        let rule = UploadRule::intersect(&[limits(None, &[], &["a", "b"]), limits(None, &[], &["b", "c"])]);
        assert_eq!(rule.first_denied_tag(&tags(&["b", "a"])), Some(&tags(&["a"])[0]));
        assert_eq!(rule.first_denied_tag(&tags(&["b"])), None);
        assert_eq!(rule.first_denied_tag(&[]), None);
        assert_eq!(UploadRule::default().first_denied_tag(&tags(&["x"])), None);
    }

    #[test]
    fn upload_space_parses_size_or_percentage() {
        let most =
            |text: &str, free, written| text.parse::<UploadSpace>().map(|space| space.limit_bytes(free, written));
        assert_eq!(most("1KiB", 0, 9), Ok(1024));
        assert_eq!(most("50%", 90, 10), Ok(50));
        assert_eq!(most(" 100 %", u64::MAX, 10), Ok(u64::MAX));
        assert_eq!(most("0%", 90, 10), Ok(0));
        for text in ["", "%", "-1%", "101%", "1.5%", "many"] {
            assert!(text.parse::<UploadSpace>().is_err(), "{text}");
        }
    }
}
