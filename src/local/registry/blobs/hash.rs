//! The SHA-256 of bytes that come in pieces.

use crate::ecr::Digest;
use ring::digest::{Context, SHA256};

/// A hash in progress.
#[derive(Clone)]
pub(super) struct Hash(Context);

impl Hash {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub(super) fn finish(self) -> Digest {
        let mut hash = [0; 32];
        // SHA-256 has as many bytes.
        hash.copy_from_slice(self.0.finish().as_ref());
        Digest::from_hash(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_digest_of_the_whole() {
        let mut hash = Hash::new();
        hash.update(b"a");
        hash.update(b"bc");
        let wanted = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.finish().to_string(), wanted);
    }
}
