//! Reads a JSON text byte by byte.
//!
//! Owns the grammar, both for skipping and for parsing. Invariants: when a method returns, the position is never inside a
//! character; the recursion is at most [`MAX_READ_DEPTH`] levels deep.

use super::error::{MAX_DEPTH, TextError};
use super::number::number;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// The number of nested levels that are parsed; deeper values become `null`. The agent uses no more than a dozen levels of any
/// message.
const MAX_READ_DEPTH: usize = 128;

/// A text, and the current position in it.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Offset of the position in bytes. When a method returns, it is between two characters.
    at: usize,
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of {}", self.at, self.text.len())
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Skips one byte, which the caller has examined.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The text from this position to the current one.
    fn text_from(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn error<T>(&self, what: &'static str) -> Result<T, TextError> {
        Err(TextError::Syntax(what, self.at))
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, wanted: u8) -> Result<(), TextError> {
        match self.peek() {
            Some(byte) if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.error("an unexpected character"),
            None => self.error("an early end"),
        }
    }

    /// Checks that nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), TextError> {
        self.skip_space();
        if self.peek().is_none() { Ok(()) } else { self.error("something after the end") }
    }

    /// Skips one value, examining only its quotes and brackets, and returns its text.
    pub(super) fn skip(&mut self) -> Result<&'a str, TextError> {
        self.skip_space();
        let start = self.at;
        match self.peek() {
            None => return self.error("an early end"),
            Some(b'"') => self.skip_string()?,
            Some(b'{' | b'[') => drop(self.skip_brackets()?),
            Some(_) => {
                while !matches!(
                    self.peek(),
                    None | Some(b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']' | b' ' | b'\t' | b'\n' | b'\r')
                ) {
                    self.at += 1;
                }
                if self.at == start {
                    return self.error("an unexpected character");
                }
            }
        }
        Ok(self.text_from(start))
    }

    /// Skips from a quote to the next one that is not escaped.
    fn skip_string(&mut self) -> Result<(), TextError> {
        self.expect(b'"')?;
        loop {
            match self.peek() {
                None => return self.error("an early end"),
                Some(b'"') => break,
                Some(b'\\') => self.at = (self.at + 2).min(self.text.len()),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Skips from a bracket to the matching one, and returns the depth of the nesting. Down to [`MAX_DEPTH`], each closing
    /// bracket must be of the same kind as its opening one. Deeper brackets are only counted, which bounds the memory; the
    /// parser refuses such a depth anyway.
    fn skip_brackets(&mut self) -> Result<usize, TextError> {
        let (mut open, mut uncompared, mut deepest) = (Vec::new(), 0_usize, 0);
        loop {
            match self.peek() {
                None => return self.error("an early end"),
                Some(b'"') => {
                    self.skip_string()?;
                    continue;
                }
                Some(b'{' | b'[') if open.len() == MAX_DEPTH => {
                    uncompared += 1;
                    deepest = deepest.max(MAX_DEPTH + uncompared);
                }
                Some(bracket @ (b'{' | b'[')) => {
                    open.push(if bracket == b'{' { b'}' } else { b']' });
                    deepest = deepest.max(open.len());
                }
                Some(b'}' | b']') if uncompared > 0 => uncompared -= 1,
                Some(bracket @ (b'}' | b']')) if open.pop() != Some(bracket) => {
                    return self.error("an unexpected character");
                }
                Some(_) => {}
            }
            self.at += 1;
            if open.is_empty() {
                return Ok(deepest);
            }
        }
    }

    /// Parses one value, which is nested in `depth` others. `values_left` is the number of values that the document may still
    /// have.
    pub(super) fn value(&mut self, depth: usize, values_left: &mut usize) -> Result<Value, TextError> {
        *values_left = values_left.checked_sub(1).ok_or(TextError::TooManyValues)?;
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_READ_DEPTH => {
                let more = self.skip_brackets()?;
                if depth + more > MAX_DEPTH { Err(TextError::TooDeep) } else { Ok(Value::Null) }
            }
            Some(b'{') => self.object(depth, values_left),
            Some(b'[') => self.list(depth, values_left),
            Some(b'"') => Ok(Value::String(self.string()?.into_owned())),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(number(self.number()?))),
            Some(_) => self.error("an unexpected character"),
            None => self.error("an early end"),
        }
    }

    fn object(&mut self, depth: usize, values_left: &mut usize) -> Result<Value, TextError> {
        let mut members = Map::new();
        self.separated(b'}', |reader| {
            let name = reader.string()?.into_owned();
            reader.skip_space();
            reader.expect(b':')?;
            members.insert(name, reader.value(depth + 1, values_left)?);
            Ok(())
        })?;
        Ok(Value::Object(members))
    }

    fn list(&mut self, depth: usize, values_left: &mut usize) -> Result<Value, TextError> {
        let mut items = Vec::new();
        self.separated(b']', |reader| {
            items.push(reader.value(depth + 1, values_left)?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    /// Parses the values, separated by commas, between the bracket at this position and the matching one.
    fn separated(
        &mut self,
        close: u8,
        mut read: impl FnMut(&mut Self) -> Result<(), TextError>,
    ) -> Result<(), TextError> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            read(self)?;
            self.skip_space();
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn literal(&mut self, literal: &str, value: Value) -> Result<Value, TextError> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(literal)) {
            return self.error("an unexpected character");
        }
        self.at += literal.len();
        Ok(value)
    }

    /// Parses a string, from its quote to the closing one.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, TextError> {
        self.expect(b'"')?;
        let (mut whole, mut from) = (None::<String>, self.at);
        loop {
            match self.peek() {
                None => return self.error("an early end"),
                Some(b'"') => break,
                Some(b'\\') => {
                    let text = whole.get_or_insert_default();
                    text.push_str(self.text_from(from));
                    self.at += 1;
                    text.push(self.escape()?);
                    from = self.at;
                }
                Some(0..=0x1f) => return self.error("a control character in a string"),
                Some(_) => self.at += 1,
            }
        }
        let rest = self.text_from(from);
        self.at += 1;
        Ok(match whole {
            None => Cow::Borrowed(rest),
            Some(text) => Cow::Owned(text + rest),
        })
    }

    /// Parses an escape, after its backslash.
    fn escape(&mut self) -> Result<char, TextError> {
        let plain = match self.peek() {
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return self.error("an unknown escape in a string"),
        };
        self.at += 1;
        Ok(plain)
    }

    /// One character from four hexadecimal digits, or from two such escapes that form a surrogate pair. A lone surrogate becomes
    /// U+FFFD.
    fn unicode(&mut self) -> Result<char, TextError> {
        let first = self.hex()?;
        let mut ahead = self.clone();
        let second = ahead.expect(b'\\').and_then(|()| ahead.expect(b'u')).and_then(|()| ahead.hex());
        let pair = [first, second.unwrap_or_default()];
        Ok(match (char::from_u32(u32::from(first)), char::decode_utf16(pair).next()) {
            (Some(plain), _) => plain,
            (None, Some(Ok(paired))) => {
                *self = ahead;
                paired
            }
            (None, _) => char::REPLACEMENT_CHARACTER,
        })
    }

    /// Four hexadecimal digits.
    fn hex(&mut self) -> Result<u16, TextError> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            Some(unit) => {
                self.at += 4;
                Ok(unit)
            }
            None => self.error("an unknown escape in a string"),
        }
    }

    /// The text of a number.
    fn number(&mut self) -> Result<&'a str, TextError> {
        let start = self.at;
        self.accept(b"-");
        if !self.accept(b"0") {
            self.digits()?;
        }
        if self.accept(b".") {
            self.digits()?;
        }
        if self.accept(b"eE") {
            self.accept(b"+-");
            self.digits()?;
        }
        Ok(self.text_from(start))
    }

    /// Skips the next character if it is one of these; true if it was.
    fn accept(&mut self, any: &[u8]) -> bool {
        let is_accepted = self.peek().is_some_and(|byte| any.contains(&byte));
        self.at += usize::from(is_accepted);
        is_accepted
    }

    /// Skips at least one decimal digit.
    fn digits(&mut self) -> Result<(), TextError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.error("a number without digits");
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }
}
