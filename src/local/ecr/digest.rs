//! Digests: the names of manifests and layers. Invariant: a digest is always `sha256:` and 64 lower-case hexadecimal digits.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// The only algorithm, with the separator.
const PREFIX: &str = "sha256:";

/// The SHA-256 of a manifest or a layer, written `sha256:<64 lower-case hexadecimal digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

/// The text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits")]
pub(crate) struct DigestError;

impl Digest {
    /// The digest of these bytes.
    pub(crate) fn compute(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest with this SHA-256.
    pub(crate) fn from_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The 64 hexadecimal digits, without the algorithm.
    pub(crate) fn hex(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64).ok_or(DigestError)?.as_bytes();
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (value(pair[0])? << 4) | value(pair[1])?;
        }
        Ok(Self(hash))
    }
}

/// The value of a hexadecimal digit.
fn value(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of no bytes.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_read_and_written_unchanged() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!((digest.to_string().as_str(), digest), (EMPTY, Digest::compute(b"")));
        assert_eq!(digest.hex(), EMPTY[7..]);
    }

    #[test]
    fn nothing_else_is_a_digest() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let wrong = ["", "sha256:", &EMPTY[..70], &format!("{EMPTY}0"), &EMPTY.replace("sha256", "sha512"), &upper];
        for text in wrong.into_iter().chain([&*EMPTY.replace('e', "é"), &EMPTY[7..], "sha256:../../etc/passwd"]) {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }
}
