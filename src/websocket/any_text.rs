//! A connection on which text messages need not be UTF-8.
//!
//! The websocket library refuses a text that is not UTF-8 and ends the connection; ECS would then send the same message again
//! on the next connection. The Go agent accepts such a text. Therefore text frames are marked as binary before the library
//! reads them, and the reader of the message decides how to decode its bytes. Owns the position in the stream of frames (RFC
//! 6455 §5.2). It keeps no payload and validates no frame. The invariants: only the opcode of a text frame changes, and written
//! bytes are passed on unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const IS_MASKED: u8 = 0x80;
/// Length of a masking key in bytes.
const KEY_LENGTH: u8 = 4;

/// The stream below a websocket.
#[derive(Debug)]
pub struct AnyText<S> {
    stream: S,
    position: Position,
    /// True: the peer has sent a binary message, which is logged only once.
    has_sent_binary: bool,
}

/// The part of a frame that the next byte of the peer belongs to.
#[derive(Clone, Copy, Debug)]
enum Position {
    /// The first byte of a frame, with the opcode.
    Opcode,
    /// The byte with the length, or with the mark of a long length.
    Length,
    /// A long length: `left` more bytes of it; `length` is the value of those before. `is_masked`: a masking key follows.
    LongLength { left: u8, length: u64, is_masked: bool },
    /// The masking key: `left` more bytes of it; a payload of `length` bytes follows.
    Key { left: u8, length: u64 },
    /// The payload: this many more bytes.
    Payload(u64),
}

impl Position {
    /// The part that follows the length.
    fn after_length(length: u64, is_masked: bool) -> Self {
        if is_masked { Self::Key { left: KEY_LENGTH, length } } else { Self::payload(length) }
    }

    /// The payload, or the next frame if the payload is empty.
    fn payload(length: u64) -> Self {
        if length == 0 { Self::Opcode } else { Self::Payload(length) }
    }
}

impl<S> AnyText<S> {
    /// Wraps a stream at the beginning of a frame.
    pub fn new(stream: S) -> Self {
        Self { stream, position: Position::Opcode, has_sent_binary: false }
    }

    /// Marks the text frames in these received bytes as binary, and advances the position.
    fn mark_text(&mut self, mut bytes: &mut [u8]) {
        while let Some((first, rest)) = bytes.split_first_mut() {
            self.position = match self.position {
                Position::Opcode => {
                    match *first & OPCODE {
                        TEXT => *first = (*first & !OPCODE) | BINARY,
                        BINARY if !std::mem::replace(&mut self.has_sent_binary, true) => {
                            tracing::error!("the control plane sent a binary message; it is read as text");
                        }
                        _ => {}
                    }
                    Position::Length
                }
                Position::Length => {
                    let is_masked = *first & IS_MASKED != 0;
                    match *first & !IS_MASKED {
                        126 => Position::LongLength { left: 2, length: 0, is_masked },
                        127 => Position::LongLength { left: 8, length: 0, is_masked },
                        short => Position::after_length(u64::from(short), is_masked),
                    }
                }
                Position::LongLength { left, length, is_masked } => {
                    let length = (length << 8) | u64::from(*first);
                    match left {
                        0 | 1 => Position::after_length(length, is_masked),
                        _ => Position::LongLength { left: left - 1, length, is_masked },
                    }
                }
                Position::Key { left: 0 | 1, length } => Position::payload(length),
                Position::Key { left, length } => Position::Key { left: left - 1, length },
                Position::Payload(left) => {
                    // Skips the payload as far as it is in `bytes`: its first byte, and `more` after it.
                    let more = left.saturating_sub(1).min(rest.len() as u64);
                    bytes = rest.get_mut(usize::try_from(more).unwrap_or(usize::MAX)..).unwrap_or_default();
                    self.position = Position::payload(left.saturating_sub(more + 1));
                    continue;
                }
            };
            bytes = rest;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyText<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.mark_text(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyText<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Fuzz target: the first byte of `data` is the size of the pieces in which the rest, a stream from the peer, arrives.
///
/// # Panics
/// If anything but the opcode of a text frame changes, or if the result depends on the size of the pieces.
#[cfg(any(test, fuzzing))]
pub fn websocket_stream(data: &[u8]) {
    let Some((size, sent)) = data.split_first() else { return };
    let (mut whole, mut pieces) = (sent.to_vec(), sent.to_vec());
    AnyText::new(()).mark_text(&mut whole);
    let mut stream = AnyText::new(());
    pieces.chunks_mut(usize::from(*size).max(1)).for_each(|piece| stream.mark_text(piece));
    assert_eq!(whole, pieces, "the result depends on the size of the pieces");
    for (passed, sent) in whole.iter().zip(sent) {
        let is_marked = sent & OPCODE == TEXT && *passed == sent + (BINARY - TEXT);
        assert!(passed == sent || is_marked, "{sent:#x} became {passed:#x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a server (or, masked, a client) sends it.
    fn frame(head: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
        let mask = u8::from(is_masked) << 7;
        let mut bytes = vec![head];
        match payload.len() {
            short @ 0..126 => bytes.push(mask | short as u8),
            middle @ 126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(mask | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(is_masked.then_some([1, 1, 1, 1]).into_iter().flatten());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn only_the_opcode_of_text_changes_in_pieces_of_any_size() {
        let payloads = [vec![], vec![0x81; 5], vec![0x81; 125], vec![1; 126], vec![0x81; 65_535], vec![1; 70_000]];
        // A whole text, a text in fragments, binary, ping, pong, close.
        let heads = [0x81, 0x01, 0x00, 0x80, 0x82, 0x89, 0x8a, 0x88];
        let (mut sent, mut wanted) = (Vec::new(), Vec::new());
        for (payload, head) in payloads.iter().flat_map(|payload| heads.map(|head| (payload, head))) {
            for is_masked in [false, true] {
                let marked = if head & OPCODE == TEXT { head + 1 } else { head };
                sent.extend(frame(head, payload, is_masked));
                wanted.extend(frame(marked, payload, is_masked));
            }
        }
        for size in [1, 2, 3, 7, 1_000, sent.len()] {
            let (mut stream, mut passed) = (AnyText::new(()), sent.clone());
            passed.chunks_mut(size).for_each(|chunk| stream.mark_text(chunk));
            assert!(passed == wanted, "in pieces of {size}");
        }
    }
}
