//! Configuration: one table of everything that an operator can set. The settings are read once; after that they are typed and
//! immutable.
//!
//! ```text
//! environment ─ ecs.config ─ JSON file ─ user data ─ region of the instance ─ defaults of the service ─ defaults
//!      └────────────┴───────────┴── resolve ── kind: text -> canonical ── rules ── envy ──> Config
//!                                      └─ keys: the table ─┘         └── problems, all at once
//! ```
//!
//! Reading order: [`keys`] (the table), [`kind`] with `parsed`, `lists` and `duration` (forms of values), [`source`] and
//! [`document`] (sources of values), `defaults` with `realm` (defaults of a host's service), `resolve` (precedence), `rules`
//! (variables that depend on each other), [`settings`] with [`log`] and [`log_settings`] (the result), [`help`] (the table for people), [`args`].
//! [`Sources::open`] reads every source on this machine. User data comes in as text, because only an edge may use the metadata
//! service, and the runtime fills in the region of the instance. Invariant: no other module reads the environment, and no
//! [`Problem`] holds a value.
//!
//! For operators:
//!
#![doc = include_str!("ecs_config.md")]

pub mod args;
mod defaults;
pub mod document;
mod duration;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod help;
pub mod keys;
pub mod kind;
mod lists;
pub mod log;
pub mod log_settings;
mod parsed;
pub mod problem;
mod realm;
mod resolve;
mod rules;
pub mod settings;
pub mod source;

pub use args::{Action, Args};
pub use document::Document;
pub use log::{LogFormat, LogLevel, Rollover};
pub use log_settings::{LogFile, LogLevels, LogSettings};
pub use problem::Problem;
pub use rules::region_missing;
pub use settings::{Config, ImagePullBehavior, PortRange, ProxySettings, RetryMode, TagSource};
pub use source::{EnvFile, Environment, Source};

use defaults::ServiceDefaults;
use ecs_core::model::{Secret, address};
use keys::{KEYS, Stage};
use kind::Kind;
use source::Class;
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
    /// A configuration that must not be used, because a problem is fatal. The log is written as it says.
    pub refused: Option<Config>,
    /// All problems, in the table's order.
    pub problems: Vec<Problem>,
    /// Variables that ask for a feature that this version does not support.
    pub unsupported: Vec<&'static str>,
    /// Variables that were set but have no meaning for this agent.
    pub foreign: Vec<&'static str>,
    /// The value of each variable, as operators see it; those in `unsupported` and `foreign` have no effect.
    pub effective: Vec<Effective>,
}

impl Loaded {
    /// Variables that were set without effect, for the log: one line for each reason.
    pub fn without_effect(&self) -> Vec<String> {
        let line = |why: &str, names: &[&str]| (!names.is_empty()).then(|| format!("{why}: {}", names.join(", ")));
        let lines = [
            line("set, but not supported by this version: without effect", &self.unsupported),
            line("set, but without a meaning for this agent: without effect (-check-config says why)", &self.foreign),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// A value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The variable's name.
    pub name: &'static str,
    /// The value; for a secret, only that it is set.
    pub value: String,
    /// Where the value was set, as in [`Problem::place`]; `None`: the value is the default.
    pub place: Option<String>,
}

/// All sources on this machine, read once. They hold secrets, so drop this when loading is done.
#[derive(Debug)]
pub struct Sources {
    environment: Environment,
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
        let is_service = role == Role::Service;
        let named = environment.get("ECS_CONFIG_FILE").filter(|path| !path.is_empty());
        let default = keys::find("ECS_CONFIG_FILE").map_or("", |key| key.default);
        let mut problems = environment.problems();
        let mut files = Vec::new();
        let vendor = (is_service && named.is_none()).then_some(defaults::VENDOR_FILE);
        for path in [Some(named.as_deref().unwrap_or(default)), vendor].into_iter().flatten() {
            let (file, more) = EnvFile::open(Path::new(path), named.is_some(), &environment);
            files.push(if is_service { file.trimmed() } else { file });
            problems.extend(more);
        }
        let service = is_service.then(ServiceDefaults::for_this_host);
        let mut sources = Self { environment, files, document: Document::default(), service, problems };
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
        let mut layers: Vec<&dyn Source> = vec![&self.environment];
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

    /// Loads the configuration, with the text of the user data if there is any.
    pub fn load(&self, user_data: Option<&str>) -> Loaded {
        let mut problems = self.problems.clone();
        let document = user_data.map(|text| {
            let (document, more) = Document::user_data(text);
            problems.extend(more);
            document
        });
        load_from(&self.layers(document.as_ref()), self.service.is_some(), problems)
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
    let mut values = resolve::resolve(sources, &mut problems);
    let unsupported = KEYS.iter().filter(|key| key.stage == Stage::Later && is_set_to_another_value(key, &values));
    let unsupported: Vec<_> = unsupported.map(|key| key.name).collect();
    let foreign = KEYS.iter().filter(|key| key.stage == Stage::Foreign && values.contains_key(key.name));
    let foreign: Vec<_> = foreign.map(|key| key.name).collect();
    rules::apply(&mut values, sources, is_service, &mut problems);
    resolve::unknown_names(sources, &mut problems);
    let effective = KEYS.iter().filter_map(|key| effective(key, values.get(key.name)?)).collect();
    let typed = typed(values, &mut problems);
    let (config, refused) = if problems.iter().any(|problem| problem.fatal) { (None, typed) } else { (typed, None) };
    Loaded { config, refused, problems, unsupported, foreign, effective }
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
            fatal: true,
        });
    }
    config
}

/// The variable has another value than its default: `ECS_ENABLE_TASK_ENI=false` asks for nothing.
fn is_set_to_another_value(key: &'static keys::Key, values: &resolve::Values) -> bool {
    let default = resolve::default_of(key).map(|default| default.canonical);
    values
        .get(key.name)
        .is_some_and(|value| value.class != Class::Defaults && Some(&value.canonical) != default.as_ref())
}

fn effective(key: &keys::Key, value: &resolve::Resolved) -> Option<Effective> {
    let shown = match key.kind {
        kind if kind.is_secret() => "[set, not shown]".to_owned(),
        Kind::Endpoint | Kind::DockerHost => address::redacted(&value.shown).into_owned(),
        _ => address::without_passwords(&value.shown).into_owned(),
    };
    (value.place.is_some() || key.stage == Stage::Now).then(|| Effective {
        name: key.name,
        value: shown,
        place: value.place.clone(),
    })
}

#[cfg(test)]
mod tests;
