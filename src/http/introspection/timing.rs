//! The times of tasks, as `/v1/debug/tasks` shows them: when each step was reached, and how long each phase took.
//!
//! Owns the JSON shapes. What is not known is left out.

use ecs_core::model::view::View;
use ecs_core::model::{ContainerName, TaskArn};
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// The number of ended tasks that are shown without `limit`.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// Looks up the times of the tasks of a view, and of at most this many ended tasks.
pub type TimingLookup = Arc<dyn Fn(&View, usize) -> Timings + Send + Sync>;

/// The times of tasks.
#[derive(Debug, Default)]
pub struct Timings {
    /// Those of each task of the view, in its order; `None`: they are not kept any more.
    pub tasks: Vec<Option<TaskTiming>>,
    /// Those of tasks that ECS knows to have stopped, the newest first.
    pub finished: Vec<TaskTiming>,
}

/// The times of one task.
#[derive(Clone, Debug)]
pub struct TaskTiming {
    /// The task.
    pub arn: TaskArn,
    /// The family of the task definition; empty if it is not known.
    pub family: String,
    /// The revision of the task definition.
    pub version: String,
    /// The agent has restarted since the task was received, so most of the earlier times are not known.
    pub is_restored: bool,
    /// What was reached when, by name.
    pub moments: Vec<(&'static str, Moment)>,
    /// The containers, in the order of the task definition.
    pub containers: Vec<ContainerTiming>,
}

/// The times of one container.
#[derive(Clone, Debug)]
pub struct ContainerTiming {
    /// The name of the container.
    pub name: ContainerName,
    /// What was reached when, by name.
    pub moments: Vec<(&'static str, Moment)>,
    /// What was done, by name.
    pub phases: Vec<(&'static str, PhaseTiming)>,
}

/// When something was reached.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Moment {
    /// The wall time, in RFC 3339.
    pub at: String,
    /// Seconds since the task was received; `None`: it is not known when that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// When something began, and how long it took.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PhaseTiming {
    /// The wall time of the beginning, in RFC 3339.
    pub at: String,
    /// Seconds until it ended; `None`: it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Number of attempts.
    pub attempts: u8,
    /// How it ended, if not in the usual way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
}

/// A task that has ended: `{"Arn":…,"Family":…,"Revision":…,"Timings":…}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Finished<'a> {
    arn: &'a TaskArn,
    #[serde(skip_serializing_if = "str::is_empty")]
    family: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    revision: &'a str,
    timings: &'a TaskTiming,
}

impl<'a> Finished<'a> {
    pub(super) fn new(timings: &'a TaskTiming) -> Self {
        Self { arn: &timings.arn, family: &timings.family, revision: &timings.version, timings }
    }
}

/// `{"Restored":true,"Received":{…},…,"Containers":[…]}`
impl Serialize for TaskTiming {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        if self.is_restored {
            map.serialize_entry("Restored", &true)?;
        }
        for (name, moment) in &self.moments {
            map.serialize_entry(name, moment)?;
        }
        map.serialize_entry("Containers", &self.containers)?;
        map.end()
    }
}

/// `{"Name":…,"Running":{…},…,"Phases":{"Pull":{…},…}}`
impl Serialize for ContainerTiming {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Name", &self.name)?;
        for (name, moment) in &self.moments {
            map.serialize_entry(name, moment)?;
        }
        map.serialize_entry("Phases", &Phases(&self.phases))?;
        map.end()
    }
}

struct Phases<'a>(&'a [(&'static str, PhaseTiming)]);

impl Serialize for Phases<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, phase)| (name, phase)))
    }
}
