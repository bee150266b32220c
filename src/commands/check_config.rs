//! `check-config`: loads the configuration as a start would, and prints what is wrong and what is in effect.
//!
//! It reads files and the environment, but asks no service. Which problems count is a rule of [`crate::config::Severity`].

use super::print;
use crate::config::{Args, Environment, Loaded, Problem, Role, STANDARD_INPUT, Sources, report};
use crate::host::memory;
use crate::runtime;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit code if something changes what the agent does.
const FOUND: u8 = 2;

/// Checks each file of the command line, or those of a start, and prints one report for each.
pub fn run(args: &Args) -> ExitCode {
    let _best_effort = memory::keep_out_of_core_files();
    let (input, input_name) = STANDARD_INPUT;
    let files: Vec<Option<&str>> = match args.files.as_slice() {
        [] => vec![None],
        files => files.iter().map(|file| Some(if file == "-" { input } else { file.as_str() })).collect(),
    };
    let named =
        |file: Option<&'_ str>| file.map(|file| if file == input { input_name.to_owned() } else { file.to_owned() });
    let checks: Vec<(Option<String>, Loaded)> =
        files.into_iter().map(|file| (named(file), check(args, file))).collect();
    let is_found = |loaded: &Loaded| loaded.severity().is_some_and(|severity| severity.counts(args.strict));
    let is_ok = !checks.iter().any(|(_, loaded)| is_found(loaded));
    if args.json {
        let checks = Value::from_iter(checks.iter().map(|(file, loaded)| report::json(file.as_deref(), loaded)));
        print(&format!("{:#}\n", json!({"version": 1, "ok": is_ok, "checks": checks})));
    } else {
        let texts = checks.iter().map(|(file, loaded)| match file {
            Some(file) => format!("{file}:\n{}", report::text(loaded, args.all)),
            None => report::text(loaded, args.all),
        });
        let which = match args.role {
            Role::Agent => {
                "Checked for an agent in a container. For the systemd unit, which has other defaults, add -service.\n"
            }
            Role::Service if args.files.is_empty() => {
                "Variables of this shell do not count: the unit does not have them. `systemctl show -p Environment ecs` shows its own, \
                 which take precedence over the files.\n"
            }
            Role::Service => "",
        };
        print(&format!("{}{which}", texts.collect::<Vec<_>>().join("\n")));
    }
    if is_ok { ExitCode::SUCCESS } else { ExitCode::from(FOUND) }
}

/// Loads the configuration, with the problems that a start would find later.
fn check(args: &Args, file: Option<&str>) -> Loaded {
    let mut loaded = Sources::open_to_check(Environment::from_process(), args.role, file).load(None);
    let place = |name: &str| loaded.effective.iter().find(|value| value.name == name)?.place.clone();
    let mut more = args.notes.clone();
    if let Some(config) = loaded.config.as_ref().or(loaded.unusable.as_ref()) {
        for mut problem in runtime::registry_problems(config) {
            problem.place = place(&problem.variable).unwrap_or_default();
            // The value may be known to be unreadable.
            let is_known = |known: &Problem| known.variable == problem.variable && known.place == problem.place;
            if !loaded.problems.iter().any(is_known) {
                more.push(problem);
            }
        }
    }
    loaded.problems.extend(more);
    loaded
}
