//! The limits of a whole task (spec `docker-mapping.md` §5).
//!
//! Owns the meaning of the task's `cpu` and `memory`; [`cgroup`](crate::cgroup) writes the limits to the control group. The
//! invariant: no container may have a higher memory limit than its task.

use super::reason::TaskError;
use crate::acs::host::HostFacts;
use crate::acs::wire;
use ecs_core::model::resource::{CgroupSpec, ResourceKind, ResourceSpec};

/// Maximum number of vCPUs of a task.
const MAX_CPUS: u32 = 192;
/// The range of CPU shares of a container and of a task. Docker takes 0 as 1024.
const SHARES: std::ops::RangeInclusive<u32> = 2..=262_144;

/// The requested limits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// The CPU limit in millionths of a vCPU; 0: no limit.
    pub(super) cpu_micros: u64,
    /// The memory limit in MiB; 0: no limit.
    pub(super) memory: u64,
    /// The control group of the task; `None` on a host where the limits of tasks are not enforced.
    pub(super) resource: Option<ResourceSpec>,
    /// The memory limit in MiB for a container without a limit of its own; 0: no limit.
    pub(super) for_containers: u32,
}

/// Reads and checks the limits of a task.
pub(super) fn read(task: &wire::Task, host: &HostFacts) -> Result<Limits, TaskError> {
    let memory = u64::try_from(task.memory).map_err(|_| "the memory of the task is negative")?;
    if task.cpu < 0.0 {
        return Err("the cpu of the task is negative".into());
    }
    // Rounded, so that 0.57 is 570,000, not 569,999 as truncation would give. A huge number stays huge.
    let cpu_micros = (task.cpu * 1_000_000.0).round() as u64;
    if !host.task_limits {
        return Ok(Limits { cpu_micros, memory, ..Limits::default() });
    }
    check(task, memory).map_err(TaskError::Resource)?;
    let shares = task.containers.iter().map(|container| container.cpu.max(*SHARES.start()));
    let shares = shares.fold(0, u32::saturating_add).min(*SHARES.end());
    let resource = ResourceSpec {
        name: "cgroup".to_owned(),
        needed_by: task.containers.iter().map(|container| container.name.as_str().into()).collect(),
        kind: ResourceKind::Cgroup(CgroupSpec { cpu_micros, shares, memory }),
    };
    let for_containers = if host.memory_for_containers { u32::try_from(memory).unwrap_or(u32::MAX) } else { 0 };
    Ok(Limits { cpu_micros, memory, resource: Some(resource), for_containers })
}

fn check(task: &wire::Task, memory: u64) -> Result<(), String> {
    if task.cpu > f64::from(MAX_CPUS) {
        let requested = task.cpu;
        return Err(format!(
            "task CPU spec builder: unsupported CPU limits, requested={requested:.6}, max-supported={MAX_CPUS}"
        ));
    }
    match task
        .containers
        .iter()
        .map(|container| container.memory)
        .find(|limit| memory > 0 && u64::from(*limit) > memory)
    {
        Some(limit) => Err(format!(
            "task memory spec builder: container memory limit({limit}) greater than task memory limit({memory})"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits_of(task: serde_json::Value, host: &HostFacts) -> Result<Limits, String> {
        read(&serde_json::from_value(task).unwrap(), host).map_err(|error| error.reason_for("t").0)
    }

    fn cgroup(limits: &Limits) -> CgroupSpec {
        match limits.resource.as_ref().map(|resource| &resource.kind) {
            Some(ResourceKind::Cgroup(spec)) => *spec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn task_limits_come_from_the_task_or_from_its_containers() {
        let host = HostFacts::default();
        let containers = json!([{"name": "a", "cpu": 128}, {"name": "b"}]);
        for (cpu, memory, micros) in [(0.5, 256, 500_000), (0.57, 0, 570_000), (0.0, 5, 0), (192.0, 0, 192_000_000)] {
            let task = json!({"arn": "t", "cpu": cpu, "memory": memory, "containers": containers});
            let limits = limits_of(task, &host).unwrap();
            assert_eq!((limits.cpu_micros, limits.memory, limits.for_containers), (micros, memory, 0));
            assert_eq!(cgroup(&limits), CgroupSpec { cpu_micros: micros, shares: 130, memory });
            assert_eq!(limits.resource.unwrap().needed_by, ["a".into(), "b".into()]);
        }
        let many = json!([{"name": "a", "cpu": 4_000_000_000_u32}, {"name": "b", "cpu": 4_000_000_000_u32}]);
        assert_eq!(cgroup(&limits_of(json!({"containers": many}), &host).unwrap()).shares, 262_144);
    }

    #[test]
    fn without_task_limits_the_task_still_counts_at_admission() {
        let host = HostFacts { task_limits: false, memory_for_containers: true, ..HostFacts::default() };
        let task = json!({"cpu": 400, "memory": 8, "containers": [{"name": "a", "memory": 9}]});
        let wanted = Limits { cpu_micros: 400_000_000, memory: 8, ..Limits::default() };
        assert_eq!(limits_of(task, &host), Ok(wanted));
    }

    #[test]
    fn the_tasks_memory_may_limit_each_of_its_containers() {
        let host = HostFacts { memory_for_containers: true, ..HostFacts::default() };
        assert_eq!(limits_of(json!({"memory": 256}), &host).unwrap().for_containers, 256);
    }

    #[test]
    fn impossible_limits_are_refused_with_the_go_agents_reason() {
        let table = [
            (
                json!({"arn": "t", "cpu": -0.5}),
                "UnrecogniedTaskError: Error loading task - the cpu of the task is negative",
            ),
            (json!({"memory": -1}), "UnrecogniedTaskError: Error loading task - the memory of the task is negative"),
            (
                json!({"arn": "t", "cpu": 192.5}),
                "resource cannot be initialized for task t: task CPU spec builder: unsupported CPU limits, \
                 requested=192.500000, max-supported=192",
            ),
            (
                json!({"arn": "t", "memory": 8, "containers": [{"memory": 8}, {"memory": 9}]}),
                "resource cannot be initialized for task t: task memory spec builder: container memory limit(9) \
                 greater than task memory limit(8)",
            ),
        ];
        for (task, reason) in table {
            assert_eq!(limits_of(task, &HostFacts::default()).unwrap_err(), reason);
        }
    }
}
