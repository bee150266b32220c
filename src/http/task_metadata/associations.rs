//! The JSON shape of a container's associations (spec `task-metadata.md` §5).

use ecs_core::model::task::Association;
use ecs_core::model::view::{ContainerView, TaskView};
use serde::Serialize;

/// `{"Associations":["name",…]}`; `null` instead of the list if the container has none of this type.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Associations<'a> {
    associations: Option<Vec<&'a str>>,
}

impl<'a> Associations<'a> {
    /// The names of the container's associations of this type.
    pub(super) fn new(task: &'a TaskView, container: &ContainerView, kind: &str) -> Self {
        let is_used =
            |association: &&Association| association.kind == kind && association.containers.contains(&container.name);
        let names: Vec<_> = task.associations.iter().filter(is_used).map(|found| found.name.as_str()).collect();
        Self { associations: (!names.is_empty()).then_some(names) }
    }
}

/// What the containers of a task learn about one association: the text of ECS as it is. Compat: every container of the task may
/// ask, not only those that use the association.
pub(super) fn content<'a>(task: &'a TaskView, kind: &str, name: &str) -> Option<&'a str> {
    let mut all = task.associations.iter();
    all.find(|association| association.kind == kind && association.name == name).map(|found| found.content.as_str())
}
