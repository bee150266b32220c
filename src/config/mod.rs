//! Configuration: one table of everything an operator can set, read once, typed and immutable afterwards.
//!
//! ```text
//! sources (environment, ecs.config) ── resolve ── kind: text -> canonical ── rules ── envy ──> Config
//!                                         └─ keys: the table ─┘         └── problems, all at once
//! ```
//!
//! Reading order: [`keys`] (the table), [`kind`] (what a value may look like), [`source`] (where values come from), `resolve`
//! (precedence), `rules` (variables that depend on each other), [`settings`] (the result), [`help`] (the table for people), [`args`].
//! A further source (JSON file, user data) is one more [`Source`] in the slice given to [`load_from`].
//! Invariant: no other module reads the environment, and no [`Problem`] holds a value.

pub mod args;
mod duration;
pub mod help;
pub mod keys;
pub mod kind;
pub mod problem;
mod resolve;
mod rules;
pub mod settings;
pub mod source;

pub use args::{Action, Args};
pub use problem::Problem;
pub use rules::region_missing;
pub use settings::{Config, ImagePullBehavior, LogFormat, LogLevel, PortRange, ProxySettings, TagSource};
pub use source::{EnvFile, Environment, Source};

use keys::{KEYS, Stage};
use std::path::Path;

/// What loading gave.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` when a problem is fatal (exit code 1).
    pub config: Option<Config>,
    /// Everything there is to tell, in the table's order.
    pub problems: Vec<Problem>,
    /// Variables that were set to ask for something not built yet.
    pub unbuilt: Vec<&'static str>,
    /// The value in effect of each variable, for people.
    pub effective: Vec<Effective>,
}

/// One value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The variable.
    pub name: &'static str,
    /// Its value; a secret is only said to be there.
    pub value: String,
    /// Where it was set; `None`: the default.
    pub place: Option<String>,
}

/// Loads from an environment and from the file it names in `ECS_CONFIG_FILE`, by default `/etc/ecs/ecs.config`.
pub fn load(environment: &Environment) -> Loaded {
    let named = environment.get("ECS_CONFIG_FILE").filter(|path| !path.is_empty());
    let default = keys::find("ECS_CONFIG_FILE").map_or("", |key| key.default);
    let path = named.as_deref().unwrap_or(default);
    let (file, mut problems) = EnvFile::open(Path::new(path), named.is_some(), environment);
    problems.splice(0..0, environment.problems());
    load_from(&[environment, &file], problems)
}

/// Loads from sources, the highest first and the process environment at the top. `problems` are those of reading the sources.
pub fn load_from(sources: &[&dyn Source], mut problems: Vec<Problem>) -> Loaded {
    let mut values = resolve::resolve(sources, &mut problems);
    rules::apply(&mut values, sources, &mut problems);
    resolve::unknown_names(sources, &mut problems);

    let unbuilt = KEYS.iter().filter(|key| key.stage == Stage::Later && asks_for_something(key, &values));
    let unbuilt = unbuilt.map(|key| key.name).collect();
    let effective = KEYS.iter().filter_map(|key| effective(key, values.get(key.name)?)).collect();
    let config = typed(values, &mut problems).filter(|_| !problems.iter().any(|problem| problem.fatal));
    Loaded { config, problems, unbuilt, effective }
}

/// The typed configuration. The table and `Config` agree (tested), so `envy` has nothing to refuse; its error text could hold a
/// value and is not passed on.
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

/// Set, and to something else than the default: `ECS_ENABLE_TASK_ENI=false` asks for nothing.
fn asks_for_something(key: &'static keys::Key, values: &resolve::Values) -> bool {
    let default = resolve::default_of(key).map(|default| default.canonical);
    values.get(key.name).is_some_and(|value| value.place.is_some() && Some(&value.canonical) != default.as_ref())
}

fn effective(key: &keys::Key, value: &resolve::Resolved) -> Option<Effective> {
    let shown = if key.kind.is_secret() { "[set, not shown]".to_owned() } else { value.shown.clone() };
    (value.place.is_some() || key.stage == Stage::Now).then(|| Effective {
        name: key.name,
        value: shown,
        place: value.place.clone(),
    })
}

#[cfg(test)]
mod tests;
