//! Small tasks for the unit tests of the core. Not part of the agent.

use super::policy::Policy;
use super::state::{State, TaskState};
use super::{Effect, Event, Output, PayloadTask, Step, recover, state, step};
use crate::model::observation::LastCheck;
use crate::model::task::{Condition, Dependency};
use crate::model::{
    ContainerName, ContainerSpec, Health, Observation, OpId, RunState, RuntimeId, TaskArn, TaskSpec, TextMap, Timestamp,
};

pub(super) const NOW: Timestamp = Timestamp(1_000_000);

pub(super) fn container(name: &str, depends_on: &[(&str, Condition)]) -> ContainerSpec {
    let json = format!(r#"{{"name":"{name}","image":"image@sha256:1","essential":true,"endpoint_id":""}}"#);
    let mut spec: ContainerSpec = serde_json::from_str(&json).expect("all other fields have a default");
    let depends_on =
        depends_on.iter().map(|(on, condition)| Dependency { container: (*on).into(), condition: *condition });
    spec.depends_on = depends_on.collect();
    spec
}

pub(super) fn spec(arn: &str, containers: Vec<ContainerSpec>) -> TaskSpec {
    TaskSpec {
        arn: arn.into(),
        family: "family".to_owned(),
        version: "1".to_owned(),
        containers,
        ..TaskSpec::default()
    }
}

pub(super) fn task(containers: Vec<ContainerSpec>) -> TaskState {
    TaskState::new(spec("task", containers), 1, NOW)
}

/// The state of an agent that has just started, with a pending inventory.
pub(super) fn state(policy: Policy) -> State {
    let mut state = recover(policy, state::HostState::default(), []);
    step(&mut state, NOW, Event::Tick);
    state
}

pub(super) fn run(spec: TaskSpec) -> Event {
    Event::Payload { tasks: vec![PayloadTask::Run(Box::new(spec))], seq: 1, ack: None }
}

pub(super) fn seen(task: &str, container: &str, id: &str, run_state: RunState) -> Observation {
    Observation {
        task: TaskArn::from(task),
        container: ContainerName::from(container),
        owner: None,
        runtime_name: spec(task, Vec::new()).runtime_name(&container.into()),
        runtime_id: RuntimeId::from(id),
        state: run_state,
        pid: (run_state == RunState::Running).then_some(4711),
        exit_code: (run_state == RunState::Exited).then_some(0),
        error: None,
        health: Health::Unknown,
        last_check: LastCheck::default(),
        created_at: None,
        finished_at: None,
        started_at: (run_state != RunState::Created).then(String::new),
        bindings: Vec::new(),
        mounts: Vec::new(),
        address: None,
        labels: TextMap::default(),
        networks: Vec::new(),
        image_id: String::new(),
        image_digest: None,
        health_output: String::new(),
        ids: crate::model::observation::GivenIds::default(),
        outline: None,
    }
}

pub(super) fn done(op: OpId, output: Output) -> Event {
    Event::Completed { op, outcome: Ok(output) }
}

/// The only effect of a step.
pub(super) fn only(step: Step) -> Effect {
    let mut effects = step.effects;
    assert_eq!(effects.len(), 1, "{effects:?}");
    effects.remove(0)
}
