//! `host-setup`: makes the firewall's rules for an agent that may not, removes them, or prints them.

use super::{print, print_problem};
use crate::config::{Args, Config, Environment, Sources};
use crate::host::firewall::{self, Firewall, FirewallError};
use crate::host::memory;
use crate::host::program::Programs;
use crate::runtime;
use ecs_core::model::with_causes;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Does what the arguments say, and prints what was done.
pub fn run(args: &Args) -> ExitCode {
    let _best_effort = memory::keep_out_of_core_files();
    let loaded = Sources::open(Environment::from_process(), args.role).load(None);
    let Some(config) = loaded.config.or(loaded.unusable) else {
        return refuse("the configuration cannot be read; `ecs-agent check-config` shows why");
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("no threads can be started: {error}")),
    };
    match runtime.block_on(text(args, &config)) {
        Ok(text) => print(&text),
        Err(error @ FirewallError::NoRight) => refuse(&format!("{error}; run the command as root")),
        Err(error) => refuse(&with_causes(&error)),
    }
}

fn refuse(text: &str) -> ExitCode {
    print_problem(text);
    ExitCode::FAILURE
}

/// Makes or removes the rules, unless they are only to be printed. Returns what was done.
async fn text(args: &Args, config: &Config) -> Result<String, FirewallError> {
    let mut firewall = Firewall::new(Programs::default());
    if args.undo && !args.print {
        firewall.undo().await?;
        return Ok("The rules of the agent are removed.\n".to_owned());
    }
    if args.undo {
        return Ok(firewall::undo_commands().into_iter().map(|line| line + "\n").collect());
    }
    let settings = runtime::firewall_settings(config).await;
    if args.print {
        return Ok(firewall::commands(&settings).into_iter().map(|line| line + "\n").collect());
    }
    let mut text = String::new();
    let checked = firewall.ensure(&settings).await?;
    for part in checked.parts {
        let state = if part.was_missing { "made" } else { "in place" };
        let _ = writeln!(text, "{state:<9} {}: {}", part.name, part.purpose);
    }
    for failure in &checked.failures {
        let _ = writeln!(text, "not made  {}: {}", failure.consequence, with_causes(&failure.error));
    }
    match checked.failures.into_iter().next() {
        None => Ok(text),
        Some(failure) => {
            print(&text);
            Err(failure.error)
        }
    }
}
