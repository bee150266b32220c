//! The records in the form of `/v1/debug/tasks`.

use super::record::{ContainerMark, Phase, TaskMark, TaskRecord, seconds};
use crate::http::introspection::{ContainerTiming, Moment, PhaseTiming, TaskTiming, Timings};
use ecs_core::model::view::View;
use ecs_core::model::{TaskArn, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The times of the tasks of the view, and of at most `limit` ended tasks. `finished` has the newest first.
pub(super) fn timings(
    view: &View,
    live: &[TaskRecord],
    finished: &[Arc<TaskRecord>],
    limit: usize,
    wall: &dyn Fn(Timestamp) -> Timestamp,
) -> Timings {
    let ended = finished.iter().map(|record| &**record);
    let known: BTreeMap<&TaskArn, &TaskRecord> = live.iter().chain(ended).map(|record| (&record.arn, record)).collect();
    let tasks = view.tasks.iter().map(|task| known.get(&task.arn).map(|record| timing(record, wall)));
    let last = finished.iter().take(limit);
    Timings { tasks: tasks.collect(), finished: last.map(|record| timing(record, wall)).collect() }
}

fn timing(record: &TaskRecord, wall: &dyn Fn(Timestamp) -> Timestamp) -> TaskTiming {
    let received = record.at(TaskMark::Received);
    let moment = |name: &'static str, at: Option<Timestamp>| {
        let at = at?;
        Some((name, Moment { at: wall(at).rfc3339(), seconds: received.map(|from| seconds(at.since(from))) }))
    };
    let containers = (0..record.containers()).map(|index| {
        let phases = Phase::ALL.into_iter().filter_map(|phase| {
            let times = record.phase(index, phase)?;
            let shown = PhaseTiming {
                at: wall(times.begun).rfc3339(),
                seconds: times.ended.map(|ended| seconds(ended.since(times.begun))),
                attempts: times.attempts,
                result: times.result.name().filter(|_| times.ended.is_some()),
            };
            Some((phase.name(), shown))
        });
        let marks = ContainerMark::ALL.into_iter();
        ContainerTiming {
            name: record.definition.containers.get(index).cloned().unwrap_or_default(),
            moments: marks.filter_map(|mark| moment(mark.name(), record.container_at(index, mark))).collect(),
            phases: phases.collect(),
        }
    });
    TaskTiming {
        arn: record.arn.clone(),
        family: record.definition.family.clone(),
        version: record.definition.version.clone(),
        is_restored: record.is_restored,
        moments: TaskMark::ALL.into_iter().filter_map(|mark| moment(mark.name(), record.at(mark))).collect(),
        containers: containers.collect(),
    }
}
