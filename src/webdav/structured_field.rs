//! Items of structured fields (RFC 8941): parameters that nobody knows are ignored, malformed ones are not.

/// Returns the bare item of a field whose value is an item that is not a string, without its parameters; `None` where
/// the parameters are malformed.
pub(super) fn item_without_parameters(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let (item, parameters) = value.split_at_checked(end)?;
    parameters_end(parameters)?.is_empty().then_some(item)
}

/// Parses parameters (section 4.2.3.2); returns what follows them.
fn parameters_end(mut rest: &[u8]) -> Option<&[u8]> {
    while let Some(parameter) = rest.strip_prefix(b";") {
        let spaces = leading_count(parameter, |byte| byte == b' ');
        rest = key_end(parameter.get(spaces..)?)?;
        if let Some(value) = rest.strip_prefix(b"=") {
            rest = bare_item_end(value)?;
        }
    }
    Some(rest)
}

/// Parses a key (section 4.2.3.3); returns what follows it.
fn key_end(text: &[u8]) -> Option<&[u8]> {
    text.first().filter(|first| first.is_ascii_lowercase() || **first == b'*')?;
    let is_key_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
    text.get(leading_count(text, is_key_byte)..)
}

/// Parses a bare item (section 4.2.3.1); returns what follows it.
fn bare_item_end(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'?', b'0' | b'1', rest @ ..] => Some(rest),
        [b'"', rest @ ..] => string_end(rest),
        [b':', rest @ ..] => {
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
            rest.get(leading_count(rest, is_base64)..)?.strip_prefix(b":")
        }
        [b'-', rest @ ..] => number_end(rest),
        [b'0'..=b'9', ..] => number_end(text),
        [first, ..] if first.is_ascii_alphabetic() || *first == b'*' => {
            let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
            text.get(leading_count(text, is_token_byte)..)
        }
        _ => None,
    }
}

/// Parses a string after its opening quote (section 4.2.5); returns what follows it.
fn string_end(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\', rest @ ..] => rest,
            [b'\\', ..] => return None,
            [b' '..=b'~', rest @ ..] => rest,
            _ => return None,
        }
    }
}

/// Parses an integer or a decimal after its sign (section 4.2.4); returns what follows it.
fn number_end(text: &[u8]) -> Option<&[u8]> {
    let integer_digits = leading_count(text, |byte| byte.is_ascii_digit());
    let rest = text.get(integer_digits..)?;
    let Some(fraction) = rest.strip_prefix(b".") else {
        return (1..=15).contains(&integer_digits).then_some(rest);
    };
    let fraction_digits = leading_count(fraction, |byte| byte.is_ascii_digit());
    let is_decimal = (1..=12).contains(&integer_digits) && (1..=3).contains(&fraction_digits);
    is_decimal.then(|| fraction.get(fraction_digits..)).flatten()
}

fn leading_count(text: &[u8], accepts: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| accepts(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_are_ignored_and_malformed_ones_refused() {
        for value in [
            "?1",
            " ?1 ",
            "?1;x",
            "?1;  x;*y-1.z_",
            "?1;x=?0;y=-15;z=1.125",
            "?1;x=\"a;b\\\"\\\\\"",
            "?1;x=:YWI=:;y=*a/b:c",
        ] {
            assert_eq!(item_without_parameters(value.as_bytes()), Some(&b"?1"[..]), "{value}");
        }
        for value in [
            "?1;",
            "?1;X",
            "?1;x=",
            "?1;x y",
            "?1;x;",
            "?1;1",
            "?1;x=\"a",
            "?1;x=\"\\a\"",
            "?1;x=:a",
            "?1;x=?2",
            "?1;x=1.",
            "?1;x=-",
            "?1;x=1234567890123456",
            "?1;x=1.1234",
            "?1;x, ?1",
            "?1;x=\"\u{e4}\"",
        ] {
            assert_eq!(item_without_parameters(value.as_bytes()), None, "{value}");
        }
        assert_eq!(item_without_parameters(b"?1 ;x"), Some(&b"?1 "[..]), "which is no boolean");
    }
}
