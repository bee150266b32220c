//! When the metadata file of a container is completed: once the container has been seen running (spec
//! `container-metadata-file.md` §3).
//!
//! The first form of the file is written with the create of the container. All files of a task are removed when its clean-up
//! begins. Nothing waits for the complete form, and its outcome is not recorded: after a restart of the agent it is requested again for
//! every running container, and a file that is complete already stays as it is. So a kill at any moment leaves no file
//! incomplete for good. (The Go agent records that a file is complete.)

use super::effect::Effect;
use super::planning::Planning;
use super::state::{Container, TaskState};
use crate::model::metadata_file::{MetadataFile, RunningContainer};
use crate::model::{RunState, TaskInfo};

/// Requests the complete metadata file of each container that runs and needs it.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    let TaskState { spec, containers, .. } = task;
    for container in containers {
        let is_due = container.spec.metadata_file.is_some() && container.state.observed == Some(RunState::Running);
        if is_due && !std::mem::replace(&mut container.state.live.metadata_written, true) {
            planning.out.effects.extend(complete(spec, container).map(Box::new).map(Effect::WriteMetadata));
        }
    }
}

/// Requests the removal of the task's metadata files, if it has any. The caller does this once in each process, when the clean-up
/// of the task begins: the removal of its containers takes longer, so the task is not forgotten before.
pub(super) fn remove(task: &TaskState, planning: &mut Planning<'_>) {
    if task.specs().any(|spec| spec.metadata_file.is_some()) {
        planning.out.effects.push(Effect::RemoveMetadata(task.spec.arn.clone()));
    }
}

/// The complete file; `None` if Docker's id of the container is not known.
fn complete(task: &TaskInfo, Container { spec, state }: &Container) -> Option<MetadataFile> {
    let running = RunningContainer {
        runtime_id: state.runtime_id.clone()?,
        runtime_name: task.runtime_name(&spec.name),
        image: spec.image.clone(),
        image_id: state.image_id.clone(),
        bindings: state.bindings.clone(),
        networks: state.networks.clone(),
    };
    Some(MetadataFile {
        task: task.arn.clone(),
        family: task.family.clone(),
        version: task.version.clone(),
        container: spec.name.clone(),
        running: Some(running),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::MetadataMount;
    use crate::model::{ContainerStatus, Observation, TaskSpec, TaskStatus};
    use crate::policy::Policy;
    use crate::sample::{NOW, container, run, seen, spec, state};
    use crate::{Event, State, recover, step};

    fn with_file() -> TaskSpec {
        let mut web = container("web", &[]);
        web.metadata_file = Some(MetadataMount { source: "/data/web".to_owned(), target: "/opt/x".to_owned() });
        spec("task", vec![web, container("side", &[])])
    }

    fn written(state: &mut State, event: Event) -> Vec<MetadataFile> {
        let effects = step(state, NOW, event).effects.into_iter();
        let files = effects.filter_map(|effect| match effect {
            Effect::WriteMetadata(file) => Some(*file),
            _ => None,
        });
        files.collect()
    }

    fn observed(container: &str, run_state: RunState) -> Event {
        let image_id = "sha256:1".to_owned();
        Event::Observed(Box::new(Observation { image_id, ..seen("task", container, container, run_state) }))
    }

    #[test]
    fn a_file_is_completed_once_when_its_container_runs() {
        let mut state = state(Policy::default());
        step(&mut state, NOW, run(with_file()));
        assert!(written(&mut state, observed("web", RunState::Created)).is_empty());
        assert!(written(&mut state, observed("side", RunState::Running)).is_empty(), "it has no file");
        let files = written(&mut state, observed("web", RunState::Running));
        let [MetadataFile { container, running: Some(running), .. }] = &files[..] else { panic!("{files:?}") };
        assert_eq!((container.as_str(), running.runtime_id.as_str()), ("web", "web"));
        assert_eq!((running.image.as_str(), running.image_id.as_str()), ("image@sha256:1", "sha256:1"));
        assert!(written(&mut state, observed("web", RunState::Running)).is_empty());
    }

    #[test]
    fn the_files_go_once_when_the_clean_up_begins() {
        let mut state = state(Policy::default());
        let mut task = crate::sample::task(with_file().containers);
        (task.known, task.sent, task.desired) = (TaskStatus::Stopped, TaskStatus::Stopped, TaskStatus::Stopped);
        task.states_mut().for_each(|container| {
            (container.known, container.sent) = (ContainerStatus::Stopped, ContainerStatus::Stopped);
            (container.create_asked, container.observed) = (true, Some(RunState::Exited));
        });
        (task.known_at, task.live.wake, state.wakes_from) = (NOW, Some(NOW), NOW);
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        let mut removals = |now| {
            let effects = step(&mut state, now, Event::Tick).effects.into_iter();
            effects.filter(|effect| *effect == Effect::RemoveMetadata("task".into())).count()
        };
        let due = NOW + Policy::default().cleanup_wait + Policy::default().cleanup_jitter;
        assert_eq!((removals(NOW), removals(due), removals(due)), (0, 1, 0));
    }

    #[test]
    fn after_a_restart_of_the_agent_the_file_is_completed_again() {
        let mut before = state(Policy::default());
        step(&mut before, NOW, run(with_file()));
        written(&mut before, observed("web", RunState::Running));
        let tasks = before.tasks.into_values().map(|mut task| {
            task.live = Default::default();
            task.states_mut().for_each(|container| container.live = Default::default());
            *task
        });
        let mut after = recover(Policy::default(), before.host, tasks);
        assert_eq!(written(&mut after, Event::Tick).len(), 1);
        assert!(written(&mut after, observed("web", RunState::Running)).is_empty());
    }
}
