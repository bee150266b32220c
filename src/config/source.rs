//! Where values come from: the process environment, and `/etc/ecs/ecs.config` read as `docker run --env-file` reads it. JSON documents
//! are [`super::document`]'s.
//!
//! Owns the file's syntax, not the meaning of any variable. Invariant: a value is taken verbatim (no quotes removed, nothing trimmed,
//! nothing expanded), so JSON survives; one bad line never takes the others with it.

use super::problem::{NO_START, Problem, shape};
use crate::model::text::without_bom;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// What kind of source a value is from. Some rules of the Go agent hold only for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The environment, or a file of `NAME=value` lines, which is one under ecs-init and under Docker.
    Environment,
    /// The JSON file or user data.
    Document,
    /// Nobody set it.
    Defaults,
}

/// One source of values, asked from the highest to the lowest.
pub trait Source {
    /// The value as written, or `None` when the source does not have the key.
    fn get(&self, key: &str) -> Option<String>;

    /// Where that value stands, for messages.
    fn place(&self, key: &str) -> String;

    /// Every key the source has, to find misspelt ones.
    fn keys(&self) -> Vec<String>;

    /// What kind of source it is.
    fn class(&self) -> Class {
        Class::Environment
    }
}

/// The process environment, taken once.
#[derive(Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    not_text: Vec<String>,
}

/// A parsed env-file.
#[derive(Default)]
pub struct EnvFile {
    path: String,
    values: BTreeMap<String, (usize, String)>,
}

/// Larger files are refused: something else was put there.
const MAX_FILE: u64 = 64 << 20;
const ONCE: &str = "each name once";

/// Why a file was not read.
pub(super) enum Unread {
    /// There is nothing of that name.
    Absent,
    /// It is there, or its name is, and cannot be opened.
    NotOpened(ErrorKind),
    /// It was opened and is no file to read, such as a directory.
    NotRead(ErrorKind),
    /// Too long to be a configuration.
    TooLong,
}

/// The bytes of a file; they may hold secrets.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        // A link whose target is missing was meant to be a file.
        ErrorKind::NotFound if path.symlink_metadata().is_err() => Unread::Absent,
        kind => Unread::NotOpened(kind),
    })?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| Unread::NotRead(error.kind()))?;
    if bytes.len() as u64 > MAX_FILE { Err(Unread::TooLong) } else { Ok(bytes) }
}

// Values may be secrets: names only.
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

// Nor may they stay in memory longer than loading takes.
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
    /// The environment of this process. The only place in the crate that reads it.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// An environment of these variables. One that is not UTF-8 is left out and remembered.
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

    /// Variables of ours that could not be read.
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
    /// Reads a file. One that is absent is a problem only if it was `named` by the operator; one that is there and cannot be read
    /// always is, since the agent would join another cluster than it was told to. `docker run` refuses both.
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

    /// The same file as ecs-init reads it: white space at the end of a line is not part of the value.
    pub(super) fn trimmed(mut self) -> Self {
        for (_, value) in self.values.values_mut() {
            value.truncate(value.trim_end().len());
        }
        self
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(path: &str, bytes: &[u8], environment: &Environment) -> (Self, Vec<Problem>) {
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new() };
        let mut problems = Vec::new();
        let Ok(bytes) = without_bom(bytes) else {
            // None of its lines would be read as it was meant: the agent would join another cluster than it was told to.
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
                let instead = if expected == ONCE { "the last one counts" } else { "the line is ignored" };
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
            // A name alone takes its value from the environment.
            None => (line, environment.get(line)),
        };
        if key.is_empty() {
            return Err(("a line that begins with =".to_owned(), "NAME=value"));
        }
        if key.starts_with("export ") {
            return Err((
                "a line that begins with export".to_owned(),
                "NAME=value without export: this is no shell script",
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
                // A broken-off value may look like a name: only a known one is shown.
                let name = super::keys::find(key).map_or("a name", |key| key.name);
                return Err((format!("{name} again, first in line {first}"), ONCE));
            }
        }
        Ok(())
    }
}
