//! Formats an event as one line, as text or as JSON.
//!
//! Owns the escaping and the limits. Invariant, whatever the fields hold: the line has at most [`MAX_LINE`] bytes and one line
//! break, which is its last byte; it contains no other control character and no character that reorders text; a JSON line is one
//! valid object.

use aws_smithy_types::date_time::Format;
use ecs_core::model::text::is_unsafe;
use std::fmt::{self, Debug, Display, Write as _};
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;
use tracing::field::{Field, Visit};

/// The target of lines about the log itself.
pub(super) const OWN_TARGET: &str = "ecs_agent::runtime::logging";

/// Upper limit of a line in bytes, including its line break.
pub const MAX_LINE: usize = 16 * 1024;

/// Upper limit of a field's value in bytes, including escapes.
pub const MAX_FIELD: usize = 4096 + 512;

/// Upper limit of a field's name in bytes, including escapes.
const MAX_NAME: usize = 128;

/// Upper limit, in bytes, of a number, or of true, false and null: an `f64` has at most 327, and [`Escaped`] needs room for one
/// escape more.
const MAX_BARE: usize = 327 + MAX_ESCAPE;

/// Length of the longest escape in bytes: two UTF-16 units in JSON.
const MAX_ESCAPE: usize = 12;

/// Marks the end of a cut field, and the place of fields for which the line has no room.
const CUT: &str = " [cut]";

/// A text is left out, instead of cut, if the line has less room for its value than this, in bytes.
const MIN_TEXT: usize = 64;

/// Bytes reserved for the end of a line: quotes, braces, marks of cuts, the target of a JSON line.
const RESERVE: usize = 512;

/// Length of a timestamp in bytes. It is skipped when lines are compared.
const TIME: usize = "2026-11-28T12:00:00.000000Z".len();

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `key=value`, for people and grep.
    Text,
    /// One JSON object per line.
    Json,
}

/// A line that is being written.
#[derive(Debug)]
pub struct Line {
    form: Form,
    text: String,
    level: Level,
    target: String,
    fields: usize,
    /// Position of the message in the text; empty if there is none.
    message: Range<usize>,
    is_full: bool,
}

impl Line {
    /// Starts a line. The target is cut to 200 bytes.
    pub fn new(form: Form, now: SystemTime, level: Level, target: &str) -> Self {
        let target = ecs_core::model::text::cut(target, 200);
        let mut text = String::with_capacity(256);
        let _ = match form {
            Form::Text => write!(text, "{} {level:>5} {target}:", time(now)),
            Form::Json => write!(text, r#"{{"timestamp":"{}","level":"{level}","fields":{{"#, time(now)),
        };
        Self { form, text, level, target, fields: 0, message: 0..0, is_full: false }
    }

    /// The level of the event.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The event's target (its module).
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The message as written, including escapes; the whole content if there is no message.
    pub fn example(&self) -> &str {
        match self.text.get(self.message.clone()) {
            None | Some("") => self.content(),
            Some(message) => message,
        }
    }

    /// Adds the message.
    pub fn message(&mut self, message: impl Display) {
        self.text("message", format_args!("{message}"));
    }

    /// Adds a field, or the message if that is the name. A value that is too long is cut; a field without room is left out.
    pub fn text(&mut self, name: &str, value: impl Display) {
        // A field named like the message would appear twice in the JSON object.
        let name = if name == "message" && !self.message.is_empty() { "message_field" } else { name };
        if !self.begins_field(name, MIN_TEXT) {
            return;
        }
        if self.form == Form::Json {
            self.text.push('"');
        }
        let start = self.text.len();
        self.escaped(format_args!("{value}"), MAX_FIELD);
        if name == "message" {
            self.message = start..self.text.len();
        }
        if self.form == Form::Json {
            self.text.push('"');
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.bare(name, value);
    }

    /// Adds a field whose value needs no quotes in either format: a number, or true or false.
    fn bare(&mut self, name: &str, value: impl Display) {
        if self.begins_field(name, MAX_BARE) {
            self.escaped(value, MAX_BARE);
        }
    }

    /// Writes everything before a field's value. Returns false if the line has no room for a field whose value needs `value`
    /// bytes: a name or a number that is cut at the end of the line would break the JSON.
    fn begins_field(&mut self, name: &str, value: usize) -> bool {
        let around = ",\"\":".len() + MAX_NAME + CUT.len();
        if self.is_full || self.text.len() + around + value + RESERVE > MAX_LINE {
            self.is_full = true;
            return false;
        }
        let is_first = self.fields == 0;
        self.fields += 1;
        match self.form {
            Form::Text => {
                self.text.push(' ');
                if name != "message" {
                    self.escaped(name, MAX_NAME);
                    self.text.push('=');
                }
            }
            Form::Json => {
                self.text.push_str(if is_first { "\"" } else { ",\"" });
                self.escaped(name, MAX_NAME);
                self.text.push_str("\":");
            }
        }
        true
    }

    fn escaped(&mut self, value: impl Display, max: usize) {
        let end = (self.text.len() + max).min(MAX_LINE - RESERVE);
        let mut out = Escaped { text: &mut self.text, form: self.form, end, is_cut: false };
        let written = write!(out, "{value}");
        let is_cut = out.is_cut;
        if is_cut {
            self.text.push_str(CUT);
        } else if written.is_err() {
            self.text.push_str("[cannot be shown]");
        }
    }

    /// The whole line.
    pub fn finish(mut self) -> String {
        match self.form {
            Form::Text => {
                if self.is_full {
                    self.text.push_str(CUT);
                }
            }
            Form::Json => {
                if self.is_full {
                    self.text.push_str(r#","cut":true"#);
                }
                self.text.push_str(r#"},"target":""#);
                let mut out = Escaped { text: &mut self.text, form: Form::Json, end: MAX_LINE - 8, is_cut: false };
                let _ = out.write_str(&self.target);
                self.text.push_str("\"}");
            }
        }
        self.text.push('\n');
        self.text
    }

    /// The line without its timestamp and its end.
    pub fn content(&self) -> &str {
        let start = match self.form {
            Form::Text => TIME,
            Form::Json => r#"{"timestamp":""#.len() + TIME,
        };
        self.text.get(start..).unwrap_or_default()
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() || self.form == Form::Text {
            self.bare(name(field), value);
        } else {
            self.bare(name(field), "null");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(name(field), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(name(field), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(name(field), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // In the text format, quotes show where the value ends.
        if self.form == Form::Text && name(field) != "message" {
            self.text(name(field), format_args!("{value:?}"));
        } else {
            self.text(name(field), value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(name(field), ecs_core::model::with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(name(field), format_args!("{value:?}"));
    }
}

/// The field's name, without the `r#` of a name that is a Rust keyword.
fn name(field: &Field) -> &'static str {
    field.name().strip_prefix("r#").unwrap_or(field.name())
}

/// The time as RFC 3339 in UTC, with six digits for the fraction of a second, so that lines can be sorted as text.
fn time(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = aws_smithy_types::DateTime::from_secs(i64::try_from(since.as_secs()).unwrap_or_default());
    let text = seconds.fmt(Format::DateTime).unwrap_or_default();
    format!("{}.{:06}Z", text.trim_end_matches('Z'), since.subsec_micros())
}

/// Writes escaped text into a line, and ends the formatting when the line has no more room.
struct Escaped<'a> {
    text: &'a mut String,
    form: Form,
    /// Upper limit of the text's length, in bytes.
    end: usize,
    is_cut: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        for c in value.chars() {
            if self.text.len() + MAX_ESCAPE > self.end {
                self.is_cut = true;
                return Err(fmt::Error);
            }
            match (c, self.form) {
                ('\n', _) => self.text.push_str("\\n"),
                ('\r', _) => self.text.push_str("\\r"),
                ('\t', _) => self.text.push_str("\\t"),
                ('"' | '\\', Form::Json) => self.text.extend(['\\', c]),
                (c, Form::Json) if is_unsafe(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.text, "\\u{unit:04x}")?;
                    }
                }
                (c, Form::Text) if is_unsafe(c) => write!(self.text, "\\u{{{:x}}}", u32::from(c))?,
                (c, _) => self.text.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Texts that would break a line, a terminal or JSON.
    const HOSTILE: [&str; 8] = [
        "a\n2026-01-01T00:00:00.000000Z ERROR ecs_agent: forged",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "\"},\"level\":\"ERROR\\",
        "\u{202e}desrever\u{2066}\u{61c}",
        "\r\u{2028}\u{2029}\u{85}\u{9b}31m",
        "\0\u{8}\u{7f}",
        "a=b c=\"d",
        "\u{1f433} Grüße",
    ];

    fn new(form: Form) -> Line {
        Line::new(form, UNIX_EPOCH + Duration::from_micros(1_764_331_200_000_042), Level::WARN, "ecs_agent::docker")
    }

    fn check(line: &str, form: Form) {
        assert!(line.len() <= MAX_LINE, "{}", line.len());
        let body = line.strip_suffix('\n').expect("a line ends with a line break");
        assert!(!body.contains(is_unsafe), "{body:?}");
        if form == Form::Json {
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&value["level"], &value["target"]), (&"WARN".into(), &"ecs_agent::docker".into()));
        }
    }

    #[test]
    fn both_formats_are_as_documented() {
        let fill = |form| {
            let mut line = new(form);
            line.message("pulling");
            line.text("image", "busybox");
            line.number("so_far", 7);
            line.finish()
        };
        let text = "2025-11-28T12:00:00.000042Z  WARN ecs_agent::docker: pulling image=busybox so_far=7\n";
        assert_eq!(fill(Form::Text), text);
        let json = concat!(
            r#"{"timestamp":"2025-11-28T12:00:00.000042Z","level":"WARN","fields":{"message":"pulling","#,
            r#""image":"busybox","so_far":7},"target":"ecs_agent::docker"}"#,
            "\n"
        );
        assert_eq!(fill(Form::Json), json);
    }

    #[test]
    fn hostile_texts_stay_in_their_line_and_are_kept() {
        for form in [Form::Text, Form::Json] {
            for text in HOSTILE {
                let mut line = new(form);
                line.message(text);
                line.text(text, text);
                line.text("plain", text);
                let line = line.finish();
                check(&line, form);
                if form == Form::Json {
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                    assert_eq!(value["fields"]["message"], text, "nothing is lost");
                    assert_eq!(value["fields"]["plain"], text);
                }
            }
        }
    }

    #[test]
    fn a_field_named_message_does_not_replace_the_message() {
        let mut line = new(Form::Json);
        line.message("payload");
        line.text("message", "id-1");
        let value: serde_json::Value = serde_json::from_str(&line.finish()).unwrap();
        assert_eq!(value["fields"], serde_json::json!({"message": "payload", "message_field": "id-1"}));
    }

    #[test]
    fn a_long_field_is_cut_and_the_next_one_is_written() {
        for form in [Form::Text, Form::Json] {
            for unit in ["x", "ü", "\u{1f433}", "\n", "\u{1b}", "\"", "\u{202e}"] {
                let mut line = new(form);
                line.message(unit.repeat(3 << 20));
                line.text("after", "still here");
                let line = line.finish();
                check(&line, form);
                assert!(
                    line.len() < MAX_FIELD + RESERVE && line.contains(CUT) && line.contains("still here"),
                    "{unit:?}"
                );
            }
        }
    }

    #[test]
    fn fields_beyond_the_limit_of_a_line_are_left_out() {
        for form in [Form::Text, Form::Json] {
            for unit in ["\u{1b}", "x"] {
                for fill in MAX_FIELD - 40..MAX_FIELD {
                    let mut line = new(form);
                    line.message("m");
                    for n in 0..30 {
                        line.text(&format!("{}{n}", unit.repeat(300)), unit.repeat(if n < 3 { fill } else { 40 }));
                    }
                    check(&line.finish(), form);
                }
            }
        }
    }

    #[test]
    fn numbers_are_never_cut() {
        let smallest = -f64::MIN_POSITIVE;
        for form in [Form::Text, Form::Json] {
            for unit in ["\u{1b}", "x"] {
                // Around the end of the line, which is about 2000 bytes behind the third text.
                for fill in (1200..2400).step_by(7) {
                    let mut line = new(form);
                    for n in 0..4 {
                        line.text(&format!("text{n}"), unit.repeat(if n < 3 { MAX_FIELD } else { fill }));
                    }
                    line.number(&unit.repeat(300), u64::MAX);
                    line.bare("is_last", true);
                    line.bare("smallest", smallest);
                    let line = line.finish();
                    check(&line, form);
                    if form == Form::Json {
                        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                        let fields = value["fields"].as_object().unwrap();
                        let is_left_out = value["fields"]["cut"] == true;
                        assert!(is_left_out || fields["smallest"] == smallest, "{line}");
                        assert!(fields.get("is_last").is_none_or(|whole| *whole == true), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_that_cannot_be_shown_affects_no_other() {
        struct Broken;
        impl Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        for form in [Form::Text, Form::Json] {
            let mut line = new(form);
            line.text("broken", Broken);
            line.text("after", "still here");
            let line = line.finish();
            check(&line, form);
            assert!(line.contains("half[cannot be shown]") && line.contains("still here"), "{line}");
        }
    }
}
