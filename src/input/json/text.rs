//! Reads JSON text that `serde_json` refuses and the Go agent accepts.
//!
//! A lone surrogate (`"\ud83d"`) becomes U+FFFD. An integer may be written `10.0` or `1e1`. A number above the largest float
//! becomes the largest float. Values may nest as deep as in Go; values that are nested deeper than anything the agent reads
//! become `null`.
//!
//! [`Raw`] is text that has not been parsed: its members and items are found by quotes and brackets alone, so a malformed one
//! does not affect the others. Invariants: neither the stack nor the memory in use grows with the nesting of the text, a parsed
//! value contains at most [`MAX_VALUES`] values, and an error names a position, never the text there.

mod error;
mod number;
mod reader;

use super::{DecodeError, decode};
use reader::Reader;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

pub use error::{MAX_DEPTH, MAX_VALUES, TextError};

/// Reads a whole document.
///
/// # Errors
/// The text is not JSON, or exceeds the bounds.
pub fn parse(text: &str) -> Result<Value, TextError> {
    let mut reader = Reader::new(text);
    let mut values_left = MAX_VALUES;
    let value = reader.value(0, &mut values_left)?;
    reader.end()?;
    Ok(value)
}

/// One value of a JSON text that has not been parsed. `Debug` shows only its kind and size, since it may hold secrets.
#[derive(Clone, Copy)]
pub struct Raw<'a>(&'a str);

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.kind(), self.0.len())
    }
}

impl<'a> Raw<'a> {
    /// Takes the text of one value, which is checked only when it is parsed. A byte-order mark at its beginning is skipped.
    pub fn new(text: &'a str) -> Self {
        Self(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// The text.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Parses the text.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn parse(self) -> Result<Value, TextError> {
        parse(self.0)
    }

    /// Parses the text and decodes it as a `T`, as [`decode`] does.
    ///
    /// # Errors
    /// The text is not JSON, or not a valid `T`.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        decode(&self.parse()?)
    }

    /// The kind of the value by its first character, as Go names it.
    pub fn kind(self) -> &'static str {
        match self.0.trim_start().bytes().next() {
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            Some(b'n') => "null",
            _ => "number",
        }
    }

    /// The members of an object, in their order; `None` if the value is not an object.
    pub fn members(self) -> Option<Members<'a>> {
        Level::open(self.0, b'{').map(|level| Members { level })
    }

    /// The items of a list, in their order; `None` if the value is not a list.
    pub fn items(self) -> Option<Items<'a>> {
        Level::open(self.0, b'[').map(|level| Items { level })
    }

    /// The member with exactly this name, or else with this name in any case, unless it is `null`. Of several, the last one
    /// counts. The search ends at the first error in the text.
    pub fn member(self, name: &str) -> Option<Self> {
        let (mut exact, mut in_any_case) = (None, None);
        for (key, value) in self.members()?.map_while(Result::ok).filter(|(_, value)| value.kind() != "null") {
            if key == name {
                exact = Some(value);
            } else if key.eq_ignore_ascii_case(name) {
                in_any_case = Some(value);
            }
        }
        exact.or(in_any_case)
    }
}

/// The members of an object, as name and value. The iterator ends after the first error.
#[derive(Debug)]
pub struct Members<'a> {
    level: Level<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(Cow<'a, str>, Raw<'a>), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.level.next(|reader| {
            let name = reader.string()?;
            reader.skip_space();
            reader.expect(b':')?;
            Ok((name, Raw(reader.skip()?)))
        })
    }
}

/// The items of a list. The iterator ends after the first error.
#[derive(Debug)]
pub struct Items<'a> {
    level: Level<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Raw<'a>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.level.next(|reader| reader.skip().map(Raw))
    }
}

/// The text between two matching brackets of a document, while its values are read one by one.
#[derive(Debug)]
struct Level<'a> {
    reader: Reader<'a>,
    close: u8,
    is_first: bool,
    is_over: bool,
}

impl<'a> Level<'a> {
    fn open(text: &'a str, bracket: u8) -> Option<Self> {
        let mut reader = Reader::new(text);
        reader.skip_space();
        reader.expect(bracket).ok()?;
        let close = if bracket == b'{' { b'}' } else { b']' };
        Some(Self { reader, close, is_first: true, is_over: false })
    }

    fn next<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Result<T, TextError>) -> Option<Result<T, TextError>> {
        if self.is_over {
            return None;
        }
        let next =
            self.advance().and_then(|has_next| if has_next { read(&mut self.reader).map(Some) } else { Ok(None) });
        self.is_over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }

    /// Goes to the next value, over the comma before it; false at the closing bracket, after which no text may follow.
    fn advance(&mut self) -> Result<bool, TextError> {
        self.reader.skip_space();
        if self.reader.peek() == Some(self.close) {
            self.reader.step();
            return self.reader.end().map(|()| false);
        }
        if !std::mem::take(&mut self.is_first) {
            self.reader.expect(b',')?;
            self.reader.skip_space();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
