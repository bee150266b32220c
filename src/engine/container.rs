//! The next thing to do for one container.

use super::dependency::{self, NEVER_STARTED_EXIT_CODE, Readiness};
use super::effect::{Effect, ImageRequest};
use super::image;
use super::plan::Planning;
use super::policy::PullBehavior;
use super::resource;
use super::restart;
use super::state::{OperationKind, Retry, State, TaskState};
use crate::model::task::{ContainerKind, RegistryAuth};
use crate::model::{ContainerStatus, CreateRequest, ResourceKind, RunState};

/// Takes one container one step further, if it can go; true if facts of the task may follow from it.
///
/// At most one operation is in flight for a container. While its state is in doubt it is looked at, and nothing else is done.
pub(super) fn advance(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    if task.wants_stop(index) && !std::mem::replace(&mut task.containers[index].stopping, true) {
        task.containers[index].retry = Retry::default(); // these were failures to get it going
    }
    if let Some(operation) = task.containers[index].operation {
        if !(operation.kind.is_image_work() && task.wants_stop(index)) {
            return false;
        }
        planning.cancel(task, index);
    }
    if !planning.is_time(task.containers[index].retry.not_before) {
        return false;
    }
    if task.containers[index].unsettled {
        look(task, index, planning);
        return false;
    }
    if task.wants_stop(index) { wind_down(task, index, planning) } else { go_on(task, index, planning) }
}

fn look(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) {
    let inventory = &planning.state.inventory;
    if inventory.wanted || inventory.in_flight.is_some() {
        return; // it will speak for this container, or the container is looked at afterwards
    }
    let target = target(task, index);
    planning.start(task, index, OperationKind::Inspect, |op| Effect::Inspect { op, target });
}

/// Desired status is stopped.
fn wind_down(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    if task.containers[index].observed == Some(RunState::Running) {
        // One that was stopped and runs again (a start that came late) serves nobody: it need not wait for its dependents.
        if task.containers[index].over() || dependency::may_stop(task, index) {
            let (target, grace) = (target(task, index), task.spec.containers[index].stop_timeout);
            planning.start(task, index, OperationKind::Stop, |op| Effect::Stop { op, target, grace });
        }
        return false;
    }
    // One whose restart is due has ended already: it waits for nobody.
    if task.containers[index].over() || (!task.containers[index].restarts.due && !dependency::may_stop(task, index)) {
        return false;
    }
    restart::give_up(&mut task.containers[index]);
    task.containers[index].raise(ContainerStatus::Stopped, planning.now);
    true
}

/// Desired status is running.
fn go_on(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    if !task.admitted || resource::holding_up(task, index).is_some() {
        return false;
    }
    match task.containers[index].known {
        // The image of a pause container is made where it is created.
        ContainerStatus::None if task.spec.containers[index].kind == ContainerKind::Pause => {
            task.containers[index].raise(ContainerStatus::Pulled, planning.now);
            true
        }
        ContainerStatus::None => resolve_digest(task, index, planning),
        ContainerStatus::ManifestPulled => {
            if planning.state.policy.pull_upfront {
                return pull(task, index, planning);
            }
            when_ready(task, index, planning, pull)
        }
        ContainerStatus::Pulled => when_ready(task, index, planning, create),
        ContainerStatus::Created => when_ready(task, index, planning, start),
        // The containers it depends on have done their part long ago.
        ContainerStatus::Running
            if task.containers[index].restarts.due && dependency::in_doubt(task).next().is_none() =>
        {
            start(task, index, planning)
        }
        ContainerStatus::Running | ContainerStatus::Stopped => false,
    }
}

fn when_ready(
    task: &mut TaskState,
    index: usize,
    planning: &mut Planning<'_>,
    then: fn(&mut TaskState, usize, &mut Planning<'_>) -> bool,
) -> bool {
    match dependency::may_start(task, index, planning.now) {
        Readiness::Ready => then(task, index, planning),
        Readiness::Waits(until) => {
            if let Some(until) = until {
                planning.is_time(until);
            }
            false
        }
        Readiness::Never(failure) => {
            let container = &mut task.containers[index];
            container.fail(failure);
            container.exit_code.get_or_insert(NEVER_STARTED_EXIT_CODE);
            true
        }
    }
}

fn resolve_digest(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    // A reference by digest needs no look-up. Its digest is reported with the rest, but is no news by itself.
    if let Some((_, digest)) = task.spec.containers[index].image.split_once('@') {
        let digest = digest.to_owned();
        task.containers[index].digest.get_or_insert(digest);
        task.containers[index].raise(ContainerStatus::ManifestPulled, planning.now);
        return true;
    }
    let is_going = image::is_being_removed(planning.state, &task.spec.containers[index].image);
    if is_going || credentials_missing(task, index, planning.state) {
        return false;
    }
    let image = image_request(task, index, planning);
    planning.start(task, index, OperationKind::ResolveDigest, |op| Effect::ResolveDigest { op, image });
    false
}

fn pull(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    let is_going = image::is_being_removed(planning.state, &task.spec.containers[index].image);
    if is_going || credentials_missing(task, index, planning.state) || image::makes_wait(planning) {
        return false;
    }
    let image = image_request(task, index, planning);
    // Otherwise it may turn out that nothing is pulled at all; see `apply`.
    if image.fresh {
        task.pull_started_at.get_or_insert(planning.now);
    }
    planning.start(task, index, OperationKind::Pull, |op| Effect::Pull { op, image });
    false
}

fn create(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    if image::is_being_removed(planning.state, &task.spec.containers[index].image) {
        return false;
    }
    task.containers[index].create_asked = true;
    let spec = task.spec.containers[index].clone();
    let links = spec.links.iter().map(|link| (task.spec.runtime_name(&link.container), link.alias.clone())).collect();
    let volumes_from = spec.volumes_from.iter();
    let volumes_from = volumes_from.map(|other| (task.spec.runtime_name(&other.container), other.read_only)).collect();
    let resources = &task.spec.resources;
    let ticket = spec.credential_spec.as_deref().and_then(|spec| resource::ticket(task, spec));
    let needed = resources.iter().filter(|resource| resource.needed_by.contains(&spec.name));
    let router = spec.log_routing.as_ref().and_then(|routing| task.index_of(routing.router.as_ref()?));
    let request = CreateRequest {
        task: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        runtime_name: task.spec.runtime_name(&spec.name),
        outline: resource::outline(task),
        ticket,
        resources: needed.map(|resource| resource.name.clone()).collect(),
        spec,
        links,
        volumes_from,
        pause: task.spec.pause().map(|pause| task.spec.runtime_name(&pause.name)),
        in_task_cgroup: resources.iter().any(|resource| matches!(resource.kind, ResourceKind::Cgroup(_))),
        router_address: router.and_then(|router| task.containers[router].address.clone()),
    };
    planning.start(task, index, OperationKind::Create, |op| Effect::Create { op, request: Box::new(request) });
    false
}

fn start(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    let target = target(task, index);
    planning.start(task, index, OperationKind::Start, |op| Effect::Start { op, target });
    false
}

/// The credentials of the execution role come over ACS and are gone after a restart until ECS sends them again.
pub(super) fn credentials_missing(task: &TaskState, index: usize, state: &State) -> bool {
    let wanted = match &task.spec.containers[index].registry_auth {
        RegistryAuth::Ecr(auth) => auth.use_execution_role,
        RegistryAuth::Secret(_) => true,
        RegistryAuth::Engine => false,
    };
    wanted && task.execution_credentials.as_ref().is_some_and(|id| !state.credentials.contains(id))
}

fn image_request(task: &TaskState, index: usize, planning: &Planning<'_>) -> ImageRequest {
    let spec = &task.spec.containers[index];
    let policy = &planning.state.policy;
    let (fresh, cached_serves) = match policy.pull {
        PullBehavior::Default => (true, true),
        PullBehavior::Always => (true, false),
        PullBehavior::Once => (!planning.state.host.pulled_images.contains(&spec.image), false),
        PullBehavior::PreferCached => (false, true),
    };
    ImageRequest {
        image: spec.image.clone(),
        digest: task.containers[index].digest.clone(),
        auth: spec.registry_auth.clone(),
        execution_credentials: task.execution_credentials.clone(),
        fresh,
        cached_serves,
        looks_after_failure: cached_serves && policy.pull_upfront,
    }
}

/// The engine's id once known: it names one incarnation, where the name may be taken by a later one.
pub(super) fn target(task: &TaskState, index: usize) -> String {
    match &task.containers[index].runtime_id {
        Some(id) if task.containers[index].observed.is_some() => id.0.clone(),
        Some(_) | None => task.spec.runtime_name(&task.spec.containers[index].name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::{NOW, container, done, only, run, seen, spec, state, task};
    use crate::engine::{Event, Outcome, Output, PayloadTask, Policy, step};
    use crate::model::resource::{EnvironmentFile, LogRouting, ResourceSpec};
    use crate::model::task::Condition;
    use crate::model::{Failure, OpId, Span, TaskStatus};

    #[test]
    fn a_pause_container_is_never_pulled_or_reported_and_everything_is_created_beside_it() {
        let mut state = state(Policy::default());
        let mut pause = container("~pause", &[]);
        (pause.kind, pause.image) = (ContainerKind::Pause, "no reference by digest".to_owned());
        let spec = spec("task", vec![container("main", &[("~pause", Condition::Start)]), pause]);
        let name = spec.runtime_name(&"~pause".into());
        let Effect::Create { op, request } = only(step(&mut state, NOW, run(spec))) else {
            panic!("not created first")
        };
        assert_eq!((request.spec.name.as_str(), request.pause.as_deref()), ("~pause", Some(name.as_str())));
        let there = |run_state| Output::Seen(Some(Box::new(seen("task", "~pause", "id", run_state))));
        let Effect::Start { op, .. } = only(step(&mut state, NOW, done(op, there(RunState::Created)))) else {
            panic!("not started")
        };
        let Effect::Pull { op, .. } = only(step(&mut state, NOW, done(op, there(RunState::Running)))) else {
            panic!("the other one is not pulled, or something was reported")
        };
        let Effect::Create { op, request } = only(step(&mut state, NOW, done(op, Output::Pulled))) else {
            panic!("the other one is not created")
        };
        assert_eq!(request.pause.as_deref(), Some(name.as_str()));
        let main = |run_state| Output::Seen(Some(Box::new(seen("task", "main", "id2", run_state))));
        let Effect::Start { op, .. } = only(step(&mut state, NOW, done(op, main(RunState::Created)))) else {
            panic!("not started")
        };
        let Effect::Report { change, .. } = only(step(&mut state, NOW, done(op, main(RunState::Running)))) else {
            panic!("not reported")
        };
        let reported: Vec<_> = change.containers.iter().map(|container| container.container.as_str()).collect();
        assert_eq!(reported, ["main"]);
    }

    /// The engine did not answer for a while, so the next look was a minute ahead: ECS does not wait for that.
    #[test]
    fn a_stop_does_not_wait_for_what_failed_before_it_was_wanted() {
        let mut state = state(Policy::default());
        let mut task = task(vec![container("main", &[])]);
        (task.sent, task.known) = (TaskStatus::Running, TaskStatus::Running);
        let later = NOW + Span::secs(60);
        let main = &mut task.containers[0];
        (main.known, main.observed, main.create_asked) = (ContainerStatus::Running, Some(RunState::Running), true);
        (main.ran, main.runtime_id, main.sent) = (true, Some("id".into()), main.known);
        main.retry = Retry { attempts: 5, not_before: later };
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        let stop = |effects: &[Effect]| match effects {
            [Effect::Stop { op, .. }] => Some(*op),
            [] => None,
            other => panic!("{other:?}"),
        };
        let wish = Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None };
        let op = stop(&step(&mut state, NOW, wish).effects).expect("it is stopped at once");
        // A stop that fails is one to wait after.
        let failed = Event::Completed { op, outcome: Outcome::Failed(Failure::retryable("", "busy")) };
        let effects = step(&mut state, NOW, failed).effects;
        assert_eq!(stop(&effects), None);
        assert!(state.tasks[&"task".into()].containers[0].retry.not_before > NOW);
    }

    /// Answers everything with success until a container with this name is to be created.
    fn request_of(wanted: &str, state: &mut State, first: Event) -> CreateRequest {
        let mut effects = step(state, NOW, first).effects;
        let ok = |op: OpId, output: Output| done(op, output);
        while let Some(effect) = effects.pop() {
            let event = match effect {
                Effect::Create { request, .. } if request.spec.name.as_str() == wanted => return *request,
                Effect::Create { op, request } => ok(
                    op,
                    Output::Seen(Some(Box::new(seen("task", request.spec.name.as_str(), "id", RunState::Created)))),
                ),
                Effect::Start { op, .. } => {
                    let mut running = seen("task", "router", "id", RunState::Running);
                    running.address = Some("172.17.0.9".to_owned());
                    ok(op, Output::Seen(Some(Box::new(running))))
                }
                Effect::Inventory { op } => ok(op, Output::Inventory(Vec::new())),
                Effect::Pull { op, .. } | Effect::CreateResource { op, .. } | Effect::Report { op, .. } => {
                    Event::Completed { op, outcome: Outcome::Done(Output::Nothing) }
                }
                _ => continue,
            };
            effects.extend(step(state, NOW, event).effects);
        }
        panic!("{wanted} is never created")
    }

    #[test]
    fn a_create_knows_the_router_and_what_was_made_for_the_container() {
        let mut app = container("app", &[("router", Condition::Start)]);
        app.log_routing = Some(LogRouting {
            router: Some("router".into()),
            socket: String::new(),
            tag: String::new(),
            buffer_limit: None,
        });
        let mut task = spec("task", vec![app, container("router", &[])]);
        let files = |name: &str, container: &str| ResourceSpec {
            name: name.to_owned(),
            needed_by: vec![container.into()],
            kind: ResourceKind::EnvironmentFiles(vec![EnvironmentFile { arn: String::new() }]),
        };
        task.resources = vec![files("envfile_app", "app"), files("envfile_router", "router")];
        let mut state = state(Policy::default());
        let request = request_of("app", &mut state, run(task));
        assert_eq!(request.router_address.as_deref(), Some("172.17.0.9"));
        assert_eq!(request.resources, ["envfile_app"]);
    }
}
