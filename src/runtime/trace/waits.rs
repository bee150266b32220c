//! Logs what tasks and containers begin to wait for, other than for an operation of their own, which has lines of its own.

use ecs_core::model::view::View;
use ecs_core::model::waiting::{Blocker, Waiting};
use ecs_core::model::{RoleKind, TaskArn};

/// Logs the waits in `next` that `last` does not have.
pub(super) fn log(last: &View, next: &View) {
    for (task, wait) in begun(last, next) {
        let (task, container) = (task.task_id(), wait.container.as_ref().map(|name| name.as_str()));
        let reason = format!("waits for {}", wait.blocker);
        match &wait.blocker {
            Blocker::Credentials(RoleKind::Execution, _) => {
                tracing::info!(task, container, "Waiting for execution role credentials to arrive from ACS");
            }
            Blocker::Credentials(RoleKind::Task, _) => {
                tracing::info!(task, container, "Waiting for task role credentials to arrive from ACS");
            }
            Blocker::HostResources(_) => tracing::info!(task, reason, "The task waits to be admitted"),
            Blocker::Interface(..) => tracing::info!(task, container, reason, "The task waits for its interface"),
            // The disk may be full, or just be looked at.
            Blocker::DiskSpace | Blocker::Containers(..) | Blocker::ImageRemoval(_) | Blocker::Inventory => {
                tracing::debug!(
                    task,
                    container,
                    reason,
                    "Can't apply state to container yet due to unresolved dependencies"
                );
            }
            Blocker::Digest(..)
            | Blocker::Pull(..)
            | Blocker::Resource(..)
            | Blocker::Docker(..)
            | Blocker::Network(..)
            | Blocker::NetworkDelay(_)
            | Blocker::NextTry(_) => {}
        }
    }
}

/// The waits in `next` for which `last` has none of the same kind.
fn begun<'a>(last: &'a View, next: &'a View) -> impl Iterator<Item = (&'a TaskArn, &'a Waiting)> {
    next.tasks.iter().flat_map(|task| {
        let at = last.tasks.binary_search_by(|known| known.arn.cmp(&task.arn)).ok();
        let known: &[Waiting] = at.and_then(|at| last.tasks.get(at)).map_or(&[], |known| &known.waits);
        let is_new = |wait: &&Waiting| !known.iter().any(|known| is_same(known, wait));
        task.waits.iter().filter(is_new).map(|wait| (&task.arn, wait)).collect::<Vec<_>>()
    })
}

/// Amounts and statuses in a wait may change; it is still the same wait.
fn is_same(known: &Waiting, other: &Waiting) -> bool {
    known.container == other.container && known.blocker.kind() == other.blocker.kind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::Timestamp;
    use ecs_core::model::view::TaskView;
    use std::sync::Arc;

    fn view(waits: &[(&str, Blocker)]) -> View {
        let wait = |(container, blocker): &(&str, Blocker)| Waiting {
            container: Some((*container).into()),
            blocker: blocker.clone(),
            since: Timestamp(0),
        };
        let task = TaskView {
            arn: "arn:task/1".into(),
            desired: ecs_core::model::TaskStatus::Running,
            waits: waits.iter().map(wait).collect(),
            ..TaskView::default()
        };
        View { tasks: vec![Arc::new(task)], ..View::default() }
    }

    #[test]
    fn a_wait_is_logged_when_it_begins_and_not_when_it_changes() {
        let kinds = |last: &View, next: &View| -> Vec<&'static str> {
            begun(last, next).map(|(_, wait)| wait.blocker.kind()).collect()
        };
        let empty = View::default();
        let first = view(&[("app", Blocker::Inventory), ("app", Blocker::HostResources(Vec::new()))]);
        assert_eq!(kinds(&empty, &first), ["inventory", "host-resources"]);
        let shortage = ecs_core::model::waiting::Shortage {
            what: "GPUs",
            wanted: "1".to_owned(),
            free: "0".to_owned(),
            held_by: Vec::new(),
        };
        let changed = view(&[("app", Blocker::HostResources(vec![shortage])), ("web", Blocker::Inventory)]);
        assert_eq!(kinds(&first, &changed), ["inventory"], "another container");
        assert_eq!(kinds(&changed, &empty), [""; 0]);
    }
}
