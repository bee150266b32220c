//! Sources of values: the process environment, and `/etc/ecs/ecs.config`, read as `docker run --env-file` reads it. JSON
//! documents are in [`super::document`].
//!
//! This module owns the file's syntax, not the meaning of any variable. Invariant: a value is used verbatim (no quotes are
//! removed, nothing is trimmed or expanded), so JSON survives; a bad line does not affect the others.

use super::problem::{NO_START, Problem, shape};
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
}

/// Maximum size of a file in bytes; a larger file is not a configuration and is refused.
const MAX_FILE: u64 = 64 << 20;
const EACH_NAME_ONCE: &str = "each name once";

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

    /// The agent's variables that could not be read.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let ours = self.not_text.iter().filter(|key| super::keys::find(key).is_some());
        ours.map(|key| Problem {
            variable: key.clone(),
            place: "environment".to_owned(),
            shape: "bytes that are not UTF-8".to_owned(),
            expected: "UTF-8 text".to_owned(),
            instead: "it is ignored".to_owned(),
            fatal: false,
        })
        .collect()
    }
}

impl Source for Environment {
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }

    fn place(&self, _key: &str) -> String {
        "environment".to_owned()
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
}

impl EnvFile {
    /// Reads a file. A missing file is a problem only if the operator `named` it. An existing file that cannot be read is always
    /// a problem: without its settings, the agent would join another cluster than the operator wants. `docker run` refuses both.
    pub fn open(path: &Path, named: bool, environment: &Environment) -> (Self, Vec<Problem>) {
        let problem = |shape: &str| Problem {
            variable: String::new(),
            place: path.display().to_string(),
            shape: shape.to_owned(),
            expected: "a readable file of NAME=value lines".to_owned(),
            instead: NO_START.to_owned(),
            fatal: true,
        };
        match read(path) {
            Ok(bytes) => Self::parse(&path.display().to_string(), &bytes, environment),
            Err(Unread::Absent) if !named => (Self::default(), Vec::new()),
            Err(Unread::Absent) => (Self::default(), vec![problem("not there")]),
            Err(Unread::TooLong) => (Self::default(), vec![problem("more than 64 MiB")]),
            Err(Unread::NotOpened(kind) | Unread::NotRead(kind)) => {
                (Self::default(), vec![problem(&format!("cannot be read: {kind}"))])
            }
        }
    }

    /// The file as ecs-init reads it: white space at the end of a line is not part of the value.
    pub(super) fn trimmed(mut self) -> Self {
        for (_, value) in self.values.values_mut() {
            value.truncate(value.trim_end().len());
        }
        self
    }

    /// Reads the text of a file; `path` is its name in messages.
    pub fn parse(path: &str, bytes: &[u8], environment: &Environment) -> (Self, Vec<Problem>) {
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new() };
        let mut problems = Vec::new();
        let Ok(bytes) = without_bom(bytes) else {
            // No line would be read as intended, so the agent would join another cluster than the operator wants.
            let problem = Problem {
                variable: String::new(),
                place: path.to_owned(),
                shape: "UTF-16 or UTF-32 text".to_owned(),
                expected: "UTF-8 text: save the file as UTF-8".to_owned(),
                instead: NO_START.to_owned(),
                fatal: true,
            };
            return (file, vec![problem]);
        };
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            // One carriage return belongs to the line end, as in Go's line scanner.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Err((shape, expected)) = file.take_line(line, number, environment) {
                let instead = if expected == EACH_NAME_ONCE { "the last one counts" } else { "the line is ignored" };
                problems.push(Problem {
                    variable: String::new(),
                    place: format!("{path}:{number}"),
                    shape,
                    expected: expected.to_owned(),
                    instead: instead.to_owned(),
                    fatal: false,
                });
            }
        }
        (file, problems)
    }

    fn take_line(
        &mut self,
        line: &[u8],
        number: usize,
        environment: &Environment,
    ) -> Result<(), (String, &'static str)> {
        let Ok(line) = str::from_utf8(line) else {
            return Err((format!("{} bytes that are not UTF-8", line.len()), "UTF-8 text"));
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
            return Err(("a line that begins with =".to_owned(), "NAME=value"));
        }
        if key.starts_with("export ") {
            return Err((
                "a line that begins with export".to_owned(),
                "NAME=value without export: this is not a shell script",
            ));
        }
        if key.contains([' ', '\t']) {
            return Err((
                format!("{} with white space in the name", shape(line)),
                "NAME=value without spaces around =",
            ));
        }
        if let Some(value) = value {
            let before = self.values.insert(key.to_owned(), (number, value));
            if let Some((first, _)) = before {
                // The rest of a broken value may look like a name, so only a known name is shown.
                let name = super::keys::find(key).map_or("a name", |key| key.name);
                return Err((format!("{name} again, first in line {first}"), EACH_NAME_ONCE));
            }
        }
        Ok(())
    }
}
