//! The JSON configuration file, and EC2 user data of the form `{"ECSAgentConfiguration": {…}}` (spec `config.md` §1, §1.2).
//!
//! This module owns the JSON form of a field and converts it to the text that an operator would put into the environment;
//! [`super::kind`] owns the meaning of that text. It opens a file but uses no metadata service: user data comes in as text.
//! Invariant: a field that cannot be read is reported with its line and its shape. In the file it is fatal, in user data it is
//! left out (only without its cluster the agent does not start: `rules`); no other field is lost.

use super::keys::{ENVIRONMENT_ONLY, KEYS, Key, Stage, find, find_json};
use super::kind::Kind;
use super::lists::is_range;
use super::parsed::Parsed;
use super::problem::{NO_START, Problem, Severity};
use super::source::{Class, Source, Unread, read, why_unread};
use super::suggest::{closest, did_you_mean};
use crate::input::byte_order_mark::{BOM, without_bom};
use crate::input::form::Form;
use crate::input::members::Members;
use serde::de::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

pub(super) const USER_DATA: &str = "EC2 user data";
const WRAPPER: &str = "ECSAgentConfiguration";
const RATES: [&str; 2] = ["TaskMetadataSteadyStateRate", "TaskMetadataBurstRate"];
/// Maximum length in characters of a name for which a correction is suggested. A longer name is not a typing error.
const MAX_NAME_LENGTH: usize = 80;

/// One JSON document as a source.
#[derive(Default)]
pub struct Document {
    place: String,
    /// For each row that the document sets, by the row's name: the line, and the value as an operator would write it.
    values: BTreeMap<&'static str, (usize, String)>,
}

// Values may be secrets, so only names are shown.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.values.values_mut().for_each(|(_, value)| value.zeroize());
    }
}

impl Source for Document {
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|(_, value)| value.clone())
    }

    fn place(&self, key: &str) -> String {
        self.values.get(key).map_or_else(|| self.place.clone(), |(line, _)| format!("{}:{line}", self.place))
    }

    /// Empty: names that are not fields were reported while reading.
    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn class(&self) -> Class {
        Class::Document
    }
}

impl Document {
    /// Opens the file. A missing file is a problem only if the operator `named` it, and is never fatal, as in the Go agent. An
    /// existing file that cannot be read or parsed is fatal.
    pub fn open(path: &Path, named: bool) -> (Self, Vec<Problem>) {
        let place = path.display().to_string();
        let problem = |shape: &str, fatal: bool| Problem {
            variable: String::new(),
            place: place.clone(),
            shape: shape.to_owned(),
            expected: "a readable JSON file".to_owned(),
            instead: if fatal { NO_START } else { "it is ignored" }.to_owned(),
            severity: if fatal { Severity::Fatal } else { Severity::Changes },
        };
        match read(path) {
            Ok(bytes) => match without_bom(&bytes).map(str::from_utf8) {
                Ok(Ok(text)) => Self::file(&place, text),
                Ok(Err(_)) => (Self::default(), vec![problem("bytes that are not UTF-8", true)]),
                Err(_) => (Self::default(), vec![problem("UTF-16 or UTF-32 text instead of UTF-8", true)]),
            },
            Err(Unread::Absent) if !named => (Self::default(), Vec::new()),
            Err(Unread::Absent) => (Self::default(), vec![problem("not there", false)]),
            Err(Unread::NotOpened(kind)) => {
                (Self::default(), vec![problem(&format!("cannot be opened: {}", why_unread(kind)), false)])
            }
            Err(Unread::NotRead(kind)) => {
                (Self::default(), vec![problem(&format!("cannot be read: {}", why_unread(kind)), true)])
            }
            Err(Unread::TooLong) => (Self::default(), vec![problem("more than 64 MiB", true)]),
        }
    }

    /// Reads the text of the file; `place` is its name in messages. A blank text sets nothing.
    pub fn file(place: &str, text: &str) -> (Self, Vec<Problem>) {
        if text.trim().is_empty() {
            return (Self::default(), Vec::new());
        }
        match serde_json::from_str::<Option<Members<'_>>>(text) {
            Ok(members) => Reader::new(place, text, true).read(members.unwrap_or_default()),
            Err(error) => (Self::default(), vec![parse_problem(place, text, &error, true)]),
        }
    }

    /// Reads user data. Most user data is a script, so text that does not name this configuration is ignored without a problem.
    pub fn user_data(text: &str) -> (Self, Vec<Problem>) {
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let unread = |problem: Problem| {
            // A text that cannot be read, but names a cluster: the agent must not join another one.
            let names_cluster = text.replace('\0', "").to_ascii_lowercase().contains("\"cluster\"");
            let variable = if names_cluster { "Cluster".to_owned() } else { String::new() };
            (Self::default(), vec![Problem { variable, ..problem }])
        };
        if was_utf16_configuration(text) {
            return unread(Problem {
                variable: String::new(),
                place: USER_DATA.to_owned(),
                shape: "UTF-16 or UTF-32 text".to_owned(),
                expected: "UTF-8 text: save it as UTF-8".to_owned(),
                instead: "it is ignored".to_owned(),
                severity: Severity::Changes,
            });
        }
        let members = match serde_json::from_str::<Members<'_>>(text) {
            Ok(members) => members,
            Err(error) if text.trim_start().starts_with('{') && text.contains(WRAPPER) => {
                return unread(parse_problem(USER_DATA, text, &error, false));
            }
            Err(_) => return (Self::default(), Vec::new()),
        };
        let Some(configuration) = members.get(WRAPPER) else { return (Self::default(), Vec::new()) };
        let mut reader = Reader::new(USER_DATA, text, false);
        if members.iter().filter(|(name, _)| name.eq_ignore_ascii_case(WRAPPER)).count() > 1 {
            reader.set_again(WRAPPER, configuration);
        }
        match serde_json::from_str::<Option<Members<'_>>>(configuration.get()) {
            Ok(members) => reader.read(members.unwrap_or_default()),
            Err(error) => unread(parse_problem(USER_DATA, configuration.get(), &error, false)),
        }
    }
}

/// The text was UTF-16 before it was decoded as UTF-8 (the byte order mark became two replacement characters), and it contains
/// the name of this configuration.
fn was_utf16_configuration(text: &str) -> bool {
    text.starts_with("\u{fffd}\u{fffd}") && text.replace('\0', "").contains(WRAPPER)
}

/// The problem of a text that is not valid. The message of serde_json may quote the text, so only the position is used.
fn parse_problem(place: &str, text: &str, error: &serde_json::Error, fatal: bool) -> Problem {
    let shape = match Form::from_json(text) {
        Some(form) => format!("{}, where an object belongs", form.name()),
        None => format!("not valid JSON at line {} column {}", error.line(), error.column()),
    };
    Problem {
        variable: String::new(),
        place: place.to_owned(),
        shape,
        expected: "a JSON object such as {\"Cluster\":\"prod\"}".to_owned(),
        instead: if fatal { NO_START } else { "it is ignored" }.to_owned(),
        severity: if fatal { Severity::Fatal } else { Severity::Changes },
    }
}

/// Converts members to values and problems.
struct Reader<'a> {
    text: &'a str,
    is_file: bool,
    document: Document,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(place: &str, text: &'a str, is_file: bool) -> Self {
        let document = Document { place: place.to_owned(), values: BTreeMap::new() };
        Self { text, is_file, document, problems: Vec::new() }
    }

    fn read(mut self, members: Members<'_>) -> (Document, Vec<Problem>) {
        let mut seen = BTreeSet::new();
        let mut rates = [None; 2];
        let mut cluster_arn = None;
        for (name, raw) in members.iter() {
            let line = self.line(raw);
            if !seen.insert(name.to_ascii_lowercase()) && name.len() <= MAX_NAME_LENGTH && find_json(name).is_some() {
                self.set_again(name, raw);
            }
            if let Some(half) = RATES.iter().position(|rate| rate.eq_ignore_ascii_case(name)) {
                rates[half] = Some((line, raw));
            } else if name.eq_ignore_ascii_case("ClusterArn") {
                cluster_arn = Some((line, raw));
            } else if let Some(key) = find_json(name) {
                self.take(key, line, raw);
            } else {
                self.unknown(name, line);
            }
        }
        self.rates(rates);
        self.cluster_arn(cluster_arn);
        (self.document, self.problems)
    }

    fn set_again(&mut self, name: &str, raw: &RawValue) {
        let line = self.line(raw);
        self.report(name, line, "set again".to_owned(), "each name once".to_owned(), "the last one counts");
    }

    /// The line in which a value begins. `raw` is a part of the text.
    fn line(&self, raw: &RawValue) -> usize {
        let offset = (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn take(&mut self, key: &'static Key, line: usize, raw: &RawValue) {
        if key.stage == Stage::Foreign {
            // The value does not matter, only that there is one.
            _ = self.document.values.insert(key.name, (line, "set".to_owned()));
            return;
        }
        match operator_text(key, raw.get()) {
            Ok(Some(text)) => _ = self.document.values.insert(key.name, (line, text)),
            // A null does not change an earlier value, as in Go.
            Ok(None) => {}
            Err(WrongType) => self.wrong_type(key.json.unwrap_or(key.name), line, raw, expected(key.kind)),
        }
    }

    fn wrong_type(&mut self, name: &str, line: usize, raw: &RawValue, expected: String) {
        let instead = if self.is_file { NO_START } else { "it is ignored" };
        self.report(name, line, shape(raw.get()), expected, instead);
        if let (true, Some(last)) = (self.is_file, self.problems.last_mut()) {
            last.severity = Severity::Fatal;
        }
    }

    fn report(&mut self, name: &str, line: usize, shape: String, expected: String, instead: &str) {
        self.problems.push(Problem {
            variable: name.to_owned(),
            place: format!("{}:{line}", self.document.place),
            shape,
            expected,
            instead: instead.to_owned(),
            severity: Severity::Changes,
        });
    }

    fn unknown(&mut self, name: &str, line: usize) {
        if let Some((json, instead)) = ENVIRONMENT_ONLY.iter().find(|(json, _)| json.eq_ignore_ascii_case(name)) {
            self.report(json, line, "set where it is not read".to_owned(), (*instead).to_owned(), "it is ignored");
            return;
        }
        // A text that is not a name may be a value in the wrong place, so it is not shown.
        let is_name =
            name.len() <= MAX_NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let known = find(&name.to_ascii_uppercase()).and_then(|key| key.json);
        let mut names = KEYS.iter().filter(|key| key.stage != Stage::Foreign).filter_map(|key| key.json);
        let hint = known.or_else(|| if is_name { closest(name, &mut names) } else { None });
        let hint = hint.map_or_else(String::new, did_you_mean);
        let shown = if is_name { name } else { "" };
        let expected = format!("a field that --help names after JSON{hint}");
        self.report(shown, line, "not a field of this agent".to_owned(), expected, "it is ignored");
    }

    /// Combines the two rate fields, which are one variable in the environment. A missing field has its default.
    fn rates(&mut self, halves: [Option<(usize, &RawValue)>; 2]) {
        let Some(key) = find_json(RATES[0]) else { return };
        let mut numbers = ["40".to_owned(), "60".to_owned()];
        let mut first = None;
        for (half, number) in halves.into_iter().zip(&mut numbers) {
            let Some((line, raw)) = half else { continue };
            match serde_json::from_str::<Option<i64>>(raw.get()) {
                Ok(None | Some(0)) => {}
                Ok(Some(rate)) => (*number, first) = (rate.to_string(), first.or(Some(line))),
                Err(_) => self.wrong_type(RATES[0], line, raw, "whole numbers".to_owned()),
            }
        }
        if let Some(line) = first {
            self.document.values.insert(key.name, (line, numbers.join(",")));
        }
    }

    /// Reads `ClusterArn`, the old name of `Cluster`. It is used only in the file, not in user data.
    fn cluster_arn(&mut self, found: Option<(usize, &RawValue)>) {
        let Some((line, raw)) = found else { return };
        let Ok(text) = serde_json::from_str::<Option<String>>(raw.get()) else {
            return self.wrong_type("ClusterArn", line, raw, "a string".to_owned());
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        let named = self.document.values.get("ECS_CLUSTER").is_some_and(|(_, cluster)| !cluster.is_empty());
        let used = self.is_file && !named;
        let instead = if used { "it is used as Cluster" } else { "it is ignored" };
        self.report("ClusterArn", line, "an old name".to_owned(), "Cluster".to_owned(), instead);
        if let (true, Some(last)) = (used, self.problems.last_mut()) {
            last.severity = Severity::Notice;
        }
        if used {
            self.document.values.insert("ECS_CLUSTER", (line, text));
        }
    }
}

/// The value has another JSON type than its field.
struct WrongType;

/// A JSON value as an operator would write it in the environment; `None` for null.
fn operator_text(key: &Key, raw: &str) -> Result<Option<String>, WrongType> {
    if raw == "null" {
        return Ok(None);
    }
    let text = match key.kind {
        Kind::Switch => word(raw, &["true", "false", "1", "0"])?,
        Kind::Flag => word(raw, &["true", "false"])?,
        Kind::SecretJson => raw.to_owned(),
        Kind::Duration(_) => format!("{}ns", number(raw)?),
        Kind::Integer(_) | Kind::TrimmedInteger(_) | Kind::Rates => number(raw)?.to_string(),
        Kind::Unsigned16 => u16::try_from(number(raw)?).map_err(|_| WrongType)?.to_string(),
        Kind::Choice(words) => {
            let index = number(raw)?;
            let word = usize::try_from(index).ok().and_then(|index| words.get(index));
            word.map_or_else(|| index.to_string(), |word| (*word).to_owned())
        }
        Kind::Ports => decoded::<Vec<u16>>(raw).map(|_| raw.to_owned())?,
        Kind::Map | Kind::Mirrors => decoded::<BTreeMap<String, Option<String>>>(raw).map(|_| raw.to_owned())?,
        Kind::Names | Kind::Cidrs => {
            let members = decoded::<Vec<Option<String>>>(raw)?.into_iter().map(Option::unwrap_or_default);
            serde_json::Value::from_iter(members).to_string()
        }
        Kind::List => decoded::<Vec<String>>(raw)?.join(","),
        Kind::Text
        | Kind::Trimmed
        | Kind::Region
        | Kind::Path
        | Kind::HomePath
        | Kind::Cluster
        | Kind::TextOrEmpty
        | Kind::Secret
        | Kind::TrimmedChoice(_)
        | Kind::AnyCase(_)
        | Kind::LocalAddress
        | Kind::Decimal
        | Kind::Pairs
        | Kind::Headers
        | Kind::PortRange
        | Kind::Host
        | Kind::Endpoint
        | Kind::PlainEndpoint
        | Kind::DockerHost
        | Kind::Proxy => decoded::<String>(raw)?,
    };
    // Go parses network ranges while it decodes, so an invalid range is a wrong type.
    let is_malformed = match key.kind {
        Kind::Cidrs => key.kind.parse(&text, key.default) == Parsed::Rejected,
        Kind::LocalAddress => !text.is_empty() && !is_range(&text),
        _ => false,
    };
    if is_malformed {
        return Err(WrongType);
    }
    Ok(Some(text))
}

fn decoded<'a, T: Deserialize<'a>>(raw: &'a str) -> Result<T, WrongType> {
    serde_json::from_str(raw).map_err(|_| WrongType)
}

fn number(raw: &str) -> Result<i64, WrongType> {
    decoded(raw)
}

fn word(raw: &str, words: &[&str]) -> Result<String, WrongType> {
    words.contains(&raw).then(|| raw.to_owned()).ok_or(WrongType)
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Switch | Kind::Flag => "true or false without quotation marks".to_owned(),
        Kind::Duration(_) => "a whole number of nanoseconds".to_owned(),
        Kind::Integer(_) | Kind::TrimmedInteger(_) | Kind::Rates => "a whole number".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().zip(0..).map(|(word, index)| format!("{index} ({word})")).collect();
            format!("one of {}", words.join(", "))
        }
        Kind::List => "a JSON array of strings".to_owned(),
        Kind::Unsigned16 | Kind::Ports | Kind::Names | Kind::Map | Kind::Mirrors | Kind::Cidrs | Kind::SecretJson => {
            kind.expected()
        }
        Kind::Text
        | Kind::Trimmed
        | Kind::Region
        | Kind::Path
        | Kind::HomePath
        | Kind::TextOrEmpty
        | Kind::Secret
        | Kind::Decimal
        | Kind::Pairs
        | Kind::Headers
        | Kind::TrimmedChoice(_)
        | Kind::AnyCase(_)
        | Kind::PortRange => "a string".to_owned(),
        Kind::Cluster
        | Kind::LocalAddress
        | Kind::Host
        | Kind::Endpoint
        | Kind::PlainEndpoint
        | Kind::DockerHost
        | Kind::Proxy => {
            format!("a string: {}", kind.expected())
        }
    }
}

/// Describes the shape of a JSON value without the value.
fn shape(raw: &str) -> String {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let length = serde_json::from_str::<String>(raw).map_or(0, |text| Zeroizing::new(text).chars().count());
            format!("a string of {}", super::shown::characters(length))
        }
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        Some(b't' | b'f') => "a boolean".to_owned(),
        _ => "a number".to_owned(),
    }
}
