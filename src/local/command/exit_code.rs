//! The exit code of `up`: which container of a task has ended it. Invariant: a container that could not start has no exit code,
//! whatever the agent reports.

use super::containers::Ends;
use super::not_started::{self, has_run};
use crate::{Task, TaskContainer};

/// The exit code of the container that ended the task: of the essential ones, the first that ended for good. If one could not
/// start because a container before it failed, that one has ended the task. `ends` says when each ended.
pub(super) fn exit_code(task: &Task, ends: &Ends) -> Result<u8, String> {
    let first = |is_essential: bool| {
        let ended =
            task.containers.iter().filter(|container| container.essential == is_essential && has_run(container));
        let coded = ended.filter_map(|container| Some((container.name.as_str(), container.exit_code?)));
        let failed = coded.filter(|(_, code)| is_essential || *code != 0);
        failed.min_by_key(|(name, code)| (ends.get(*name).copied().unwrap_or(u64::MAX), -code)).map(|(_, code)| code)
    };
    let refused = task.containers.iter().find(|c| c.essential && !has_run(c) && c.reason.is_some());
    let reason = refused.and_then(|container| container.reason.as_deref());
    let code = match reason {
        Some(reason) if reason.contains("dependency") => first(false),
        Some(_) => None,
        None => first(true).or_else(|| first(false)),
    };
    // A container that waited for another one names the one that could not start.
    let is_waiting =
        |container: &&TaskContainer| container.reason.as_deref().is_some_and(|reason| reason.contains("dependency"));
    let first_cause = || task.containers.iter().find(|c| c.reason.is_some() && !has_run(c) && !is_waiting(c));
    let cause = refused.map(|refused| first_cause().filter(|_| is_waiting(&refused)).unwrap_or(refused));
    let reason = cause.and_then(|container| container.reason.as_deref());
    match (code, cause) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(255)),
        (None, Some(container)) => Err(match not_started::cause(task, container) {
            Some(cause) => format!("{} did not start: {cause}", container.name),
            None => format!("container {}: {}", container.name, reason.unwrap_or_default()),
        }),
        (None, None) => {
            let reason = task.stopped_reason.as_deref().unwrap_or("no reason was given");
            Err(format!("no essential container of the task ran: {reason}"))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::payload::scripted_task;
    use crate::site::Site;
    use serde_json::{Value, json};

    /// A task with these containers: name, whether it is essential, exit code.
    pub(in crate::command) fn task(containers: &[(&str, bool, Option<i64>)]) -> Task {
        let list: Vec<Value> = containers
            .iter()
            .map(|(name, essential, _)| json!({"name": name, "image": "i", "essential": essential}))
            .collect();
        let mut task = scripted_task(&Site::example(), "c", "i", json!({"containers": list}), 1.0);
        for (container, (_, _, code)) in task.containers.iter_mut().zip(containers) {
            container.exit_code = *code;
        }
        task
    }

    #[test]
    fn the_code_is_that_of_the_container_that_ended_the_task() {
        let ends = |order: &[&str]| order.iter().zip(1..).map(|(name, at)| ((*name).to_owned(), at)).collect::<Ends>();
        let two = task(&[("a", true, Some(0)), ("b", true, Some(137)), ("side", false, Some(9))]);
        assert_eq!(exit_code(&two, &ends(&["side", "a", "b"])), Ok(0), "b was stopped because a had ended");
        assert_eq!(exit_code(&two, &ends(&["b", "a"])), Ok(137));
        assert_eq!(exit_code(&two, &Ends::new()), Ok(137), "it is not known: the larger one");
        let first = task(&[("a", true, None), ("init", false, Some(3))]);
        assert_eq!(exit_code(&first, &ends(&["init"])), Ok(3), "a waited for init");
        let mut waiting = task(&[("a", true, Some(143)), ("b", true, Some(0)), ("init", false, Some(3))]);
        waiting.containers[0].reason =
            Some("CannotStartContainerError: ... dependency did not exit successfully".to_owned());
        assert_eq!(exit_code(&waiting, &ends(&["init", "b"])), Ok(3), "a was never started");
        let mut broken = task(&[("a", true, None), ("b", true, Some(0))]);
        broken.containers[0].reason = Some("CannotPullContainerError".to_owned());
        assert!(exit_code(&broken, &ends(&["b"])).unwrap_err().contains("container a: CannotPull"));
        broken.containers.insert(0, task(&[("side", false, None)]).containers.remove(0));
        broken.containers[0].reason = Some("CannotStartContainerError: unrelated".to_owned());
        assert!(exit_code(&broken, &ends(&["b"])).unwrap_err().contains("container a: CannotPull"));
        let mut chained = task(&[("a", true, None), ("init", false, None)]);
        chained.containers[0].reason =
            Some("CannotStartContainerError: ... because dependency will never start".to_owned());
        chained.containers[1].reason = Some("CannotStartContainerError: exec: not found".to_owned());
        let cause = exit_code(&chained, &Ends::new()).unwrap_err();
        assert_eq!(cause, "container init: CannotStartContainerError: exec: not found");
        chained.containers[0].reason = Some(
            "CannotStartContainerError: dependency graph: container ordering dependency [init(i) (CREATED->RUNNING)] for target [a(i)] has \
             timed out."
                .to_owned(),
        );
        chained.containers[1].reason = None;
        let cause = exit_code(&chained, &Ends::new()).unwrap_err();
        assert_eq!(cause, "a did not start: init was not ready in time (its `startTimeout`)");
        let none = exit_code(&task(&[("a", true, None), ("init", false, Some(0))]), &Ends::new()).unwrap_err();
        assert!(none.starts_with("no essential container of the task ran: "), "{none}");
        assert_eq!(exit_code(&task(&[("a", true, Some(-1))]), &Ends::new()), Ok(255));
    }
}
