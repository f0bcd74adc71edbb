//! Contents that say what they are: every byte follows from the number of the content and its length, so that one that
//! is torn, mixed or cut is recognized.

use crate::history::Seen;
use crate::random::Random;

/// Size of a block that is written in place: part of one page, which a kill leaves whole.
pub(crate) const BLOCK_BYTES: usize = 512;

/// Returns the content of a number, with `length` bytes or those of its first line if that is longer.
pub(crate) fn content(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("soak {number} {length}\n").into_bytes();
    let mut random = Random::new(number);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length.max(1 + first_line_length(&bytes)));
    bytes
}

fn first_line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

/// Returns the number of a content, or what is wrong with it.
pub(crate) fn recognize(bytes: &[u8]) -> Seen {
    let parsed = || {
        let line = std::str::from_utf8(bytes.get(..first_line_length(bytes))?).ok()?;
        let (number, length) = line.strip_prefix("soak ")?.split_once(' ')?;
        Some((number.parse().ok()?, length.parse().ok()?))
    };
    match parsed() {
        Some((number, length)) if content(number, length) == bytes => Seen::Value(Some(number)),
        Some((number, length)) => {
            let whole = content(number, length);
            let at = whole.iter().zip(bytes).position(|(first, second)| first != second);
            Seen::Damaged(format!("content {number} of {length} bytes has {} bytes, wrong at {at:?}", bytes.len()))
        }
        None => Seen::Damaged(format!("{} bytes that nobody has written", bytes.len())),
    }
}

#[test]
fn whole_content_is_recognized_and_damaged_is_not() {
    for (number, length) in [(7, 0), (7, 30), (8, BLOCK_BYTES), (9, 100_000)] {
        let whole = content(number, length);
        assert_eq!(recognize(&whole), Seen::Value(Some(number)));
        let mut mixed = content(number + 1, length);
        mixed[..20.min(whole.len())].copy_from_slice(&whole[..20.min(whole.len())]);
        for damaged in [&whole[..whole.len() - 1], &mixed[..], &[&whole[..], b"x"].concat(), b""] {
            assert!(matches!(recognize(damaged), Seen::Damaged(_)) || damaged == whole, "{number} {length}");
        }
    }
}
