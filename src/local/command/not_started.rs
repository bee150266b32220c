//! Says in plain words why containers never started: the container that they waited for. The reasons of the agent are those of the Go
//! agent, which people search for. This module owns the plain words. Invariant: it names only what the task reports.

use super::exit_code::has_run;
use crate::{Task, TaskContainer};

/// A line for each container that did not start because of another one.
pub(super) fn lines(task: &Task) -> Vec<String> {
    task.containers.iter().filter_map(|container| line(task, container)).collect()
}

fn line(task: &Task, container: &TaskContainer) -> Option<String> {
    let reason = container.reason.as_deref().filter(|_| !has_run(container))?;
    // As in `container ordering dependency [init(image) (STOPPED->STOPPED) - Exit: 9] for target [...] as dependency did not ...`.
    let (_, rest) = reason.split_once("ordering dependency [")?;
    let name = rest.split(['(', ']']).next()?;
    let waited = task.containers.iter().find(|other| other.name == name);
    let code = waited.filter(|waited| has_run(waited)).and_then(|waited| waited.exit_code);
    let why = match code {
        _ if reason.contains("has timed out") => format!("{name} was not ready in time (its `startTimeout`)"),
        Some(code) => format!("{name} ended with exit code {code}"),
        None => format!("{name} did not start"),
    };
    Some(format!("{} did not start: {why}", container.name))
}

#[cfg(test)]
mod tests {
    use super::super::exit_code::tests::task;
    use super::*;

    #[test]
    fn the_container_that_others_waited_for_is_named() {
        let mut chain = task(&[("app", true, Some(143)), ("side", false, Some(143)), ("init", false, Some(9))]);
        let reason = |name: &str, why: &str| {
            Some(format!(
                "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [{name}(i) (STOPPED->STOPPED)] \
                 for target [app(i) (NONE->STOPPED)] {why}"
            ))
        };
        chain.containers[0].reason = reason("side", "because dependency will never start");
        chain.containers[1].reason = reason("init", "as dependency did not exit successfully.");
        let wanted = ["app did not start: side did not start", "side did not start: init ended with exit code 9"];
        assert_eq!(lines(&chain), wanted);
        chain.containers[1].reason = reason("init", "has timed out.");
        assert!(lines(&chain)[1].ends_with("init was not ready in time (its `startTimeout`)"));
        chain.containers[0].reason = Some("CannotPullContainerError: no such host".to_owned());
        chain.containers[1].reason = None;
        assert!(lines(&chain).is_empty());
    }
}
