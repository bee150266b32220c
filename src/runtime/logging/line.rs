//! One event as one line, in either form.
//!
//! Owns the escaping and the bounds. Invariant, whatever the fields hold: the line has at most [`MAX_LINE`] bytes and one line break, which
//! is its last byte; it holds no other control character and no mark that reorders text; in the JSON form it is one valid object.

use crate::model::text::is_unsafe;
use aws_smithy_types::date_time::Format;
use std::fmt::{self, Debug, Display, Write as _};
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;
use tracing::field::{Field, Visit};

/// The target of lines about the log itself.
pub(super) const OWN_TARGET: &str = "ecs_agent::runtime::logging";

/// The most bytes of a line, its line break included.
pub const MAX_LINE: usize = 16 * 1024;

/// The most bytes of one field, escapes included.
pub const MAX_FIELD: usize = 4096 + 512;

/// The most bytes of a field's name, escapes included.
const MAX_NAME: usize = 128;

/// The most bytes of a number, or of true, false and null: of an `f64`, 327 are written. And what [`Escaped`] wants to have free.
const MAX_BARE: usize = 327 + MAX_ESCAPE;

/// The longest escape: two units of UTF-16 in JSON.
const MAX_ESCAPE: usize = 12;

/// Stands at the end of a field that was cut, and for fields that the line has no room for.
const CUT: &str = " [cut]";

/// With less room than that for its value, a text is left out and not cut.
const MIN_TEXT: usize = 64;

/// Room for what closes a line: quotes, braces, the marks of cuts, the target of the JSON form.
const RESERVE: usize = 512;

/// The bytes of a time, which differ from line to line even if nothing else does.
const TIME: usize = "2026-11-28T12:00:00.000000Z".len();

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `key=value` for people and grep.
    Text,
    /// One JSON object a line.
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
    /// Where the message stands in the text.
    message: Range<usize>,
    is_full: bool,
}

impl Line {
    /// The beginning of a line. Of the target, 200 bytes are kept.
    pub fn new(form: Form, now: SystemTime, level: Level, target: &str) -> Self {
        let target = crate::model::text::cut(target, 200);
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

    /// Where in the program the event comes from.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The message as it is written, escapes included; all that there is if there is no message.
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

    /// Adds a field, or the message if that is its name. What is too long is cut; what has no room is left out.
    pub fn text(&mut self, name: &str, value: impl Display) {
        // There is one message; a field of that name would stand twice in the object.
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

    /// Adds a field whose value needs no quotes in either form: a number, or true or false.
    fn bare(&mut self, name: &str, value: impl Display) {
        if self.begins_field(name, MAX_BARE) {
            self.escaped(value, MAX_BARE);
        }
    }

    /// Writes what stands before a value; false if there is no room for another field, whose value needs that many bytes. A name or a
    /// number that is cut at the end of the line would not be JSON any more.
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

    /// What the line says without the time and its closing.
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
        // In text, a value in quotes ends where its quotes end.
        if self.form == Form::Text && name(field) != "message" {
            self.text(name(field), format_args!("{value:?}"));
        } else {
            self.text(name(field), value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(name(field), crate::model::with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(name(field), format_args!("{value:?}"));
    }
}

/// A field may be named like a word of Rust.
fn name(field: &Field) -> &'static str {
    field.name().strip_prefix("r#").unwrap_or(field.name())
}

/// RFC 3339 in UTC with six digits of a second, so that lines stay in order as texts.
fn time(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = aws_smithy_types::DateTime::from_secs(i64::try_from(since.as_secs()).unwrap_or_default());
    let text = seconds.fmt(Format::DateTime).unwrap_or_default();
    format!("{}.{:06}Z", text.trim_end_matches('Z'), since.subsec_micros())
}

/// Writes into a line what neither breaks nor reorders it, and stops at its end. Formatting ends there, too.
struct Escaped<'a> {
    text: &'a mut String,
    form: Form,
    /// The text gets no longer than that.
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
    fn both_forms_look_as_documented() {
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
    fn a_field_that_is_called_message_does_not_stand_for_it() {
        let mut line = new(Form::Json);
        line.message("payload");
        line.text("message", "id-1");
        let value: serde_json::Value = serde_json::from_str(&line.finish()).unwrap();
        assert_eq!(value["fields"], serde_json::json!({"message": "payload", "message_field": "id-1"}));
    }

    #[test]
    fn a_long_field_is_cut_and_the_next_is_there() {
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
    fn more_fields_than_a_line_holds_are_left_out() {
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
    fn numbers_after_long_texts_are_whole_or_left_out() {
        let longest = -f64::MIN_POSITIVE;
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
                    line.bare("longest", longest);
                    let line = line.finish();
                    check(&line, form);
                    if form == Form::Json {
                        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                        let fields = value["fields"].as_object().unwrap();
                        let is_left_out = value["fields"]["cut"] == true;
                        assert!(is_left_out || fields["longest"] == longest, "{line}");
                        assert!(fields.get("is_last").is_none_or(|whole| *whole == true), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_that_cannot_be_shown_costs_only_itself() {
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
