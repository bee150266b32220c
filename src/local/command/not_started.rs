//! Says in plain words why containers never started: the container that they waited for. The reasons of the agent are those of the Go
//! agent, which people search for. This module owns the plain words. Invariant: it names only what the task reports.

use crate::{Task, TaskContainer};

/// The container has run: the agent also reports an exit code for a container that it could not start.
pub(super) fn has_run(container: &TaskContainer) -> bool {
    let is_refused = container.reason.as_deref().is_some_and(|reason| reason.starts_with("Cannot"));
    container.exit_code.is_some() && !is_refused
}

/// The lines about the containers that did not start because of another one: each cause once, with all containers that it kept from
/// starting.
pub(super) fn lines(task: &Task) -> Vec<String> {
    let mut causes: Vec<(String, Vec<&str>)> = Vec::new();
    for container in &task.containers {
        let Some(cause) = cause(task, container) else { continue };
        match causes.iter_mut().find(|(other, _)| *other == cause) {
            Some((_, names)) => names.push(&container.name),
            None => causes.push((cause, vec![&container.name])),
        }
    }
    let line = |(cause, names): (String, Vec<&str>)| format!("{} did not start: {cause}", names.join(" and "));
    causes.into_iter().map(line).collect()
}

/// Why a container did not start: what happened to the first container of the chain that it waited for. `None`: it waited for none.
pub(super) fn cause(task: &Task, container: &TaskContainer) -> Option<String> {
    let (mut found, mut current) = (None, container);
    // Containers wait for each other in no circle, but a report may show one.
    for _ in 0..task.containers.len() {
        let Some((why, waited)) = reason(task, current) else { break };
        found = Some(why);
        match waited {
            Some(waited) => current = waited,
            None => break,
        }
    }
    found
}

/// The reason in plain words, and the container that was waited for if it did not start either.
fn reason<'t>(task: &'t Task, container: &TaskContainer) -> Option<(String, Option<&'t TaskContainer>)> {
    let reason = container.reason.as_deref().filter(|_| !has_run(container))?;
    // As in `container ordering dependency [init(image) (STOPPED->STOPPED) - Exit: 9] for target [...] as dependency did not ...`.
    let (_, rest) = reason.split_once("ordering dependency [")?;
    let name = rest.split(['(', ']']).next()?;
    let waited = task.containers.iter().find(|other| other.name == name);
    let code = waited.filter(|waited| has_run(waited)).and_then(|waited| waited.exit_code);
    Some(match code {
        _ if reason.contains("has timed out") => (format!("{name} was not ready in time (its `startTimeout`)"), None),
        Some(code) => (format!("{name} ended with exit code {code}"), None),
        None => (format!("{name} did not start"), waited),
    })
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
        assert_eq!(lines(&chain), ["app and side did not start: init ended with exit code 9"], "the cause once");
        chain.containers[1].reason = reason("init", "has timed out.");
        assert!(lines(&chain)[0].ends_with("init was not ready in time (its `startTimeout`)"));
        chain.containers[1].reason = reason("app", "because dependency will never start");
        assert_eq!(lines(&chain).len(), 2, "a circle ends");
        chain.containers[0].reason = Some("CannotPullContainerError: no such host".to_owned());
        chain.containers[1].reason = None;
        assert!(lines(&chain).is_empty());
    }
}
