//! The text form of a personal access token: `pgt_` id `.` secret and checksum.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::base62;

const TOKEN_PREFIX: &[u8] = b"pgt_";
pub(super) const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 6;
pub(super) const SECRET_AND_CHECKSUM_BYTES: usize = SECRET_BYTES + CHECKSUM_BYTES;
const TOKEN_TEXT_BYTES: usize = TOKEN_PREFIX.len() + ID_BYTES + 1 + SECRET_BYTES + CHECKSUM_BYTES;

/// The public id of a token: eight base62 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; ID_BYTES]);

impl TokenId {
    /// Draws a new id from a source of random bytes.
    pub fn generate(random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut id = [0; ID_BYTES];
        base62::fill_random_digits(&mut id, random);
        Self(id)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        match <[u8; ID_BYTES]>::try_from(text.as_bytes()) {
            Ok(id) if base62::is_base62(&id) => Ok(Self(id)),
            _ => Err(TokenError::Id),
        }
    }
}

impl Serialize for TokenId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The secret of a token: 32 base62 characters, 190 bits.
///
/// It is wiped from memory when dropped, and its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Draws a new secret from a source of random bytes.
    pub fn generate(random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut secret = Self([0; SECRET_BYTES]);
        base62::fill_random_digits(&mut secret.0, random);
        secret
    }

    /// Returns the secret's characters, for hashing and comparing only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A token as its owner holds it: id and secret, with a checksum that detects typing errors.
///
/// Text form: `pgt_JhxND7ci.` + 32 secret characters + 6 checksum characters, 51 in all. The
/// checksum is CRC-32 (ISO-HDLC) of everything before it, base62, left-padded with `0`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    id: TokenId,
    secret: Secret,
}

impl TokenText {
    /// Joins an id and a secret.
    pub fn new(id: TokenId, secret: Secret) -> Self {
        Self { id, secret }
    }

    /// Parses a token that a client sent. The kinds of errors are distinguished for tests and the owner's own command
    /// line only, never towards a client.
    ///
    /// # Errors
    /// [`TokenError`] for a wrong length, prefix, alphabet or checksum.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let text = <&[u8; TOKEN_TEXT_BYTES]>::try_from(text).map_err(|_| TokenError::Length)?;
        let (head, checksum) = text.split_at(TOKEN_TEXT_BYTES - CHECKSUM_BYTES);
        let rest = head.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        let (id, secret) = rest.split_at(ID_BYTES);
        let secret = secret.strip_prefix(b".").ok_or(TokenError::Prefix)?;
        if !base62::is_base62(id) || !base62::is_base62(secret) {
            return Err(TokenError::Alphabet);
        }
        // No comparison here needs constant time: the checksum follows from the text itself, and secrets are compared
        // by `auth`.
        if checksum != base62::encode_u32(crc32fast::hash(head)) {
            return Err(TokenError::Checksum);
        }
        let id = id.try_into().map_err(|_| TokenError::Length)?;
        let secret = secret.try_into().map_err(|_| TokenError::Length)?;
        Ok(Self { id: TokenId(id), secret: Secret(secret) })
    }

    /// Returns the public id.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the whole token as text, for the one time that it is shown.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_TEXT_BYTES));
        text.push_str("pgt_");
        text.push_str(self.id.as_str());
        text.push('.');
        text.extend(self.secret.0.iter().map(|&b| char::from(b)));
        let checksum = base62::encode_u32(crc32fast::hash(text.as_bytes()));
        text.extend(checksum.iter().map(|&b| char::from(b)));
        text
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}, redacted)", self.id)
    }
}

/// The reason why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not an id of eight base62 characters.
    #[error("a token id has 8 letters and digits, such as JhxND7ci")]
    Id,
    /// Not 51 characters.
    #[error("a token has 51 characters")]
    Length,
    /// No `pgt_ID.` at the front.
    #[error("a token starts with pgt_, its id and a full stop")]
    Prefix,
    /// Something besides letters and digits.
    #[error("a token has letters and digits only")]
    Alphabet,
    /// The checksum does not match: a character was mistyped.
    #[error("the token's checksum does not match: it was mistyped or truncated")]
    Checksum,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample_token(seed: u8) -> TokenText {
        let mut state = seed;
        let mut random = |buffer: &mut [u8]| {
            for byte in buffer {
                state = state.wrapping_mul(37).wrapping_add(11);
                *byte = state;
            }
        };
        TokenText::new(TokenId::generate(&mut random), Secret::generate(&mut random))
    }

    proptest! {
        #[test]
        fn text_form_round_trips(seed: u8) {
            let token = sample_token(seed);
            let text = token.reveal();
            prop_assert_eq!(text.len(), 51);
            prop_assert_eq!(TokenText::parse(text.as_bytes()), Ok(token));
        }

        #[test]
        fn checksum_detects_single_wrong_character(seed: u8, at in 0usize..51, other in 32u8..127) {
            let mut text = sample_token(seed).reveal().as_bytes().to_vec();
            prop_assume!(text[at] != other);
            text[at] = other;
            prop_assert!(TokenText::parse(&text).is_err());
        }

        #[test]
        fn token_parser_never_panics(bytes: Vec<u8>) {
            let _ = TokenText::parse(&bytes);
        }
    }

    #[test]
    fn debug_output_hides_secret() {
        let token = sample_token(3);
        let secret = std::str::from_utf8(token.secret().expose()).expect("ascii").to_owned();
        assert!(!format!("{token:?} {:?}", token.secret()).contains(&secret));
    }

    #[test]
    fn parse_errors_are_distinct() {
        let text = sample_token(9).reveal();
        assert_eq!(TokenText::parse(b"pgt_"), Err(TokenError::Length));
        assert_eq!(TokenText::parse(text.replace("pgt_", "gho_").as_bytes()), Err(TokenError::Prefix));
        assert_eq!(TokenText::parse(text.replace('.', "-").as_bytes()), Err(TokenError::Prefix));
    }
}
