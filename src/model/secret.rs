//! Values that must not be seen: `Debug` prints nothing of them, they cannot be serialised, and they are zeroed on drop.

use std::fmt;
use zeroize::Zeroize;

/// A secret text: a password, a key, a token.
///
/// It has neither `Serialize` nor `Display`, so it reaches no log, error text or state file by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over; the caller's copy is moved, not cloned.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Use it only where it leaves for the service it belongs to.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for the empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_nothing_of_it() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "[redacted]");
    }
}
