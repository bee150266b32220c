//! D-Bus messages, with the types that the two calls need (D-Bus specification, "Message Protocol").
//!
//! Owns alignment, types and headers, in little-endian order. Pure functions. Invariant: decoding ends without a panic for any
//! bytes.

/// The size of a header's fixed part, including the length of the fields, in bytes.
pub(crate) const HEAD: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// A property of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// A text.
    Text(String),
    /// A boolean.
    Flag(bool),
    /// An unsigned number of 64 bits.
    Number(u64),
}

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The call with this serial number succeeded.
    Done(u32),
    /// The call with this serial number failed; the name and text of the error.
    Failed(u32, String, String),
    /// Not an answer, such as a signal.
    Other,
}

/// A method call.
#[derive(Debug)]
pub(crate) struct Call {
    /// Destination, path, interface, method.
    target: (&'static str, &'static str, &'static str, &'static str),
    /// The types of the arguments.
    signature: String,
    /// The arguments.
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(target: (&'static str, &'static str, &'static str, &'static str)) -> Self {
        Self { target, signature: String::new(), body: Vec::new() }
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.signature.push('s');
        put_text(&mut self.body, text);
        self
    }

    /// Adds a list of properties: `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[(&str, Property)]) -> &mut Self {
        self.signature.push_str("a(sv)");
        put_array(&mut self.body, |body| {
            for (name, value) in properties {
                align(body, 8);
                put_text(body, name);
                put_property(body, value);
            }
        });
        self
    }

    /// Adds an empty list of auxiliary units.
    pub(crate) fn no_auxiliary_units(&mut self) {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.body, |_| {});
    }

    /// Encodes the whole message.
    pub(crate) fn encode(&self, serial: u32) -> Vec<u8> {
        let (destination, path, interface, member) = self.target;
        let mut out = vec![b'l', METHOD_CALL, 0, 1];
        put_u32(&mut out, self.body.len() as u32);
        put_u32(&mut out, serial);
        put_array(&mut out, |out| {
            for (code, signature, text) in [
                (FIELD_PATH, 'o', path),
                (FIELD_INTERFACE, 's', interface),
                (FIELD_MEMBER, 's', member),
                (FIELD_DESTINATION, 's', destination),
            ] {
                align(out, 8);
                out.push(code);
                put_signature(out, &signature.to_string());
                put_text(out, text);
            }
            if !self.signature.is_empty() {
                align(out, 8);
                out.push(FIELD_SIGNATURE);
                put_signature(out, "g");
                put_signature(out, &self.signature);
            }
        });
        align(&mut out, 8);
        out.extend_from_slice(&self.body);
        out
    }
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    align(out, 4);
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn put_signature(out: &mut Vec<u8>, signature: &str) {
    out.push(signature.len() as u8);
    out.extend_from_slice(signature.as_bytes());
    out.push(0);
}

/// An array of structures: its length counts neither itself nor the padding in front of the first.
fn put_array(out: &mut Vec<u8>, elements: impl FnOnce(&mut Vec<u8>)) {
    put_u32(out, 0);
    let length_at = out.len() - 4;
    align(out, 8);
    let start = out.len();
    elements(out);
    let length = (out.len() - start) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_property(out: &mut Vec<u8>, value: &Property) {
    match value {
        Property::Text(text) => {
            put_signature(out, "s");
            put_text(out, text);
        }
        Property::Flag(flag) => {
            put_signature(out, "b");
            put_u32(out, u32::from(*flag));
        }
        Property::Number(number) => {
            put_signature(out, "t");
            align(out, 8);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The number of bytes after the fixed part. `None`: the header is invalid, or in big-endian order.
pub(crate) fn rest(head: &[u8; HEAD]) -> Option<u32> {
    let mut read = Read { bytes: head, at: 4 };
    let (body, _serial, fields) = (read.u32()?, read.u32()?, read.u32()?);
    (head[0] == b'l' && head[3] == 1).then(|| fields.checked_next_multiple_of(8)?.checked_add(body))?
}

/// Decodes a message. `None`: the bytes are not a message.
pub(crate) fn decode(head: &[u8; HEAD], rest: &[u8]) -> Option<Reply> {
    let fields = u32::from_le_bytes(*head.last_chunk()?) as usize;
    let mut read = Read { bytes: rest.get(..fields)?, at: 0 };
    let (mut serial, mut name) = (None, String::new());
    while read.at < fields {
        read.align(8);
        let code = read.u8()?;
        match read.signature()?.as_str() {
            "u" => serial = Some(read.u32()?).filter(|_| code == FIELD_REPLY_SERIAL).or(serial),
            "s" | "o" => {
                let text = read.text()?;
                if code == FIELD_ERROR_NAME {
                    name = text;
                }
            }
            "g" => drop(read.signature()?),
            _ => return None,
        }
    }
    Some(match (head[1], serial) {
        (METHOD_RETURN, Some(serial)) => Reply::Done(serial),
        (ERROR, Some(serial)) => {
            let body = rest.get(fields.next_multiple_of(8)..).unwrap_or_default();
            Reply::Failed(serial, name, Read { bytes: body, at: 0 }.text().unwrap_or_default())
        }
        _ => Reply::Other,
    })
}

/// Reads values one after the other; `None` at the end of the bytes.
struct Read<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Read<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn u8(&mut self) -> Option<u8> {
        self.at += 1;
        self.bytes.get(self.at - 1).copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(u32::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.chars(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        self.chars(length)
    }

    /// A text of `length` bytes, and the zero byte after it.
    fn chars(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?).into_owned();
        self.at = end + 1;
        Some(text)
    }
}
