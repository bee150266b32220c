//! Reads an answer of the daemon line by line, such as the progress of a pull.
//!
//! Owns the splitting and the bound of a line. Invariant: whatever the daemon or a registry behind it sends, only the first
//! [`MAX_LINE_BYTES`] of a line are kept.

use super::error::DockerError;
use bytes::Bytes;
use reqwest::Response;

/// The longest line that is kept whole. A progress line has some hundred bytes, but a registry may send an error text of any
/// length.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// The lines of an answer. A call of [`Lines::next`] can be cancelled without losing data.
#[derive(Debug)]
pub(crate) struct Lines {
    response: Response,
    /// Bytes that were received and are not yet split into lines.
    unread: Bytes,
    /// The beginning of the line that is not complete yet.
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, unread: Bytes::new(), line: Vec::new() }
    }

    /// The next non-empty line, without its line end. `None`: the answer has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, DockerError> {
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
