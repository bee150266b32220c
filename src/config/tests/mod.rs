//! Loading as a whole: sources in, typed configuration and problems out.

mod args;
mod check;
mod cluster;
mod dependent;
mod documents;
mod files;
mod limits;
mod places;
mod secrets;
mod service;
mod traces;
mod typed;

use super::*;
use ecs_core::model::Span;
use std::path::PathBuf;

const MARKER: &str = "hunter2-do-not-show";

const FATAL: Option<Severity> = Some(Severity::Fatal);
const CHANGES: Option<Severity> = Some(Severity::Changes);
const NOTICE: Option<Severity> = Some(Severity::Notice);

/// A file for one test, removed afterwards.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-config-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn load(&self, environment: &[(&str, &str)]) -> Loaded {
        let path = self.0.to_str().unwrap().to_owned();
        let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        load(Environment::new(variables.chain([("ECS_CONFIG_FILE".to_owned(), path)])))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Loads a file alone; in texts its name is `F`.
fn check(lines: &[u8]) -> Loaded {
    let environment = Environment::new([("GIVEN", "given")]);
    let (file, problems) = EnvFile::parse("F", lines, &environment);
    load_from(&[&environment, &file], false, problems)
}

fn from(environment: &[(&str, &str)]) -> Loaded {
    let environment = Environment::new(environment.iter().copied());
    load_from(&[&environment], false, environment.problems())
}

/// Loads with the files that the environment names and no others.
fn load(environment: Environment) -> Loaded {
    Sources::open(environment, Role::Agent).load(None)
}

/// Loads an environment, the text of a JSON file, and the text of user data.
fn layered(environment: &[(&str, &str)], file: &str, user_data: &str) -> Loaded {
    let environment = Environment::new(environment.iter().copied());
    let (file, mut problems) = Document::file("config.json", file);
    let (user_data, more) = Document::user_data(user_data);
    problems.extend(more);
    load_from(&[&environment, &file, &user_data], false, problems)
}

fn config(environment: &[(&str, &str)]) -> Config {
    from(environment).config.expect("not fatal")
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

/// The value of a variable as shown, after the rules about several variables. The variable may be without effect.
fn after_rules(sources: &[&dyn Source], is_service: bool, name: &str) -> String {
    let mut problems = Vec::new();
    let mut values = resolve::resolve(sources, &mut problems);
    rules::apply(&mut values, sources, is_service, &mut problems);
    values[name].shown.clone()
}

/// The value in effect, as text, and the problems, if this one variable is set.
fn effect(name: &str, value: &str) -> (Option<String>, Vec<String>) {
    let environment = Environment::new([(name, value)]);
    // A row that no variable sets is set by a document.
    let (document, mut problems) = match keys::find(name).is_some_and(keys::Key::is_only_json) {
        true => Document::file("config.json", &format!("{{\"{name}\": {value}}}")),
        false => (Document::default(), Vec::new()),
    };
    let values = resolve::resolve(&[&environment, &document], &mut problems);
    (values.get(name).map(|value| value.canonical.clone()), problems.iter().map(ToString::to_string).collect())
}
