//! The tear-down of a task's network.

use super::job::{Job, NetworkError};
use super::names::host_name;
use super::place::{Places, host};
use super::steps::StepFailure;
use super::{interface, local_link, proxy};
use ecs_core::model::interface::{Interface, InterfaceKind};
use ecs_netlink::{LinkChange, Socket};
use std::time::{Duration, Instant};

/// How long to wait for an interface that the kernel gives back to the host because its namespace has ended.
const RETURN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Tears down everything that is there.
pub(super) fn run(job: &Job) -> Result<(), NetworkError> {
    let failed = |failure| NetworkError::Step { failure, not_undone: Vec::new() };
    let places = Places::open(job).map_err(failed)?;
    let mut failures = match &places {
        Some(places) => give_back(job, places),
        None => after_the_end(job),
    };
    if failures.is_empty() {
        return Ok(());
    }
    Err(NetworkError::Step { failure: failures.remove(0), not_undone: failures })
}

/// Undoes a set-up in the reverse order. All steps are attempted; returns those that failed.
pub(super) fn give_back(job: &Job, places: &Places) -> Vec<StepFailure> {
    let mut results = vec![proxy::stop(job, places), local_link::disconnect(job, places)];
    let interfaces = job.request.interfaces.iter().enumerate().rev();
    results.extend(interfaces.map(|(number, attached)| interface::give_back(job, places, number, attached)));
    results.push(interface::unblock_metadata(job, places));
    results.into_iter().filter_map(Result::err).collect()
}

/// The pause container has ended, and the kernel gives the interfaces back and removes everything else. It gives them a name that is
/// free at that moment. Waits once for all of them. All steps are attempted; returns those that failed.
fn after_the_end(job: &Job) -> Vec<StepFailure> {
    let socket = match host(job) {
        Ok((_namespace, socket)) => socket,
        Err(failure) => return vec![failure],
    };
    let until = Instant::now() + RETURN;
    let devices = job.request.interfaces.iter().filter(|attached| attached.kind == InterfaceKind::Standard);
    let name = |attached: &Interface| {
        let name = host_name(attached.mac);
        job.steps.take_anyway(format!("name {} {name}", attached.mac), || {
            let link = loop {
                match socket.find_link(|links| interface::device(links, attached.mac))? {
                    Some(link) => break link,
                    // It may have been taken from the instance.
                    None if Instant::now() > until => return Ok(()),
                    None => std::thread::sleep(PAUSE),
                }
            };
            rename(&socket, link.index, link.is_up || link.name == name, &name);
            Ok(())
        })
    };
    devices.filter_map(|attached| name(attached).err()).collect()
}

/// A name is a convenience: somebody who has switched on the interface may keep its name.
fn rename(socket: &Socket, index: u32, keeps_name: bool, name: &str) {
    if !keeps_name {
        let _refused = socket.change_link(index, &LinkChange { name: Some(name), ..LinkChange::default() });
    }
}
