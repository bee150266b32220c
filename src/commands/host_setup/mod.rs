//! `host-setup`: makes what the agent needs of this host and may not make itself, takes it back, or prints it.
//!
//! The unit runs it with all rights before the agent starts, after it has stopped, and every minute, so that the agent needs none
//! (`-service`). A person runs it for an agent in a container. What it does is on the page `systemd/host.md`. Each run leaves a record,
//! by which the agent knows that the rules are kept ([`setup_record`]). Reading order: this file, `making`, `removing`, `report`.

mod making;
mod removing;
mod report;

use super::{print, print_problem};
use crate::config::{Args, Config, Environment, Sources};
use crate::host::firewall::{Firewall, FirewallError};
use crate::host::program::Programs;
use crate::host::{apparmor, ebs_directory, memory};
use crate::runtime;
use ecs_core::model::{Bridges, with_causes};
use report::{Report, is_service};
use std::process::ExitCode;

#[cfg(doc)]
use crate::host::setup_record;

/// Does what the arguments say, and prints what was done.
pub fn run(args: &Args) -> ExitCode {
    let _best_effort = memory::keep_out_of_core_files();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("no threads can be started: {error}")),
    };
    let report = match (args.undo, args.print) {
        (true, true) => runtime.block_on(undo_commands(args)),
        (true, false) => runtime.block_on(removing::remove(args)),
        (false, is_print) => {
            let Some(config) = config(args) else {
                refuse("the configuration cannot be read; `ecs-agent check-config` shows why");
                // The unit goes on to the agent, which says the same at its place, with the exit code for it.
                return if is_service(args) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            };
            match is_print {
                true => runtime.block_on(commands(args, &config)),
                false => runtime.block_on(making::make(args, &config)),
            }
        }
    };
    match report {
        Ok(report) => finish(args, &report),
        Err(error @ FirewallError::NoRight) => refuse(&format!("{error}; run the command as root")),
        Err(error) => refuse(&with_causes(&error)),
    }
}

/// An agent without the rules is better than none: with `-service`, what could not be made is in the journal, in the record and in
/// the agent's metrics, and does not keep the agent from starting.
fn finish(args: &Args, report: &Report) -> ExitCode {
    print(&report.text);
    let problems = || report.errors.iter().chain(&report.remarks);
    problems().filter(|_| !report.is_known).for_each(|problem| print_problem(problem));
    if problems().next().is_none() || (is_service(args) && !args.undo) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refuse(text: &str) -> ExitCode {
    print_problem(text);
    ExitCode::FAILURE
}

fn config(args: &Args) -> Option<Config> {
    let loaded = Sources::open(Environment::from_process(), args.role).load(None);
    loaded.config.or(loaded.unusable)
}

/// What would be made, as commands.
async fn commands(args: &Args, config: &Config) -> Result<Report, FirewallError> {
    let settings = runtime::firewall_settings(config, Bridges::default()).await;
    let mut lines = Firewall::new(Programs::default()).commands_here(&settings).await?;
    lines.extend(is_service(args).then(ebs_directory::command));
    if args.apparmor {
        let (profile, name) = (apparmor::PROFILE, apparmor::NAME);
        lines.push(format!(
            "cat >/etc/apparmor.d/{name} <<'END'\n{profile}END\napparmor_parser -Kr /etc/apparmor.d/{name}"
        ));
    }
    Ok(Report { text: lines.join("\n") + "\n", ..Report::default() })
}

/// What would take it back, as commands.
async fn undo_commands(args: &Args) -> Result<Report, FirewallError> {
    let mut lines = Firewall::new(Programs::default()).undo_commands_here().await?;
    lines.extend(is_service(args).then(ebs_directory::undo_command));
    if args.apparmor {
        let name = apparmor::NAME;
        lines.push(format!("apparmor_parser -R /etc/apparmor.d/{name} && rm /etc/apparmor.d/{name}"));
    }
    Ok(Report { text: lines.join("\n") + "\n", ..Report::default() })
}
