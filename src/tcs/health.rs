//! The health of containers (spec `tcs.md` §5).
//!
//! Owns the choice of the containers whose health is reported. Pure.

use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{ContainerName, ContainerStatus, Health, TaskArn, TaskStatus, Timestamp};

/// The health of the containers of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskHealth {
    /// The ARN of the task.
    pub arn: TaskArn,
    /// The family of the task definition.
    pub family: String,
    /// The revision of the task definition.
    pub version: String,
    /// The containers with a health check.
    pub containers: Vec<ContainerHealth>,
}

/// The health of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerHealth {
    /// The name of the container in the task definition.
    pub name: ContainerName,
    /// The last result of its health check.
    pub health: Health,
    /// When the result last changed, by the wall clock; `None`: there is no result yet.
    pub since: Option<Timestamp>,
}

/// The health of all running containers with a health check whose result counts. `wall` gives the wall time of a moment of the
/// view. A task without a family is left out, as in the Go agent.
///
/// The Go agent loses the health of a task's other containers when one of them ends while metrics are disabled; here they stay.
pub fn task_health(view: &View, wall: impl Fn(Timestamp) -> Timestamp) -> Vec<TaskHealth> {
    let runs = |task: &&TaskView| task.known < TaskStatus::Stopped && !task.family.is_empty();
    let tasks = view.tasks.iter().map(AsRef::as_ref).filter(runs).map(|task| TaskHealth {
        arn: task.arn.clone(),
        family: task.family.clone(),
        version: task.version.clone(),
        containers: task
            .containers
            .iter()
            .filter(|container| is_reported(container))
            .map(|c| health(c, &wall))
            .collect(),
    });
    tasks.filter(|task| !task.containers.is_empty()).collect()
}

fn is_reported(container: &ContainerView) -> bool {
    container.has_health_check && container.known == ContainerStatus::Running
}

fn health(container: &ContainerView, wall: &impl Fn(Timestamp) -> Timestamp) -> ContainerHealth {
    ContainerHealth { name: container.name.clone(), health: container.health, since: container.health_since.map(wall) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn container(name: &str, known: ContainerStatus, has_health_check: bool) -> ContainerView {
        ContainerView {
            name: name.into(),
            known,
            has_health_check,
            health: Health::Healthy,
            health_since: Some(Timestamp(5)),
            ..ContainerView::default()
        }
    }

    fn task(arn: &str, known: TaskStatus, containers: Vec<ContainerView>) -> TaskView {
        let (family, version) = ("web".to_owned(), "7".to_owned());
        TaskView { arn: arn.into(), family, version, known, containers, ..TaskView::default() }
    }

    fn reported(tasks: Vec<TaskView>) -> Vec<String> {
        let view = View { tasks: tasks.into_iter().map(Arc::new).collect(), ..View::default() };
        let found = task_health(&view, |at| Timestamp(at.0 + 100));
        let line = |task: &TaskHealth| {
            let containers =
                task.containers.iter().map(|c| format!(" {} {} {:?}", c.name, c.health, c.since.map(|at| at.0)));
            format!("{}{}", task.arn, containers.collect::<String>())
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn only_running_containers_with_a_check_are_reported() {
        let containers = vec![
            container("checked", ContainerStatus::Running, true),
            container("unchecked", ContainerStatus::Running, false),
            container("starting", ContainerStatus::Created, true),
            container("ended", ContainerStatus::Stopped, true),
        ];
        let nameless = TaskView { family: String::new(), ..task("d", TaskStatus::Running, containers.clone()) };
        let tasks = vec![
            task("a", TaskStatus::Created, containers.clone()),
            task("b", TaskStatus::Stopped, containers.clone()),
            task("c", TaskStatus::Running, containers[1..].to_vec()),
            nameless,
        ];
        assert_eq!(reported(tasks), ["a checked HEALTHY Some(105)"]);
    }

    #[test]
    fn a_check_without_a_result_has_no_time() {
        let fresh = ContainerView {
            health: Health::Unknown,
            health_since: None,
            ..container("fresh", ContainerStatus::Running, true)
        };
        assert_eq!(reported(vec![task("a", TaskStatus::Running, vec![fresh])]), ["a fresh UNKNOWN None"]);
        assert_eq!(reported(Vec::new()), Vec::<String>::new());
    }
}
