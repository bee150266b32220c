//! Configuration: one table of everything that an operator can set. The settings are read once; after that they are typed and
//! immutable.
//!
//! ```text
//! environment ─ ecs.config ─ JSON file ─ user data ─ region of the instance ─ defaults of the service ─ defaults
//!      └────────────┴───────────┴── resolve ── kind: text -> canonical ── rules ── envy ──> Config
//!                                      └─ keys: the table ─┘         └── problems, all at once
//! ```
//!
//! Reading order: [`keys`] (the table), [`kind`] with `parsed`, `lists`, `names` and `duration` (forms of values), [`source`]
//! with `line_names` and `continued`, `credential`, and [`document`] (sources of values), `defaults` with `realm` (defaults of a host's
//! service), `resolve` with `repeated` (precedence), `rules` (variables that depend on each other), [`settings`] with [`log`] and
//! [`log_settings`] and `traces` (the result). What is wrong: [`problem`] (with the rule how much it matters), `unknown` (names), `laid_out`
//! (JSON over several lines), `doubts` (settings that contradict each other), `shown` with `wrong_member` (what a message shows
//! of a value), `effective` (the list of values), `meant` with `suggest` and `quoting` (what was meant), [`report`]. The command
//! line: `flags` (the table), [`args`], and the table for people: [`help`], [`manual`], [`completion`].
//! [`Sources::open`] reads every source on this machine. User data comes in as text, because only an edge may use the metadata
//! service, and the runtime fills in the region of the instance. Invariant: no other module reads the environment, and no
//! [`Problem`] holds a secret.
//!
//! For operators:
//!
#![doc = include_str!("ecs_config.md")]

pub mod args;
pub mod completion;
mod continued;
mod credential;
mod defaults;
pub mod document;
mod doubts;
mod duration;
mod effective;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod help;
pub mod keys;
pub mod kind;
mod laid_out;
mod line_names;
mod lists;
pub mod log;
pub mod log_settings;
pub mod manual;
mod meant;
mod names;
mod parsed;
pub mod problem;
mod quoting;
mod realm;
mod repeated;
pub mod report;
mod resolve;
mod rules;
pub mod settings;
mod shown;
pub mod source;
mod suggest;
mod traces;
mod unknown;
mod wrong_member;

pub use args::{Action, Args, ArgsError};
pub use document::Document;
pub use effective::Effective;
pub use log::{LogFormat, LogLevel, Rollover};
pub use log_settings::{LogFile, LogLevels, LogSettings};
pub use problem::{Problem, Severity};
pub use rules::region_missing;
pub use settings::{Config, ImagePullBehavior, PeerCheck, PortRange, ProxySettings, Rates, RetryMode, TagSource};
pub use source::{EnvFile, Environment, STANDARD_INPUT, Source};
pub use traces::TraceSettings;

use credential::Credential;
use defaults::ServiceDefaults;
use ecs_core::model::Secret;
use keys::{KEYS, Stage};
use kind::Kind;
use source::{Class, FileState};
use std::path::Path;

/// The programs that the agent replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The Go agent alone: in a container, or started by hand.
    #[default]
    Agent,
    /// The Go agent and ecs-init, as the host's service (`-service`).
    Service,
}

/// The result of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` if a problem is fatal (exit code 1).
    pub config: Option<Config>,
    /// All problems, in the table's order.
    pub problems: Vec<Problem>,
    /// Variables that were set without effect: those that ask for a feature that this version does not support, and those
    /// without a meaning for this agent.
    pub unused: Vec<Unused>,
    /// The value of each variable in effect, as operators see it.
    pub effective: Vec<Effective>,
    /// Settings of features that this version does not support which ask for nothing, such as `ECS_UPDATES_ENABLED=false`: the agent
    /// does the same without them.
    pub idle: Vec<Effective>,
    /// The path of `ecs.config` if it is not there and nobody named it; `None`: it was read.
    pub missing_file: Option<String>,
    /// A file of lines cannot be used, so the values in effect are not those that the operator wrote.
    pub has_unusable_file: bool,
    /// The configuration although a problem is fatal, for further checks and for the settings of the log only.
    pub unusable: Option<Config>,
}

impl Loaded {
    /// Variables that were set without effect, for the log: one line for each reason.
    pub fn without_effect(&self) -> Vec<String> {
        let line = |stage: Stage, why: &str| {
            let names: Vec<&str> = self.unused_at(stage).map(|unused| unused.key.name).collect();
            (!names.is_empty()).then(|| format!("{why}: {}", names.join(", ")))
        };
        let lines = [
            line(
                Stage::Later,
                "set, but not supported by this version: without effect (check-config says what follows)",
            ),
            line(Stage::Foreign, "set, but without a meaning for this agent: without effect (check-config says why)"),
        ];
        lines.into_iter().flatten().collect()
    }

    /// The variables without effect that are at this stage.
    pub fn unused_at(&self, stage: Stage) -> impl Iterator<Item = &Unused> {
        self.unused.iter().filter(move |unused| unused.key.stage == stage)
    }

    /// Why the levels of the log cannot be read from these sources; `None`: they can. A level that was rejected counts, although a
    /// start would use another one in its place; so does a level in a line that is ignored.
    pub fn levels_unreadable(&self) -> Option<String> {
        let place = |name: &str| self.effective.iter().find(|value| value.name == name)?.place.as_deref();
        let is_about_level = |problem: &&Problem| {
            let name = ["ECS_LOGLEVEL", "ECS_LOGLEVEL_ON_INSTANCE"].into_iter().find(|name| *name == problem.variable);
            // A file that cannot be used has no variable.
            let is_file = problem.variable.is_empty() && problem.is_fatal();
            is_file || name.is_some_and(|name| place(name) != Some(problem.place.as_str()))
        };
        self.problems.iter().find(is_about_level).map(Problem::finding)
    }

    /// The highest severity of a problem or of a variable without effect; `None`: nothing is wrong.
    pub fn severity(&self) -> Option<Severity> {
        let unused = self.unused.iter().map(|unused| unused.key.severity);
        self.problems.iter().map(|problem| problem.severity).chain(unused).max()
    }
}

/// A variable that was set without effect.
#[derive(Clone, Debug)]
pub struct Unused {
    /// Its row, with the consequence and the severity.
    pub key: &'static keys::Key,
    /// Where it was set, as in [`Problem::place`].
    pub place: String,
}

/// All sources on this machine, read once. They hold secrets, so drop this when loading is done.
#[derive(Debug)]
pub struct Sources {
    environment: Environment,
    credential: Credential,
    /// `ecs.config`, then the vendor's file.
    files: Vec<EnvFile>,
    document: Document,
    service: Option<ServiceDefaults>,
    problems: Vec<Problem>,
}

impl Sources {
    /// Reads the file of `ECS_CONFIG_FILE` (by default `/etc/ecs/ecs.config`), as a service also the vendor's file, and the JSON
    /// file of `ECS_AGENT_CONFIG_FILE_PATH`.
    pub fn open(environment: Environment, role: Role) -> Self {
        Self::read(environment, role, None, true)
    }

    /// As [`Self::open`], for the check of what another process will use. `other` is a file in place of `/etc/ecs/ecs.config`,
    /// whatever `ECS_CONFIG_FILE` says. With it, and as a service, settings in the environment of the shell that asks have no effect,
    /// except as values of lines without `=`: the agent that will read the file does not have them.
    pub fn open_to_check(environment: Environment, role: Role, other: Option<&str>) -> Self {
        let environment = if other.is_some() { environment.without("ECS_CONFIG_FILE") } else { environment };
        Self::read(environment, role, other, other.is_none() && role == Role::Agent)
    }

    fn read(environment: Environment, role: Role, other: Option<&str>, keeps_settings: bool) -> Self {
        let is_service = role == Role::Service;
        let named = environment.get("ECS_CONFIG_FILE").filter(|path| !path.is_empty());
        let default = keys::find("ECS_CONFIG_FILE").map_or("", |key| key.default);
        let mut problems = if keeps_settings { environment.problems() } else { Vec::new() };
        let mut files = Vec::new();
        let vendor = (is_service && named.is_none()).then_some((defaults::VENDOR_FILE, false));
        let first = match (other, &named) {
            (Some(path), _) => (path, true),
            (None, Some(path)) => (path.as_str(), true),
            (None, None) => (default, false),
        };
        for (path, is_named) in [Some(first), vendor].into_iter().flatten() {
            let (file, more) = EnvFile::open(Path::new(path), is_named, &environment);
            let (file, notes) = if is_service { file.trimmed() } else { (file, Vec::new()) };
            files.push(file);
            problems.extend(more.into_iter().chain(notes));
        }
        let (credential, more) = Credential::open(&environment);
        problems.extend(more);
        let environment = if keeps_settings { environment } else { environment.without_settings() };
        let service = is_service.then(ServiceDefaults::for_this_host);
        let mut sources = Self { environment, credential, files, document: Document::default(), service, problems };
        sources.open_document();
        sources
    }

    fn open_document(&mut self) {
        let mut problems = Vec::new();
        let key = keys::find("ECS_AGENT_CONFIG_FILE_PATH");
        let Some(path) = key.and_then(|key| resolve::resolve_key(key, &self.layers(None), &mut problems)) else {
            return;
        };
        let named = path.class == Class::Environment;
        let (document, more) = Document::open(Path::new(&path.canonical), named);
        self.document = document;
        self.problems.extend(problems.into_iter().chain(more));
    }

    /// The sources in order of precedence, the highest first.
    fn layers<'a>(&'a self, user_data: Option<&'a Document>) -> Vec<&'a dyn Source> {
        let mut layers: Vec<&dyn Source> = vec![&self.environment, &self.credential];
        layers.extend(self.files.iter().map(|file| file as &dyn Source));
        layers.push(&self.document);
        layers.extend(user_data.map(|document| document as &dyn Source));
        layers.extend(self.service.iter().map(|defaults| defaults as &dyn Source));
        layers
    }

    /// The host that `-healthcheck` asks, even if the rest of the configuration is unusable: the health of a running agent does
    /// not depend on later changes of its files, or on files that the caller may not read.
    pub fn healthcheck_host(&self) -> String {
        let key = keys::find("ECS_AGENT_HEALTHCHECK_HOST");
        let found = key.and_then(|key| resolve::resolve_key(key, &self.layers(None), &mut Vec::new()));
        found.map_or_else(|| "localhost".to_owned(), |found| found.canonical)
    }

    /// The value of `JOURNAL_STREAM`, which systemd sets for a service whose output goes to the journal.
    pub fn journal_stream(&self) -> Option<String> {
        self.environment.get("JOURNAL_STREAM")
    }

    /// A service manager such as systemd has started this process, and wants to be notified of its state (`NOTIFY_SOCKET`).
    pub fn is_notified(&self) -> bool {
        self.environment.get("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
    }

    /// The files of lines that were read.
    pub fn files_read(&self) -> Vec<String> {
        self.files.iter().filter(|file| file.state() == FileState::Read).map(|file| file.path().to_owned()).collect()
    }

    /// Loads the configuration, with the text of the user data if there is any.
    pub fn load(&self, user_data: Option<&str>) -> Loaded {
        let mut problems = self.problems.clone();
        let document = user_data.map(|text| {
            let (document, more) = Document::user_data(text);
            problems.extend(more);
            document
        });
        let loaded = load_from(&self.layers(document.as_ref()), self.service.is_some(), problems);
        let missing = self.files.first().filter(|file| file.state() == FileState::Absent);
        let missing_file = missing.map(|file| file.path().to_owned());
        let has_unusable_file = self.files.iter().any(|file| file.state() == FileState::Unusable);
        Loaded { missing_file, has_unusable_file, ..loaded }
    }

    /// Variables of the AWS SDK and the TLS library that are set in a file but not in the process environment, with their
    /// values. The caller adds them to that environment.
    pub fn process_variables(&self) -> Vec<(&'static str, Secret)> {
        let absent = |key: &&keys::Key| key.stage == Stage::Process && self.environment.get(key.name).is_none();
        let value =
            |key: &keys::Key| self.files.iter().find_map(|file| file.get(key.name)).filter(|text| !text.is_empty());
        KEYS.iter().filter(absent).filter_map(|key| Some((key.name, Secret::new(value(key)?)))).collect()
    }
}

/// Loads from sources in order of precedence; the first is the process environment. `problems` were found while reading the
/// sources.
fn load_from(sources: &[&dyn Source], is_service: bool, mut problems: Vec<Problem>) -> Loaded {
    let from_reading = problems.len();
    let mut values = resolve::resolve(sources, &mut problems);
    let mut unused: Vec<Unused> = KEYS.iter().filter_map(|key| unused(key, &values)).collect();
    let asks_for_nothing = |key: &&keys::Key| {
        let is_unused = unused.iter().any(|unused| unused.key.name == key.name);
        key.stage == Stage::Later
            && !is_unused
            && values.get(key.name).is_some_and(|value| value.class != Class::Defaults)
    };
    let idle = KEYS.iter().filter(asks_for_nothing);
    let idle: Vec<Effective> = idle.filter_map(|key| Some(effective::shown(key, values.get(key.name)?))).collect();
    rules::apply(&mut values, sources, is_service, &mut problems);
    let mut about_values = problems.split_off(from_reading);
    without_effect(&mut about_values, &mut unused);
    problems.extend(about_values);
    doubts::find(&values, sources, &mut problems);
    rules::lost_cluster(&values, &mut problems);
    unknown::names(sources, rules::joined_cluster(&values, &problems), &mut problems);
    rules::cluster(&values, sources, &mut problems);
    let settled: Vec<&str> = unused.iter().map(|unused| unused.place.as_str()).collect();
    laid_out::report(sources, &settled, &mut problems);
    let effective: Vec<Effective> =
        KEYS.iter().filter_map(|key| effective::row(key, values.get(key.name), &problems)).collect();
    let typed = typed(values, &mut problems);
    let is_fatal = problems.iter().any(Problem::is_fatal);
    let (config, unusable) = if is_fatal { (None, typed) } else { (typed, None) };
    Loaded { config, problems, unused, effective, idle, missing_file: None, has_unusable_file: false, unusable }
}

/// Takes the problems with values of settings without effect out of the list: such a value need not be corrected first, only to learn
/// then that the setting has no effect. What keeps the agent from starting stays.
fn without_effect(problems: &mut Vec<Problem>, unused: &mut Vec<Unused>) {
    problems.retain(|problem| {
        let key = keys::find(&problem.variable).or_else(|| keys::find_json(&problem.variable));
        let Some(key) = key.filter(|key| key.stage == Stage::Later && !problem.is_fatal()) else { return true };
        if !unused.iter().any(|unused| unused.key.name == key.name) {
            unused.push(Unused { key, place: problem.place.clone() });
        }
        false
    });
}

/// The typed configuration. The table and `Config` agree (tested), so `envy` does not fail. Its error could hold a value and is
/// not passed on.
fn typed(values: resolve::Values, problems: &mut Vec<Problem>) -> Option<Config> {
    let rows = KEYS.iter().filter(|key| key.stage == Stage::Now).map(|key| key.name);
    let mut values = values;
    let pairs = rows.filter_map(|name| Some((name.to_owned(), values.remove(name)?.canonical)));
    let config = envy::from_iter::<_, Config>(pairs).ok();
    if config.is_none() {
        problems.push(Problem {
            variable: String::new(),
            place: "configuration".to_owned(),
            shape: "values that do not fit together".to_owned(),
            expected: "the table and the typed configuration to agree (a bug of the agent)".to_owned(),
            instead: problem::NO_START.to_owned(),
            severity: Severity::Fatal,
        });
    }
    config
}

/// The variable is set without effect. One that is not supported yet must ask for something.
fn unused(key: &'static keys::Key, values: &resolve::Values) -> Option<Unused> {
    let value = values.get(key.name).filter(|value| value.class != Class::Defaults)?;
    let is_unused = match key.stage {
        Stage::Later => asks_for_something(key, value),
        Stage::Foreign => true,
        Stage::Now | Stage::Process | Stage::NamesFile => false,
    };
    is_unused.then(|| Unused { key, place: value.place.clone().unwrap_or_default() })
}

/// `ECS_UPDATES_ENABLED=false` asks for nothing; nor does the default of another setting. A feature that the Go agent has without
/// being asked is asked for by `true`, too.
fn asks_for_something(key: &'static keys::Key, value: &resolve::Resolved) -> bool {
    match key.kind {
        Kind::Switch | Kind::Flag => value.canonical == "true",
        _ => resolve::default_of(key).is_none_or(|default| default.canonical != value.canonical),
    }
}

#[cfg(test)]
mod tests;
