//! Sources of values: the process environment, and `/etc/ecs/ecs.config`, read as `docker run --env-file` reads it. JSON
//! documents are in [`super::document`].
//!
//! This module owns the file's syntax, not the meaning of any variable. Invariant: a value is used verbatim (no quotes are
//! removed, nothing is trimmed or expanded), so JSON survives; a bad line does not affect the others.

use super::continued::{Continued, further_lines};
use super::keys::Stage;
use super::line_names::{names_variables, variable_in, variable_of};
use super::meant::meant_line;
use super::problem::{NO_START, Problem, Severity};
use super::shown::{hidden, white_space_around};
use super::suggest::did_you_mean;
use crate::input::byte_order_mark::without_bom;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// The kind of source of a value. Some rules of the Go agent apply to one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The environment, or a file of `NAME=value` lines, which ecs-init and Docker put into the environment.
    Environment,
    /// The JSON file or user data.
    Document,
    /// A default.
    Defaults,
}

/// One source of values.
pub trait Source {
    /// The value as the operator wrote it; `None`: the source does not have the key.
    fn get(&self, key: &str) -> Option<String>;

    /// The place of that value, for messages. Without a value, the source as a whole.
    fn place(&self, key: &str) -> String;

    /// Every key of the source, to find misspelt ones.
    fn keys(&self) -> Vec<String>;

    /// The settings whose JSON goes on in later lines.
    fn continued(&self) -> &[Continued] {
        &[]
    }

    /// The kind of this source.
    fn class(&self) -> Class {
        Class::Environment
    }
}

/// The process environment, read once.
#[derive(Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    /// Names of variables whose values are not UTF-8.
    not_text: Vec<String>,
}

/// A parsed env-file.
#[derive(Default)]
pub struct EnvFile {
    /// The file's path, for messages.
    path: String,
    /// The line and the value, by the name of the variable.
    values: BTreeMap<String, (usize, String)>,
    /// The settings whose JSON goes on in later lines.
    continued: Vec<Continued>,
    state: FileState,
}

/// What became of a file of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FileState {
    /// Its lines were read.
    #[default]
    Read,
    /// It is not there, and nobody named it.
    Absent,
    /// It cannot be used, which is fatal.
    Unusable,
}

/// The place of a variable of the process environment.
pub(super) const ENVIRONMENT: &str = "environment";

/// The path of standard input, and its name in messages.
pub const STANDARD_INPUT: (&str, &str) = ("/dev/stdin", "standard input");

/// Maximum size of a file in bytes; a larger file is not a configuration and is refused.
const MAX_FILE: u64 = 64 << 20;

/// The reason why a file was not read.
pub(super) enum Unread {
    /// The path does not exist.
    Absent,
    /// The path exists, possibly as a dangling link, but cannot be opened.
    NotOpened(ErrorKind),
    /// The path was opened but cannot be read, such as a directory.
    NotRead(ErrorKind),
    /// The file is too long to be a configuration.
    TooLong,
}

/// Why a file cannot be read, in words.
pub(super) fn why_unread(kind: ErrorKind) -> String {
    match kind {
        // What is not there at all is [`Unread::Absent`].
        ErrorKind::NotFound => "it is a link to a file that is not there".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        kind => kind.to_string(),
    }
}

/// Reads a file, which may hold secrets.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        // A dangling link was meant to be a file, so it does not count as absent.
        ErrorKind::NotFound if path.symlink_metadata().is_err() => Unread::Absent,
        kind => Unread::NotOpened(kind),
    })?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| Unread::NotRead(error.kind()))?;
    if bytes.len() as u64 > MAX_FILE { Err(Unread::TooLong) } else { Ok(bytes) }
}

// Values may be secrets, so only names are shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl std::fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

// Values are wiped after loading for the same reason.
impl Drop for Environment {
    fn drop(&mut self) {
        self.values.values_mut().for_each(Zeroize::zeroize);
    }
}

impl Drop for EnvFile {
    fn drop(&mut self) {
        self.values.values_mut().for_each(|(_, value)| value.zeroize());
    }
}

impl Environment {
    /// The environment of this process. No other code in the crate reads it.
    pub fn from_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// An environment of these variables. A variable whose value is not UTF-8 is left out and becomes a problem.
    pub fn new<K: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut environment = Self::default();
        for (key, value) in variables {
            let Ok(key) = key.into().into_string() else { continue };
            match value.into().into_string() {
                Ok(value) => _ = environment.values.insert(key, value),
                Err(_) => environment.not_text.push(key),
            }
        }
        environment
    }

    /// The same environment without one of its variables.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.values.remove(name);
        self
    }

    /// The environment without the variables of this agent, except for those that name a file.
    pub(super) fn without_settings(mut self) -> Self {
        let names_file = |name: &String| name == "ECS_AGENT_CONFIG_FILE_PATH" || name == "ECS_CONFIG_FILE";
        let is_kept = |name: &String| names_file(name) || super::keys::find(name).is_none();
        self.values.retain(|name, _| is_kept(name));
        self.not_text.retain(is_kept);
        self
    }

    /// The agent's variables that could not be read.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let ours = self.not_text.iter().filter(|key| super::keys::find(key).is_some());
        ours.map(|key| Problem {
            variable: key.clone(),
            place: ENVIRONMENT.to_owned(),
            shape: NOT_UTF8.to_owned(),
            expected: "UTF-8 text".to_owned(),
            instead: "it is ignored".to_owned(),
            severity: Severity::Changes,
        })
        .collect()
    }
}

impl Source for Environment {
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }

    fn place(&self, _key: &str) -> String {
        ENVIRONMENT.to_owned()
    }

    fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }
}

impl Source for EnvFile {
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|(_, value)| value.clone())
    }

    fn place(&self, key: &str) -> String {
        self.values.get(key).map_or_else(|| self.path.clone(), |(line, _)| format!("{}:{line}", self.path))
    }

    fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    fn continued(&self) -> &[Continued] {
        &self.continued
    }
}

impl EnvFile {
    /// A file without a value.
    fn empty(path: &str, state: FileState) -> Self {
        Self { path: path.to_owned(), values: BTreeMap::new(), continued: Vec::new(), state }
    }

    /// Reads a file. A missing file is a problem only if the operator `named` it. An existing file that cannot be read is always
    /// a problem: without its settings, the agent would join another cluster than the operator wants. `docker run` refuses both.
    pub fn open(path: &Path, named: bool, environment: &Environment) -> (Self, Vec<Problem>) {
        let (input, name) = STANDARD_INPUT;
        let place = if path == Path::new(input) { name.to_owned() } else { path.display().to_string() };
        let (shape, expected) = match read(path) {
            Ok(bytes) => return Self::parse(&place, &bytes, environment),
            Err(Unread::Absent) if !named => {
                return (Self::empty(&place, FileState::Absent), Vec::new());
            }
            Err(Unread::Absent) => ("this file was named and is not there".to_owned(), READABLE),
            Err(Unread::TooLong) => ("more than 64 MiB".to_owned(), READABLE),
            Err(Unread::NotOpened(kind) | Unread::NotRead(kind)) => {
                let is_denied = kind == ErrorKind::PermissionDenied;
                let readable = if is_denied { "a file that this user may read: run this as root" } else { READABLE };
                (format!("cannot be read: {}", why_unread(kind)), readable)
            }
        };
        Self::unusable(place, shape, expected)
    }

    /// A file that cannot be used, and the problem.
    fn unusable(place: String, shape: String, expected: &str) -> (Self, Vec<Problem>) {
        let problem = Problem {
            variable: String::new(),
            place,
            shape,
            expected: expected.to_owned(),
            instead: NO_START.to_owned(),
            severity: Severity::Fatal,
        };
        (Self::empty(&problem.place, FileState::Unusable), vec![problem])
    }

    /// What became of the file.
    pub(super) fn state(&self) -> FileState {
        self.state
    }

    /// The file's path, for messages.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The file as ecs-init reads it: white space at the end of a line is not part of the value. Each value of this agent that had
    /// some gets a note, except where white space is removed, and noted, in any case.
    pub(super) fn trimmed(mut self) -> (Self, Vec<Problem>) {
        let mut notes = Vec::new();
        for (name, (line, value)) in &mut self.values {
            let key = super::keys::find(name);
            let length = value.trim_end().len();
            if length == value.len() || key.is_some_and(|key| key.kind.trims()) {
                continue;
            }
            value.truncate(length);
            let is_used = |key: &&super::keys::Key| !matches!(key.stage, Stage::Later | Stage::Foreign);
            notes.extend(key.filter(is_used).filter(|_| length > 0).map(|key| Problem {
                variable: name.clone(),
                place: format!("{}:{line}", self.path),
                shape: white_space_around(key.kind, value),
                expected: "none".to_owned(),
                instead: "it is removed".to_owned(),
                severity: Severity::Notice,
            }));
        }
        (self, notes)
    }

    /// Reads the text of a file; `path` is its name in messages.
    pub fn parse(path: &str, bytes: &[u8], environment: &Environment) -> (Self, Vec<Problem>) {
        let bytes = match lines(bytes) {
            Ok(bytes) => bytes,
            Err((shape, expected)) => return Self::unusable(path.to_owned(), shape, expected),
        };
        let mut file = Self::empty(path, FileState::Read);
        let mut problems = Vec::new();
        // One carriage return belongs to the line end, as in Go's line scanner.
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let lines: Vec<&[u8]> = lines.collect();
        let mut after_json = 0;
        for (line, number) in lines.iter().copied().zip(1..) {
            if number <= after_json {
                continue;
            }
            let further = further_lines(&lines[number - 1..]);
            if further > 0 {
                after_json = number + further;
                let (place, variable) = (format!("{path}:{number}"), variable_in(line));
                file.continued.push(Continued { place, variable, last: after_json });
            }
            if let Err(BadLine { shape, expected, instead, severity }) = file.take_line(line, number, environment) {
                let variable = variable_in(line).to_owned();
                let place = format!("{path}:{number}");
                problems.push(Problem { variable, place, shape, expected, instead: instead.to_owned(), severity });
            }
        }
        (file, problems)
    }

    fn take_line(&mut self, line: &[u8], number: usize, environment: &Environment) -> Result<(), BadLine> {
        let Ok(line) = str::from_utf8(line) else {
            return Err(BadLine::ignored(format!("{} {NOT_UTF8}", line.len()), "UTF-8 text"));
        };
        // Only the left side is trimmed: white space at the end belongs to the value.
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            // A name without a value has its value in the environment.
            None => (line, environment.get(line)),
        };
        if key.is_empty() {
            return Err(BadLine::ignored("a line that begins with =", "NAME=value"));
        }
        let meant = || meant_line(line).map_or_else(String::new, did_you_mean);
        if key.starts_with("export ") {
            let expected = format!("NAME=value without export, since this is not a shell script{}", meant());
            return Err(BadLine::ignored("a line that begins with export", expected));
        }
        if names_variables(key) && !variable_in(line.as_bytes()).is_empty() {
            let expected = format!("NAME=value without {key}= before it{}", meant());
            return Err(BadLine::ignored("a setting as a unit of systemd or a command has it", expected));
        }
        let after_name = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !line.contains('=') && after_name.starts_with([' ', '\t', ':']) && !variable_of(line.as_bytes()).is_empty() {
            let expected = format!("NAME=value{}", meant());
            return Err(BadLine::ignored("a name and a value without = between them", expected));
        }
        if key.contains([' ', '\t']) {
            let shape = format!("{} with white space in the name", hidden(line));
            return Err(BadLine::ignored(shape, format!("NAME=value without spaces around ={}", meant())));
        }
        let Some(value) = value else {
            let shape = "a name without =, and the environment has no variable of this name";
            return Err(BadLine::ignored(shape, "NAME=value, or the name of a variable of the environment"));
        };
        let is_same = self.values.get(key).is_some_and(|(_, before)| *before == value);
        let Some((first, mut before)) = self.values.insert(key.to_owned(), (number, value)) else { return Ok(()) };
        before.zeroize();
        // The rest of a broken value may look like a name, so only a known name is shown.
        let what = if super::keys::find(key).is_some() { "set" } else { "a name" };
        Err(BadLine {
            shape: format!("{what} again, first in line {first}"),
            expected: "each name once".to_owned(),
            instead: if is_same { "the value is the same" } else { "the last one counts" },
            severity: if is_same { Severity::Notice } else { Severity::Changes },
        })
    }
}

/// The end of the description of such bytes.
pub(super) const NOT_UTF8: &str = "bytes that are not UTF-8";

/// A line that is not what it should be.
struct BadLine {
    shape: String,
    expected: String,
    instead: &'static str,
    severity: Severity,
}

impl BadLine {
    fn ignored(shape: impl Into<String>, expected: impl Into<String>) -> Self {
        let (shape, expected) = (shape.into(), expected.into());
        Self { shape, expected, instead: LINE_IGNORED, severity: Severity::Changes }
    }
}

/// The consequence of a line that cannot be read.
pub(super) const LINE_IGNORED: &str = "the line is ignored";

/// The expected form of a file.
const READABLE: &str = "a readable file of NAME=value lines";

/// The bytes of a file of lines. The error is its shape and what was expected instead: no line of such a file would be read as
/// intended, so the agent would join another cluster than the operator wants.
fn lines(bytes: &[u8]) -> Result<&[u8], (String, &'static str)> {
    let Ok(bytes) = without_bom(bytes) else {
        return Err(("UTF-16 or UTF-32 text".to_owned(), "UTF-8 text: save the file as UTF-8"));
    };
    // Without a `=` it is an ignored line, such as zeros at the end of a file after a crash.
    let has_nul = |line: &[u8]| line.contains(&0) && line.contains(&b'=') && !line.trim_ascii().starts_with(b"#");
    if let Some(line) = bytes.split(|byte| *byte == b'\n').position(has_nul) {
        return Err((format!("a NUL byte in line {}", line + 1), "UTF-8 text: save the file as UTF-8"));
    }
    let lines = || bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines().find(|line| !line.is_empty() && !line.starts_with(b"#"));
    let has_bracket = first.is_some_and(|line| line.starts_with(b"{") || line.starts_with(b"["));
    // A heading such as `[ecs]` is an ignored line.
    if has_bracket && !lines().any(|line| line.starts_with(b"ECS_")) {
        let expected = "NAME=value lines; JSON is read from the file that ECS_AGENT_CONFIG_FILE_PATH names";
        return Err(("a JSON document".to_owned(), expected));
    }
    Ok(bytes)
}
