//! The part of protocol buffers that the agent needs: messages of texts and lists of texts.
//!
//! Owns encoding and decoding. Pure functions. Invariant: unreadable bytes are an error and never a panic, and unknown fields
//! are skipped.

use zeroize::Zeroizing;

/// The wire type of a length followed by that many bytes, used for texts and nested messages.
const LENGTH: u64 = 2;
/// The longest number, in bytes. Two numbers precede each text.
const NUMBER: usize = 10;

/// Encodes a message: a list of texts and single texts, each with its field number. Empty single texts are left out; those of
/// the list are not.
pub(crate) fn write(list: (u32, &[String]), single: &[(u32, &str)]) -> Zeroizing<Vec<u8>> {
    let (number, texts) = list;
    let single = single.iter().filter(|(_, text)| !text.is_empty()).copied();
    let fields: Vec<(u32, &str)> = texts.iter().map(|text| (number, text.as_str())).chain(single).collect();
    // Allocated at full size, since a buffer that grows would leave copies of secrets in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(fields.iter().map(|(_, text)| text.len() + 2 * NUMBER).sum()));
    for (number, text) in fields {
        put_number(&mut out, u64::from(number) << 3 | LENGTH);
        put_number(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    out
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Decodes a message: its texts in order, each with its field number; `None` = the bytes are not a valid message.
pub(crate) fn read(mut bytes: &[u8]) -> Option<Vec<(u64, String)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = take_number(&mut bytes)?;
        match tag & 7 {
            0 => drop(take_number(&mut bytes)?),
            1 => drop(bytes.split_off(..8)?),
            LENGTH => {
                let length = usize::try_from(take_number(&mut bytes)?).ok()?;
                let text = bytes.split_off(..length)?;
                found.push((tag >> 3, String::from_utf8(text.to_vec()).ok()?));
            }
            5 => drop(bytes.split_off(..4)?),
            _ => return None,
        }
    }
    Some(found)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift).filter(|part| part >> shift == u64::from(byte & 0x7f))?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        let list = ["ab".to_owned(), String::new()];
        let message = write((1, &list), &[(2, "u"), (3, ""), (16, "x")]);
        assert_eq!(message[..], *b"\x0a\x02ab\x0a\x00\x12\x01u\x82\x01\x01x");
        let long = "y".repeat(300);
        assert_eq!(write((1, &[]), &[(1, &long)])[..3], *b"\x0a\xac\x02");
    }

    #[test]
    fn unknown_fields_are_skipped_and_broken_ones_are_errors() {
        let text = |number, text: &str| (number, text.to_owned());
        let strange = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0a\x01a\x11\x01\x02\x03\x04\x05\x06\x07\x08\x1d\x01\x02\x03\x04\x12\x00";
        assert_eq!(read(strange), Some(vec![text(1, "a"), text(2, "")]));
        let broken: [&[u8]; 7] = [
            b"\x0a",
            b"\x0a\x02a",
            b"\x0a\x01\xff",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\x01",
            b"\x0b",
        ];
        for bytes in broken {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(list: Vec<String>, single in ".{1,200}") {
            let message = write((1, &list), &[(7, &single)]);
            let mut wanted: Vec<(u64, String)> = list.into_iter().map(|text| (1, text)).collect();
            wanted.push((7, single));
            prop_assert_eq!(read(&message), Some(wanted));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
