//! Builds the state at a start of the agent: no operation is pending, and each container must be inspected before anything is
//! done to it.

use super::policy::Policy;
use super::resource;
use super::state::{HostState, Resource, State, TaskState};
use crate::model::ContainerStatus;

/// Builds the state from the documents on disk.
///
/// Every effect is safe to repeat, and every name is derived from the specification. So the operations that were pending before
/// are forgotten. The first [`Event::Tick`](super::Event::Tick) requests an inventory and plans every task.
pub fn recover(policy: Policy, host: HostState, tasks: impl IntoIterator<Item = TaskState>) -> State {
    let mut state = State { policy, host, ..State::default() };
    for mut task in tasks {
        for container in task.states_mut() {
            container.live.unsettled = container.create_asked && !container.is_stopped();
            // The earlier process may have been killed while a start was pending.
            container.live.start_may_follow = container.known == ContainerStatus::Created;
        }
        for Resource { spec, state } in &mut task.resources {
            resource::recover(state, spec.kind.lifetime());
        }
        // Anything may be due, so the task is planned at the first tick.
        task.live.wake = Some(crate::model::Timestamp::default());
        task.live.inherited = task.admitted;
        state.host.arrivals = state.host.arrivals.max(task.arrival);
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    }
    state.inventory.events_missed = true;
    state
}
