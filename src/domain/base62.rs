//! Base62 digits: the alphabet of token ids, secrets and checksums.

pub(super) const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Tells whether every byte is a base62 digit.
pub(super) fn is_base62(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_alphanumeric)
}

/// Fills `digits` with uniformly distributed base62 digits drawn from `random`.
///
/// Bytes of 248 (4 * 62) and above are discarded, so that no digit is more likely than another.
pub(super) fn fill_random_digits(digits: &mut [u8], random: &mut dyn FnMut(&mut [u8])) {
    let mut filled = 0;
    // Wiped when dropped: these are the random bytes of a secret.
    let mut pool = zeroize::Zeroizing::new([0u8; 64]);
    while filled < digits.len() {
        random(&mut pool[..]);
        for &byte in pool.iter().filter(|&&b| b < 248) {
            if filled == digits.len() {
                return;
            }
            digits[filled] = ALPHABET[usize::from(byte % 62)];
            filled += 1;
        }
    }
}

/// Writes `value` as base62, left-padded with `0` to six digits (62^6 > 2^32).
pub(super) fn encode_u32(mut value: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u32_encodes_to_six_base62_digits() {
        assert_eq!(&encode_u32(0), b"000000");
        assert_eq!(&encode_u32(61), b"00000z");
        assert_eq!(&encode_u32(62), b"000010");
        assert_eq!(&encode_u32(u32::MAX), b"4gfFC3");
    }

    #[test]
    fn fill_skips_bytes_that_would_bias_the_digits() {
        let mut digits = [0u8; 8];
        let mut next = 240u8;
        fill_random_digits(&mut digits, &mut |buffer| {
            for byte in buffer {
                *byte = next;
                next = next.wrapping_add(1);
            }
        });
        assert!(is_base62(&digits));
        assert_eq!(digits[7], ALPHABET[247 % 62]);
    }
}
