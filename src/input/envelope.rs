//! The envelope of a message of ACS or TCS: `{"type": ..., "message": {...}}`, or the bare form `{"ServerException": "text"}` (spec
//! `acs.md` §3).
//!
//! Pure. The body is not decoded. Invariant: an error is one bounded line, and shows no more of the message than an unknown type.

use super::json::{Raw, TextError};
use ecs_core::model::text::cut;

/// Maximum number of bytes of an unknown type that are shown in the log.
const MAX_SHOWN: usize = 64;
/// Maximum number of bytes of a service's text in the log.
const MAX_TEXT: usize = 256;

/// The message types of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    /// All types.
    pub all: &'static [&'static str],
    /// The types that consist of a text only, and may come in the bare form.
    pub text_only: &'static [&'static str],
}

impl Types {
    /// The type and the body of one message. The body is an object, or a text if the message has the bare form.
    ///
    /// # Errors
    /// `text` is not a message of the protocol. The error says why.
    pub fn envelope(self, text: &str) -> Result<(&'static str, Raw<'_>), String> {
        let message = Raw::new(text);
        let members = message.members().ok_or_else(|| no_object(message))?;
        let (mut first, mut count) = (None, 0_usize);
        for member in members {
            let (name, value) = member.map_err(not_json)?;
            if value.kind() != "null" {
                count = count.saturating_add(1);
                first.get_or_insert((name, value));
            }
        }
        let kind = message.member("type").map(|kind| kind.decode::<String>().map_err(|_| "its type is not a string"));
        match (kind.transpose()?.filter(|kind| !kind.is_empty()), first) {
            (Some(kind), _) => {
                let known = self.all.iter().find(|known| **known == kind).ok_or_else(|| unknown(&kind))?;
                let body = message.member("message").unwrap_or(Raw::new("{}"));
                if body.kind() == "object" {
                    Ok((known, body))
                } else {
                    Err(format!("the body of {known} is not an object"))
                }
            }
            // The bare form.
            (None, Some((name, text))) if count == 1 && text.kind() == "string" => {
                let known = self.text_only.iter().find(|known| **known == name).ok_or_else(|| unknown(&name))?;
                Ok((known, text))
            }
            _ => Err("it has no type".to_owned()),
        }
    }
}

/// The type of a message without effect and the beginning of its text, for the log. `service` is the name of the sender. The body
/// of a message in the bare form is the text itself.
pub fn note(service: &str, kind: &str, body: Raw<'_>) -> String {
    let text = if body.kind() == "string" { Some(body) } else { body.member("message") };
    match text.and_then(|text| text.decode::<String>().ok()) {
        Some(text) => format!("{kind} from {service}: \"{}\"", cut(&text, MAX_TEXT)),
        None => format!("{kind} from {service}"),
    }
}

fn no_object(message: Raw<'_>) -> String {
    match message.parse() {
        Err(error @ TextError::Syntax(..)) => not_json(error),
        _ => "it is not a JSON object".to_owned(),
    }
}

/// The error names the position, never the content.
fn not_json(error: TextError) -> String {
    format!("it is not JSON: {error}")
}

fn unknown(kind: &str) -> String {
    format!("its type \"{}\" is unknown", cut(kind, MAX_SHOWN))
}
