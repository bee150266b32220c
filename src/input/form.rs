//! The type of a JSON value, in the words of a message.

/// The types of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Boolean,
    /// `null`
    Null,
}

impl Form {
    /// The type of a text that is valid JSON; `None`: it is not valid.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
        Some(match text.trim_start().bytes().next()? {
            b'{' => Self::Object,
            b'[' => Self::Array,
            b'"' => Self::String,
            b't' | b'f' => Self::Boolean,
            b'n' => Self::Null,
            _ => Self::Number,
        })
    }

    /// The words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "a JSON object",
            Self::Array => "a JSON array",
            Self::String => "a JSON string",
            Self::Number => "a JSON number",
            Self::Boolean => "a JSON boolean",
            Self::Null => "null",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_recognized() {
        for (text, form) in [
            ("{}", Some(Form::Object)),
            (" [1]", Some(Form::Array)),
            ("\"x\"", Some(Form::String)),
            ("-1.5", Some(Form::Number)),
            ("false", Some(Form::Boolean)),
            ("null", Some(Form::Null)),
            ("nul", None),
            ("[", None),
            ("", None),
            ("{} {}", None),
        ] {
            assert_eq!(Form::from_json(text), form, "{text}");
        }
    }
}
