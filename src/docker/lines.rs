//! An answer of the daemon that comes line by line, as the progress of a pull does.
//!
//! Owns the splitting and the bound of a line. Invariant: whatever the daemon or a registry behind it sends, at most
//! [`MAX_LINE_BYTES`] of a line are kept; of a longer one, the beginning.

use super::error::DockerError;
use bytes::Bytes;
use reqwest::Response;

/// A progress line has some hundred bytes. The text of an error may be as long as a registry likes.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

/// The lines of an answer. Giving up a call of [`Lines::next`] loses nothing.
#[derive(Debug)]
pub(super) struct Lines {
    response: Response,
    /// Came, and belongs to no line yet.
    unread: Bytes,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(response: Response) -> Self {
        Self { response, unread: Bytes::new(), line: Vec::new() }
    }

    /// The next line that is not empty, without its end. `None`: that was all.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, DockerError> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let part = self.unread.split_to(end + 1);
                self.keep(&part[..end]);
                let line = std::mem::take(&mut self.line);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            }
            let rest = std::mem::take(&mut self.unread);
            self.keep(&rest);
            match self.response.chunk().await? {
                Some(chunk) => self.unread = chunk,
                None => {
                    let line = std::mem::take(&mut self.line);
                    return Ok((!line.trim_ascii().is_empty()).then_some(line));
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }
}
