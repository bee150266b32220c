//! Formats an event as one line, as logfmt or as JSON.
//!
//! Owns the escaping and the limits. Invariant, whatever the fields hold: the line has at most [`MAX_LINE`] bytes and one line
//! break, which is its last byte; it contains no other control character and no character that reorders text; each key occurs
//! once; a JSON line is one valid object; no value holds the number of an error of the operating system. Keys, times and levels are those of the Go agent (spec `logging.md` §3).

use aws_smithy_types::date_time::Format;
use ecs_core::model::text::{is_unsafe, without_numbers};
use std::borrow::Cow;
use std::fmt::{self, Debug, Display, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
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

/// Upper limit of a field's name in bytes.
const MAX_NAME: usize = 128;

/// Upper limit, in bytes, of a number, or of true, false and null: an `f64` has at most 327, and [`Escaped`] needs room for one
/// escape more.
const MAX_BARE: usize = 327 + MAX_ESCAPE;

/// Length of the longest escape in bytes: two UTF-16 units.
const MAX_ESCAPE: usize = 12;

/// Marks the end of a cut field.
const CUT: &str = " [cut]";

/// A text is left out, instead of cut, if the line has less room for its value than this, in bytes.
const MIN_TEXT: usize = 64;

/// Bytes reserved for the end of a line: quotes, braces, marks of cuts, the module.
const RESERVE: usize = 512;

/// Keys that every line has, or that have a meaning for the line as a whole. No field has such a key.
const RESERVED: [&str; 5] = ["level", "time", "msg", "module", "cut"];

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `key=value`, for people and grep. A value has quotes if it needs them, `msg` always has them.
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// A line that is being written.
#[derive(Clone, Debug)]
pub struct Line {
    form: Form,
    text: String,
    level: Level,
    target: String,
    /// End of the timestamp in the text. What follows is compared to find repeated lines.
    start: usize,
    /// Hashes of the keys so far.
    keys: Vec<u64>,
    /// Position of the message in the text, without its quotes; `None`: there is no message yet.
    message: Option<Range<usize>>,
    is_full: bool,
}

impl Line {
    /// Starts a line. The target is cut to 200 bytes.
    pub fn new(form: Form, now: SystemTime, level: Level, target: &str) -> Self {
        let target = ecs_core::model::text::cut(target, 200);
        let mut text = String::with_capacity(256);
        let _ = match form {
            Form::Logfmt => write!(text, "level={} time={}", name_of(level), time(now)),
            Form::Json => write!(text, r#"{{"level":"{}","time":"{}""#, name_of(level), time(now)),
        };
        let start = text.len();
        Self { form, text, level, target, start, keys: Vec::new(), message: None, is_full: false }
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
        match self.message.clone().and_then(|range| self.text.get(range)) {
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
        let is_message = name == "message" && self.message.is_none();
        if !self.begins_field(name, is_message, MIN_TEXT) {
            return;
        }
        self.text.push('"');
        let start = self.text.len();
        self.escaped(format_args!("{value}"), MAX_FIELD);
        self.remove_numbers(start);
        if is_message {
            self.message = Some(start..self.text.len());
        }
        self.end_quotes(start, is_message);
    }

    /// Adds a field that surrounds the event, unless the event has a field of this name itself.
    pub fn surrounding(&mut self, name: &str, value: &str) {
        if !self.keys.contains(&hash(&key(name))) {
            self.text(name, value);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.bare(name, value);
    }

    /// Adds a field whose value needs no quotes in either format: a number, or true, false or null.
    fn bare(&mut self, name: &str, value: impl Display) {
        if self.begins_field(name, false, MAX_BARE) {
            self.escaped(value, MAX_BARE);
        }
    }

    /// Writes everything before a field's value. Returns false if the line has no room for a field whose value needs `value`
    /// bytes: a number that is cut at the end of the line would be another number.
    fn begins_field(&mut self, name: &str, is_message: bool, value: usize) -> bool {
        let around = ",\"\":\"\"".len() + MAX_NAME + CUT.len();
        if self.is_full || self.text.len() + around + value + RESERVE > MAX_LINE {
            self.is_full = true;
            return false;
        }
        let key = if is_message { "msg".to_owned() } else { self.unused(key(name)) };
        self.key(&key);
        true
    }

    fn key(&mut self, key: &str) {
        let _ = match self.form {
            Form::Logfmt => write!(self.text, " {key}="),
            Form::Json => write!(self.text, ",\"{key}\":"),
        };
    }

    /// The key, with a number at its end if the line has this key already.
    fn unused(&mut self, key: String) -> String {
        let mut free = key.clone();
        let mut number = 2;
        while RESERVED.contains(&free.as_str()) || self.keys.contains(&hash(&free)) {
            free = format!("{key}_{number}");
            number += 1;
        }
        self.keys.push(hash(&free));
        free
    }

    /// Ends a text that began with quotes before `start`. In logfmt, quotes that are not needed are removed.
    fn end_quotes(&mut self, start: usize, always: bool) {
        let needs_none = self.form == Form::Logfmt && !always && self.text.get(start..).is_some_and(is_bare);
        if needs_none {
            self.text.remove(start - 1);
        } else {
            self.text.push('"');
        }
    }

    /// Removes the numbers of errors of the operating system from the value that begins at `start`. Errors reach the log through
    /// many libraries and as a part of longer texts, so this is done for every value, and not where an error becomes a text.
    fn remove_numbers(&mut self, start: usize) {
        if let Cow::Owned(value) = without_numbers(self.text.get(start..).unwrap_or_default()) {
            self.text.truncate(start);
            self.text.push_str(&value);
        }
    }

    fn escaped(&mut self, value: impl Display, max: usize) {
        let end = (self.text.len() + max).min(MAX_LINE - RESERVE);
        let mut out = Escaped { text: &mut self.text, end, is_cut: false };
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
        if self.message.is_none() {
            self.key("msg");
            self.text.push_str("\"\"");
        }
        if self.is_full {
            self.key("cut");
            self.text.push_str("true");
        }
        self.key("module");
        self.text.push('"');
        let start = self.text.len();
        let mut out = Escaped { text: &mut self.text, end: MAX_LINE - 8, is_cut: false };
        let _ = out.write_str(self.target.strip_prefix("ecs_agent::").unwrap_or(&self.target));
        self.end_quotes(start, false);
        if self.form == Form::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text
    }

    /// The line without its level, its timestamp and its end.
    pub fn content(&self) -> &str {
        self.text.get(self.start..).unwrap_or_default()
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
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

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.bare(name(field), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.bare(name(field), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(name(field), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(name(field), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(name(field), ecs_core::model::with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(name(field), format_args!("{value:?}"));
    }
}

/// Identifies a place in the program, or the content of a line.
pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The field's name, without the `r#` of a name that is a Rust keyword.
fn name(field: &Field) -> &'static str {
    field.name().strip_prefix("r#").unwrap_or(field.name())
}

/// A field's name as a key that needs no quotes and no escapes.
fn key(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let key: String = name.chars().take(MAX_NAME - 8).map(allowed).collect();
    if key.is_empty() { "_".to_owned() } else { key }
}

/// The text needs no quotes in logfmt.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte))
}

/// The name of a level in a line.
fn name_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The time as RFC 3339 in UTC, in whole seconds, as programs that collect the Go agent's log expect it.
fn time(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = aws_smithy_types::DateTime::from_secs(i64::try_from(since.as_secs()).unwrap_or_default());
    seconds.fmt(Format::DateTime).unwrap_or_default()
}

/// Writes escaped text into a line, and ends the formatting when the line has no more room. The escapes are those of JSON,
/// which parsers of logfmt know as well.
struct Escaped<'a> {
    text: &'a mut String,
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
            match c {
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '"' | '\\' => self.text.extend(['\\', c]),
                c if is_unsafe(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.text, "\\u{unit:04x}")?;
                    }
                }
                c => self.text.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
