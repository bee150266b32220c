//! Finds out whether this host has what network faults need (spec `task-metadata.md` §9, the capability).
//!
//! Unlike the Go agent, which looks for the programs, this also checks that the agent may use them: under a service manager it
//! may lack the right to change rules.

use super::command::{CommandLine, Runner};
use super::interfaces;
use crate::host::program::{Call, Programs};
use std::path::Path;
use std::time::Duration;

/// Time limit for each program. They run at the same time, and the start of the agent waits for them.
const LIMIT: Duration = Duration::from_secs(4);
/// Exists if the kernel module is loaded.
const LOADED: &str = "/sys/module/sch_netem";

/// Why network faults do not work on this host; `None`: they do.
pub async fn obstacle(programs: &Programs, runner: Runner) -> Option<String> {
    let interfaces = match interfaces::defaults() {
        Ok(interfaces) => interfaces,
        Err(error) => return Some(format!("the default route cannot be read: {error}")),
    };
    let Some(interface) = interfaces.names.first() else { return Some("this host has no default route".to_owned()) };
    let (rules, namespace) = (["iptables", "-w", "1", "-S", "OUTPUT"], ["nsenter", "--version"]);
    let shape = ["tc", "-j", "q", "show", "dev", interface, "parent", "1:1"];
    let found: [Option<String>; 4] = tokio::join!(
        failure(programs, CommandLine::new(rules).by(runner, LIMIT)),
        failure(programs, CommandLine::new(shape).by(runner, LIMIT)),
        failure(programs, CommandLine::new(namespace)),
        module(programs),
    )
    .into();
    found.into_iter().flatten().next()
}

/// The kernel module that delays and drops packets is loaded, or can be.
async fn module(programs: &Programs) -> Option<String> {
    if Path::new(LOADED).exists() {
        return None;
    }
    failure(programs, CommandLine::new(["modinfo", "sch_netem"])).await
}

/// Why the program does not succeed; `None`: it does.
async fn failure(programs: &Programs, line: CommandLine) -> Option<String> {
    let (program, arguments) = (line.program(), line.arguments());
    match programs.run(&Call { program, arguments: &arguments, input: "", limit: LIMIT }).await {
        Ok(outcome) if outcome.is_success() => None,
        Ok(outcome) => Some(format!("{line}: {}", outcome.failure())),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_the_programs_says_which_is_missing() {
        let directory = std::env::temp_dir().join(format!("ecs-probe-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let programs = Programs::in_directories(&directory.to_string_lossy());
        let mut reasons = Vec::new();
        for program in ["iptables", "tc", "nsenter", "modinfo"] {
            reasons.push(obstacle(&programs, Runner::Agent).await.unwrap_or_default());
            ecs_testing::program::write(directory.join(program), "#!/bin/true\n");
        }
        let wanted = ["iptables is not installed", "tc is not installed", "nsenter is not installed", "modinfo is not"];
        // On a host without a default route, nothing further is asked.
        let has_route = interfaces::defaults().is_ok_and(|found| !found.names.is_empty());
        for (reason, wanted) in reasons.iter().zip(wanted).filter(|_| has_route) {
            let is_loaded = wanted.starts_with("modinfo") && Path::new(LOADED).exists();
            assert!(reason.starts_with(wanted) || is_loaded, "{reason}");
        }
        assert_eq!(obstacle(&programs, Runner::Agent).await.is_some(), !has_route);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
