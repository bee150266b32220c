//! Secret values: `Debug` does not print them, they cannot be serialised, and they are zeroed on drop.

use std::fmt;
use zeroize::Zeroize;

/// A secret text, such as a password, a key or a token.
///
/// It has neither `Serialize` nor `Display`, so it reaches no log, error text or state file by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of the text, without a copy.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Use it only to send it to the service that it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if the text is empty.
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
    fn debug_does_not_print_the_text() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "[redacted]");
    }
}
