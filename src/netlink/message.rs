//! The bytes of netlink messages: a header, a fixed part, and attributes, which may hold attributes.
//!
//! Invariant: reading never panics, whatever the bytes are; a length that does not fit ends the reading.

/// The size of `nlmsghdr` in bytes.
pub(crate) const HEADER: usize = 16;
/// The flag of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are flags.
const FLAGS: u16 = 0xc000;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// A message that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message of this type with these flags. `fixed` is what precedes the attributes: a multiple of four bytes.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]); // the length, written last
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]); // the sequence number, and the sender
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn add(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute in the order of bytes of this host.
    pub(crate) fn add_u32(self, kind: u16, value: u32) -> Self {
        self.add(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute in the order of bytes of the network.
    pub(crate) fn add_be32(self, kind: u16, value: u32) -> Self {
        self.add(kind, &value.to_be_bytes())
    }

    /// Adds a text, with the zero byte that ends it.
    pub(crate) fn add_text(self, kind: u16, value: &str) -> Self {
        self.add(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds what `inside` adds.
    pub(crate) fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        let mut message = inside(self);
        let length = u16::try_from(message.0.len() - start).unwrap_or(u16::MAX);
        message.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// Adds bytes as they are: a fixed part inside an attribute.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The finished message.
    pub(crate) fn bytes(mut self, more_flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | more_flags;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages in these bytes.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..length)?;
        let message = Received { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, body };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in these bytes: type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let (kind, value) = (u16_at(bytes, 2)? & !FLAGS, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text that a zero byte ends.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = Message::new(16, NLM_F_REQUEST, &[7; 4])
            .add(1, &[1, 2, 3])
            .nest(18, |inside| inside.add_text(1, "veth").nest(2, |deeper| deeper.raw(&[9; 8]).add_u32(5, 77)))
            .add_be32(3, 1);
        let bytes = message.bytes(NLM_F_ACK, 5);
        assert_eq!(bytes.len() % 4, 0);
        let read: Vec<_> = messages(&bytes).collect();
        let [message] = &read[..] else { panic!("{read:?}") };
        assert_eq!((message.kind, message.flags, message.sequence), (16, NLM_F_REQUEST | NLM_F_ACK, 5));
        let outer: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(outer[0], (1, &[1, 2, 3][..]));
        assert_eq!(outer[2], (3, &[0, 0, 0, 1][..]));
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!((inner[0].0, text(inner[0].1).as_str()), (1, "veth"));
        assert_eq!(attributes(&inner[1].1[8..]).collect::<Vec<_>>(), [(5, &77_u32.to_ne_bytes()[..])]);
    }

    /// Every beginning of a message, and every length in it, is read without a panic.
    #[test]
    fn odd_bytes_end_the_reading() {
        let whole = Message::new(16, 0, &[7; 4]).nest(18, |inside| inside.add_text(1, "veth")).bytes(0, 1);
        let read = |bytes: &[u8]| {
            messages(bytes).flat_map(|message| attributes(message.body.get(4..).unwrap_or_default())).count()
        };
        for length in 0..whole.len() {
            read(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 4, 17, 255] {
                let mut odd = whole.clone();
                odd[at] = value;
                read(&odd);
            }
        }
        assert_eq!(read(&[0; 64]), 0, "a length of zero does not repeat for ever");
    }
}
