//! Finds the task and the container that an id in a URL belongs to.
//!
//! Owns the lookups in the newest [`View`]. Every comparison of an id takes the same time wherever the first difference is, and
//! every lookup compares all ids, so that no id can be guessed from the time of an answer.

use ecs_core::model::CredentialsId;
use ecs_core::model::RoleKind;
use ecs_core::model::view::{ContainerView, TaskView, View};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The tasks that the agent knows, as of the newest [`View`].
#[derive(Clone, Debug)]
pub struct Tasks(watch::Receiver<Arc<View>>);

/// The container that an endpoint id belongs to, and its task.
#[derive(Clone, Debug)]
pub struct FoundContainer {
    /// The task of the container.
    pub task: Arc<TaskView>,
    /// The container's index in the task.
    pub index: usize,
}

/// The role that an id of credentials belongs to, and its task.
#[derive(Clone, Debug)]
pub struct FoundRole {
    /// The task of the role.
    pub task: Arc<TaskView>,
    /// The kind of the role.
    pub kind: RoleKind,
    /// The id of the latest credentials of the role.
    pub current: CredentialsId,
}

impl FoundContainer {
    /// The container.
    pub fn container(&self) -> &ContainerView {
        &self.task.containers[self.index]
    }
}

impl Tasks {
    /// The tasks in the views that `view` receives.
    pub fn new(view: watch::Receiver<Arc<View>>) -> Self {
        Self(view)
    }

    /// Waits until a view fulfils the condition, for at most `limit`. Returns false if none does.
    pub(super) async fn wait_for(&self, limit: Duration, mut is_fulfilled: impl FnMut(&View) -> bool) -> bool {
        let mut views = self.0.clone();
        let found = tokio::time::timeout(limit, views.wait_for(|view| is_fulfilled(view))).await;
        matches!(found, Ok(Ok(_)))
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.borrow())
    }

    /// The container with this endpoint id; `None` if there is none, or if Docker has not created it yet.
    pub fn container(&self, endpoint_id: &str) -> Option<FoundContainer> {
        let (view, mut found) = (self.view(), None);
        for task in &view.tasks {
            for (index, container) in task.containers.iter().enumerate() {
                if container.endpoint_id.as_ref().is_some_and(|id| id.is(endpoint_id)) {
                    found = Some((task, index));
                }
            }
        }
        let (task, index) = found.filter(|(task, index)| task.containers[*index].runtime_id.is_some())?;
        Some(FoundContainer { task: Arc::clone(task), index })
    }

    /// The task with this address on the bridge between the host and its tasks; `None` if there is none.
    pub fn at(&self, address: Ipv4Addr) -> Option<Arc<TaskView>> {
        self.view().tasks.iter().find(|task| task.local_address == Some(address)).map(Arc::clone)
    }

    /// The role whose credentials may be requested with this id; `None` if there is none.
    pub fn role(&self, id: &str) -> Option<FoundRole> {
        let (view, mut found) = (self.view(), None);
        for task in &view.tasks {
            for role in &task.roles {
                for known in role.given.iter().chain([&role.current]) {
                    if known.is(id) {
                        found = Some((task, role));
                    }
                }
            }
        }
        let (task, role) = found?;
        Some(FoundRole { task: Arc::clone(task), kind: role.kind, current: role.current.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::view::RoleView;

    fn tasks() -> Tasks {
        let container = |name: &str, id: &str, runtime_id: Option<&str>| ContainerView {
            name: name.into(),
            endpoint_id: Some(id.into()),
            runtime_id: runtime_id.map(Into::into),
            ..ContainerView::default()
        };
        let task = |arn: &str, roles: &[(RoleKind, &str, &str)], containers| TaskView {
            arn: arn.into(),
            roles: roles
                .iter()
                .map(|(kind, given, current)| RoleView {
                    kind: *kind,
                    given: vec![(*given).into()],
                    current: (*current).into(),
                })
                .collect(),
            containers,
            ..TaskView::default()
        };
        let first = task(
            "first",
            &[(RoleKind::Task, "old", "new"), (RoleKind::Execution, "execution", "execution")],
            vec![container("a", "id-a", Some("docker-a")), container("b", "id-b", None)],
        );
        let second = task("second", &[], vec![container("c", "id-c", Some("docker-c"))]);
        let tasks = [first, second].into_iter().map(Arc::new).collect();
        Tasks::new(watch::channel(Arc::new(View { tasks, ..View::default() })).1)
    }

    #[test]
    fn an_endpoint_id_leads_to_its_container_once_it_exists() {
        let name = |id: &str| tasks().container(id).map(|found| found.container().name.as_str().to_owned());
        assert_eq!((name("id-a").as_deref(), name("id-c").as_deref()), (Some("a"), Some("c")));
        for unknown in ["id-b", "", "id-", "ID-A", "id-a/", "docker-a"] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn both_ids_of_a_role_lead_to_its_latest_credentials() {
        let found = |id: &str| tasks().role(id).map(|found| (found.kind, found.current.as_str().to_owned()));
        assert_eq!(found("old"), Some((RoleKind::Task, "new".to_owned())));
        assert_eq!(found("new"), Some((RoleKind::Task, "new".to_owned())));
        assert_eq!(found("execution"), Some((RoleKind::Execution, "execution".to_owned())));
        assert_eq!((found(""), found("id-a")), (None, None));
    }
}
