//! Paths and names as text that people can read, and that reads back as the same bytes.
//!
//! What is UTF-8 stands as it is. Every other byte stands as `\xff`, and so does the backslash of such a sequence itself
//! (`\x5c`), so that each text stands for one sequence of bytes.

#[cfg(feature = "serde")]
pub(crate) mod form;

use std::fmt::Write;

/// The value of a sequence such as `\xff` at the beginning.
fn escaped(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))?;
    u8::from_str_radix(digits, 16).ok()
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (index, letter) in chunk.valid().char_indices() {
            match escaped(&chunk.valid().as_bytes()[index..]) {
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

#[cfg(any(feature = "serde", test))]
fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![], text.as_bytes());
    while let [first, after @ ..] = rest {
        match escaped(rest) {
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

/// A name as it is shown and told: no byte of it moves a cursor, begins a line, or changes the direction of what follows.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for letter in encode(name).chars() {
        match letter {
            '\\' | '\'' | '"' => shown.push(letter),
            // What Unicode calls printable stays.
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
    fn text_stands_as_it_is() {
        for text in ["", "/usr/bin", "a b\n", "häß", "C:\\x", "\\xfg", "\\xFF"] {
            assert_eq!(encode(text.as_bytes()), text);
        }
        assert_eq!(encode(b"/tmp/\xff"), "/tmp/\\xff");
        assert_eq!(encode(b"\\xff"), "\\x5cxff");
    }

    #[test]
    fn what_is_not_printable_is_shown_as_an_escape() {
        assert_eq!(shown(b"\x1b[2Jna\nme\xff"), "\\u{1b}[2Jna\\nme\\xff");
        assert_eq!(shown("\u{202e}a\u{2066}\u{2028}\u{9b}".as_bytes()), "\\u{202e}a\\u{2066}\\u{2028}\\u{9b}");
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
        fn every_sequence_of_bytes_reads_back(bytes in bytes()) {
            prop_assert_eq!(decode(&encode(&bytes)), bytes);
        }
    }
}
