//! Encodes bytes as readable text, which decodes to the same bytes. Serialization with this encoding is in `stored`.
//!
//! UTF-8 is not changed. Every other byte is escaped as `\xff`, and so is the backslash of text that looks like an
//! escape (`\x5c`), so that each text decodes to one sequence of bytes.

use std::fmt::Write;

/// Returns the byte of an escape such as `\xff` at the start of a text.
fn leading_escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Returns the bytes as text with escapes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (index, letter) in chunk.valid().char_indices() {
            match leading_escape(&chunk.valid().as_bytes()[index..]) {
                Some(_) => text.push_str("\\x5c"),
                None => text.push(letter),
            }
        }
        // Writing to a string never fails.
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Returns the bytes of a text with escapes.
#[cfg(any(feature = "serde", test))]
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![], text.as_bytes());
    while let [first, after @ ..] = rest {
        match leading_escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Returns a name for messages: no byte of it moves the cursor, starts a line, or changes the direction of text.
pub(crate) fn shown(name: &[u8]) -> String {
    printable(&encode(name))
}

/// Returns a text with names in it in the same way. What [`shown`] has returned does not change.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '\'' | '"' => shown.push(letter),
            // Printable characters are not changed.
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn utf8_is_not_changed() {
        for text in ["", "/usr/bin", "a b\n", "häß", "C:\\x", "\\xfg", "\\xFF"] {
            assert_eq!(encode(text.as_bytes()), text);
        }
        assert_eq!(encode(b"/tmp/\xff"), "/tmp/\\xff");
        assert_eq!(encode(b"\\xff"), "\\x5cxff");
    }

    #[test]
    fn characters_that_are_not_printable_are_escaped() {
        assert_eq!(shown(b"\x1b[2Jna\nme\xff"), "\\u{1b}[2Jna\\nme\\xff");
        assert_eq!(shown("\u{202e}a\u{2066}\u{2028}\u{9b}".as_bytes()), "\\u{202e}a\\u{2066}\\u{2028}\\u{9b}");
        assert_eq!(printable(&shown(b"\\xff\xff\n")), shown(b"\\xff\xff\n"));
        assert_eq!(shown("it's \"h\u{e4}\u{df}\" \u{65e5}".as_bytes()), "it's \"h\u{e4}\u{df}\" \u{65e5}");
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            Just(b"\\x".to_vec()),
            Just(b"\\x5c".to_vec()),
            Just(b"ff".to_vec()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(bytes in bytes()) {
            prop_assert_eq!(decode(&encode(&bytes)), bytes);
        }
    }
}
