//! The addresses of tasks on the bridge between the host and its tasks: 169.254.172.2 to 169.254.175.254.
//!
//! Owns [`HostState::last_local_address`](super::state::HostState). The address is how the agent recognizes a task that asks for its
//! metadata. Which addresses are in use follows from the tasks. The search begins after the last address that was given or returned:
//! the host may still remember a neighbour or a connection of an address that was in use a moment ago. Source: spec
//! `networking.md` §7. (The plug-in of the Go agent keeps these addresses in a file of its own.)

use super::state::{Key, State, TaskState};
use super::step::Step;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The first and the last address of a task. The one before the first is the host's.
const FIRST: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 2);
const LAST: Ipv4Addr = Ipv4Addr::new(169, 254, 175, 254);

/// Gives the task an address. `state` does not contain the task.
///
/// # Errors
/// The reason why there is no address for the task.
pub(super) fn give(state: &mut State, task: &mut TaskState, out: &mut Step) -> Result<(), String> {
    let holders = state.tasks.values().filter_map(|task| Some((task.network.local_address?, &task.spec.arn)));
    let address = match state.policy.local_address {
        Some(address) if !(FIRST..=LAST).contains(&address) => {
            return Err(format!(
                "OverrideAWSVPCLocalIPv4Address is {address}: it must be between {FIRST} and {LAST}, the addresses of tasks on the bridge ecs-bridge"
            ));
        }
        Some(address) => match holders.filter(|(taken, _)| *taken == address).map(|(_, arn)| arn).next() {
            Some(holder) => {
                return Err(format!(
                    "the task {} has the only address for tasks, {address}: OverrideAWSVPCLocalIPv4Address allows one task in network mode awsvpc at a time",
                    holder.task_id()
                ));
            }
            None => address,
        },
        None => {
            let taken = holders.map(|(address, _)| address).collect();
            next(state.host.last_local_address, &taken).ok_or_else(|| {
                format!("all {} addresses on the bridge ecs-bridge, {FIRST} to {LAST}, are in use", count())
            })?
        }
    };
    task.network.local_address = Some(address);
    remember(state, address, out);
    Ok(())
}

/// Takes the task's address back, if it has one.
pub(super) fn take_back(state: &mut State, task: &mut TaskState, out: &mut Step) {
    if let Some(address) = task.network.local_address.take() {
        remember(state, address, out);
    }
}

fn remember(state: &mut State, address: Ipv4Addr, out: &mut Step) {
    if state.host.last_local_address.replace(address) != Some(address) {
        out.changed.insert(Key::Host);
    }
}

/// The first free address after `last`; `None` if all are taken.
fn next(last: Option<Ipv4Addr>, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let after = last.map_or(FIRST.to_bits(), |last| last.to_bits().saturating_add(1));
    let begin = if (FIRST.to_bits()..=LAST.to_bits()).contains(&after) { after } else { FIRST.to_bits() };
    let mut addresses = (begin..=LAST.to_bits()).chain(FIRST.to_bits()..begin).map(Ipv4Addr::from_bits);
    addresses.find(|address| !taken.contains(address))
}

fn count() -> u32 {
    LAST.to_bits() - FIRST.to_bits() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::sample;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_search_begins_after_the_last_address_and_wraps() {
        assert_eq!(count(), 1021);
        let none = BTreeSet::new();
        assert_eq!(next(None, &none), Some(FIRST));
        assert_eq!(next(Some(FIRST), &none), Some(address("169.254.172.3")));
        assert_eq!(next(Some(address("169.254.172.255")), &none), Some(address("169.254.173.0")));
        assert_eq!(next(Some(LAST), &none), Some(FIRST));
        assert_eq!(next(Some(LAST), &BTreeSet::from([FIRST])), Some(address("169.254.172.3")));
        assert_eq!(next(Some(address("10.0.0.1")), &none), Some(FIRST));
        let all = || (FIRST.to_bits()..=LAST.to_bits()).map(Ipv4Addr::from_bits);
        let free = address("169.254.174.9");
        assert_eq!(next(Some(address("169.254.174.10")), &all().filter(|it| *it != free).collect()), Some(free));
        assert_eq!(next(Some(free), &all().collect()), None);
    }

    /// Gives an address to a task while another one has `held`.
    fn given(fixed: Option<&str>, held: Option<&str>) -> (Result<(), String>, TaskState, State, Step) {
        let mut state = sample::state(Policy { local_address: fixed.map(address), ..Policy::default() });
        let mut other = TaskState::new(sample::spec("arn:x:task/c/other", Vec::new()), 1, sample::NOW);
        other.network.local_address = held.map(address);
        state.tasks.insert(other.spec.arn.clone(), Box::new(other));
        let (mut task, mut out) = (sample::task(Vec::new()), Step::default());
        let result = give(&mut state, &mut task, &mut out);
        (result, task, state, out)
    }

    #[test]
    fn no_two_tasks_have_the_same_address() {
        let (result, mut task, mut state, mut out) = given(None, Some("169.254.172.2"));
        assert_eq!(result, Ok(()));
        assert_eq!(task.network.local_address, Some(address("169.254.172.3")));
        assert!(out.changed.contains(&Key::Host));
        take_back(&mut state, &mut task, &mut out);
        assert_eq!((task.network.local_address, state.host.last_local_address), (None, Some(address("169.254.172.3"))));
        give(&mut state, &mut task, &mut out).unwrap();
        assert_eq!(task.network.local_address, Some(address("169.254.172.4")), "the last one is not used at once");
    }

    #[test]
    fn a_task_without_a_free_address_has_a_clear_reason() {
        let mut state = sample::state(Policy::default());
        for bits in FIRST.to_bits()..=LAST.to_bits() {
            let mut task = TaskState::new(sample::spec(&format!("task/{bits}"), Vec::new()), 1, sample::NOW);
            task.network.local_address = Some(Ipv4Addr::from_bits(bits));
            state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        }
        let text = give(&mut state, &mut sample::task(Vec::new()), &mut Step::default()).unwrap_err();
        assert!(text.contains("all 1021 addresses") && text.contains("are in use"), "{text}");
    }

    #[test]
    fn the_operators_address_is_for_one_task_at_a_time() {
        let (result, task, ..) = given(Some("169.254.173.7"), None);
        assert_eq!((result, task.network.local_address), (Ok(()), Some(address("169.254.173.7"))));
        let (result, task, ..) = given(Some("169.254.173.7"), Some("169.254.173.7"));
        let text = result.unwrap_err();
        assert!(text.contains("the task other has") && text.contains("allows one task"), "{text}");
        assert_eq!(task.network.local_address, None);
        for outside in ["169.254.172.1", "169.254.172.0", "169.254.175.255", "10.0.0.1"] {
            let text = given(Some(outside), None).0.unwrap_err();
            assert!(text.contains(outside) && text.contains("between 169.254.172.2 and 169.254.175.254"), "{text}");
        }
    }
}
