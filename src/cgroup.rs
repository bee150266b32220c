//! The control groups that limit tasks as a whole (spec `resources.md` §2, `docker-mapping.md` §5).
//!
//! Owns the place of a task's group and the names of its limits, on each of the four kinds of host: cgroup v1 or v2, with groups
//! created as directories (`cgroupfs`) or by systemd. The driver is that of the container engine, whose containers are in the
//! task's group. The containers' own groups belong to the engine. Invariant: with systemd's driver all changes go through
//! systemd, which would undo any others.

mod error;
mod files;
mod limits;
pub mod usage;

use super::systemd::{Property, Systemd};
use crate::lane::{Lane, Settings as LaneSettings};
use ecs_core::model::cgroup::cgroup_parent;
use ecs_core::model::resource::CgroupSpec;
use ecs_core::model::{CgroupDriver, Failure, OpError, Span, TaskArn, with_causes};
use error::GONE;
use files::Files;
use limits::{Cpu, Limits, weight};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::CgroupError;

/// Threads for the files of control groups. All work is local, so a create or removal that exceeds the limit hangs.
const FILES: LaneSettings = LaneSettings { threads: 4, spare: 4, limit: Duration::from_secs(30) };
/// The limit from systemd's answer until the slice exists, or is removed.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(30);
/// The same limit for the slice that is created at the start to test whether slices work.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// The interval between checks whether a slice exists, until systemd has finished.
const POLL: Duration = Duration::from_millis(20);
/// The text of the failure, which becomes the task's reason.
const FAILED: &str = "CgroupError: Agent could not create task's platform resources";
/// The smallest CPU quota that the kernel accepts, in microseconds.
const MIN_QUOTA: u64 = 1_000;

/// The settings, from the operator and the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the cgroup file system is mounted (`ECS_CGROUP_PATH`).
    pub root: PathBuf,
    /// The engine's cgroup driver.
    pub driver: CgroupDriver,
    /// The CFS period of CPU limits (`ECS_CGROUP_CPU_PERIOD`): quotas are given as CPU time in each such period.
    pub cpu_period: Span,
    /// How many processes a task may have (`ECS_TASK_PIDS_LIMIT`); `None` = no limit.
    pub pids: Option<u32>,
}

/// Creates and removes the control groups of tasks.
#[derive(Clone, Debug)]
pub struct Cgroups {
    settings: Settings,
    /// The host has cgroup v2.
    is_unified: bool,
    lane: Arc<Lane>,
    /// The socket of the message bus; `None` = the host's.
    bus: Option<PathBuf>,
    /// The time limit for the test slice to appear, and to be removed.
    probe_limit: Duration,
}

impl Cgroups {
    /// Finds out the cgroup version; nothing is changed.
    pub async fn new(settings: Settings) -> Self {
        let lane = Arc::new(Lane::new("control groups", FILES));
        let file = settings.root.join("cgroup.controllers");
        let shown = file.display().to_string();
        let is_unified = lane.run(&shown, move || file.exists()).await.unwrap_or(false);
        Self { is_unified, settings, lane, bus: None, probe_limit: PROBE_LIMIT }
    }

    /// Prepares the parent of all tasks' groups, and creates and removes a test group there: only this shows whether tasks can
    /// be limited.
    ///
    /// # Errors
    /// Tasks cannot be limited on this host.
    pub async fn prepare(&self) -> Result<(), CgroupError> {
        match self.settings.driver {
            CgroupDriver::Cgroupfs => self.on_lane("/ecs", |files| files.prepare()).await,
            CgroupDriver::Systemd => {
                self.on_lane("/ecstasks.slice", |files| files.require_controllers()).await?;
                // A process that can reach systemd may still lack the permission to create a slice, or may not see it, as in a
                // container without the host's control groups.
                let slice = format!("ecstasks-{}.slice", files::PROBE);
                self.start_slice(&slice, &accounting()).await?;
                let appeared = self.wait_for_slice(&slice, true, self.probe_limit).await;
                self.stop_slice(&slice).await?;
                appeared?;
                self.wait_for_slice(&slice, false, self.probe_limit).await
            }
        }
    }

    /// The host has cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.is_unified
    }

    /// Creates the group of a task with its limits.
    ///
    /// # Errors
    /// The kernel or systemd refused. The log has the cause.
    pub async fn create(&self, task: &TaskArn, spec: &CgroupSpec) -> Result<(), OpError> {
        self.create_group(task, self.limits(spec)).await.map_err(|error| {
            let why = with_causes(&error);
            tracing::error!(task = task.task_id(), error = why, "the task's control group cannot be created");
            error.failure("", format!("{FAILED}: {why}")).into()
        })
    }

    /// Removes the group of a task. A group that does not exist is success.
    ///
    /// # Errors
    /// A process is still in the group, or systemd does not answer.
    pub async fn remove(&self, task: &TaskArn) -> Result<(), OpError> {
        let removed = self.remove_group(task).await;
        removed.map_err(|error| Failure::retryable("CgroupError", with_causes(&error)).into())
    }

    async fn create_group(&self, task: &TaskArn, limits: Limits) -> Result<(), CgroupError> {
        let name = self.name(task)?;
        match self.settings.driver {
            CgroupDriver::Cgroupfs => self.on_lane(&name.clone(), move |files| files.create(&name, limits)).await,
            CgroupDriver::Systemd => {
                self.start_slice(&name, &properties(task, limits, self.is_unified)).await?;
                self.wait_for_slice(&name, true, SYSTEMD_LIMIT).await
            }
        }
    }

    async fn remove_group(&self, task: &TaskArn) -> Result<(), CgroupError> {
        let name = self.name(task)?;
        match self.settings.driver {
            CgroupDriver::Cgroupfs => self.on_lane(&name.clone(), move |files| files.remove(&name)).await,
            CgroupDriver::Systemd => {
                self.stop_slice(&name).await?;
                self.wait_for_slice(&name, false, SYSTEMD_LIMIT).await
            }
        }
    }

    async fn start_slice(&self, slice: &str, properties: &[(&str, Property)]) -> Result<(), CgroupError> {
        let started = async { Systemd::connect(self.bus.as_deref()).await?.start_slice(slice, properties).await };
        started.await.map_err(|source| CgroupError::Systemd { what: "create", slice: slice.to_owned(), source })
    }

    async fn stop_slice(&self, slice: &str) -> Result<(), CgroupError> {
        let stopped = async { Systemd::connect(self.bus.as_deref()).await?.stop_unit(slice).await };
        stopped.await.map_err(|source| CgroupError::Systemd { what: "remove", slice: slice.to_owned(), source })
    }

    /// Waits until a slice exists, or is removed: systemd answers before it has done its work.
    async fn wait_for_slice(&self, slice: &str, exists: bool, limit: Duration) -> Result<(), CgroupError> {
        let path = self.slice_path(slice);
        let began = tokio::time::Instant::now();
        while began.elapsed() < limit {
            let directory = path.clone();
            if self.lane.run(slice, move || directory.exists()).await? == exists {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CgroupError::NotDone { path, wanted: if exists { "there" } else { GONE }, limit })
    }

    /// The group's name in the form that the engine expects.
    fn name(&self, task: &TaskArn) -> Result<String, CgroupError> {
        let id = task.task_id();
        let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_plain { Ok(cgroup_parent(self.settings.driver, task)) } else { Err(CgroupError::Unnameable) }
    }

    /// The directory of a task's slice in the cgroup file system.
    fn slice_path(&self, slice: &str) -> PathBuf {
        let root = &self.settings.root;
        let hierarchy = if self.is_unified { root.clone() } else { root.join("memory") };
        hierarchy.join("ecstasks.slice").join(slice)
    }

    fn limits(&self, spec: &CgroupSpec) -> Limits {
        let period = self.settings.cpu_period.0 * 1_000;
        let quota = u128::from(spec.cpu_micros) * u128::from(period) / 1_000_000;
        let quota = u64::try_from(quota).unwrap_or(u64::MAX).max(MIN_QUOTA);
        let cpu = if spec.cpu_micros > 0 { Cpu::Quota { quota, period } } else { Cpu::Shares(spec.shares.max(2)) };
        let memory = (spec.memory > 0).then(|| spec.memory.saturating_mul(1024 * 1024));
        Limits { cpu, memory, pids: self.settings.pids }
    }

    /// Runs file operations on a group on a thread that may block.
    async fn on_lane(
        &self,
        group: &str,
        work: impl FnOnce(Files<'_>) -> Result<(), CgroupError> + Send + 'static,
    ) -> Result<(), CgroupError> {
        let (root, is_unified) = (self.settings.root.clone(), self.is_unified);
        let what = format!("the control group {group} below {}", root.display());
        self.lane.run(&what, move || work(Files { root: &root, is_unified })).await?
    }
}

/// The limits as systemd properties.
fn properties(task: &TaskArn, limits: Limits, is_unified: bool) -> Vec<(&'static str, Property)> {
    let mut properties = vec![("Description", Property::Text(format!("ECS task {}", task.task_id())))];
    properties.extend(accounting());
    match limits.cpu {
        Cpu::Quota { quota, period } => {
            let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
            let per_second = u64::try_from(per_second).unwrap_or(u64::MAX - 1);
            properties.push(("CPUQuotaPerSecUSec", Property::Number(per_second)));
            properties.push(("CPUQuotaPeriodUSec", Property::Number(period)));
        }
        Cpu::Shares(shares) if is_unified => properties.push(("CPUWeight", Property::Number(weight(shares)))),
        Cpu::Shares(shares) => properties.push(("CPUShares", Property::Number(u64::from(shares)))),
    }
    let memory = if is_unified { "MemoryMax" } else { "MemoryLimit" };
    properties.extend(limits.memory.map(|bytes| (memory, Property::Number(bytes))));
    properties.extend(limits.pids.map(|pids| ("TasksMax", Property::Number(u64::from(pids)))));
    properties
}

/// The properties with which systemd creates a slice's group in every hierarchy that limits tasks.
fn accounting() -> [(&'static str, Property); 4] {
    [
        // With the default dependencies, systemd would stop the slice and its containers in parallel with Docker when the host
        // shuts down.
        ("DefaultDependencies", Property::Flag(false)),
        ("CPUAccounting", Property::Flag(true)),
        ("MemoryAccounting", Property::Flag(true)),
        ("TasksAccounting", Property::Flag(true)),
    ]
}

#[cfg(test)]
mod tests;
