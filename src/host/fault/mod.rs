//! Network faults: blackholes, latency and loss, by `iptables`, `ip6tables`, `tc` and `nsenter` (spec `task-metadata.md` §9).
//!
//! Owns which faults exist in a network, and their record. The caller owns whether a task may start one. Invariants: what a
//! failed start has made is removed again; a fault ends with the last task that has started it, even if the agent was killed
//! meanwhile; operations in one network follow each other, so that they see no half-made fault.
//!
//! Reading order: this file, `blackhole` and `shaping` (the command lines, pure), `command`, `run` (runs them until a deadline),
//! `record` (which faults this agent has started), [`interfaces`], [`probe`] (whether this host has what faults need).

mod blackhole;
mod command;
pub mod interfaces;
pub mod probe;
mod record;
mod run;
mod shaping;

use crate::host::program::Programs;
use blackhole::Family;
pub use command::Runner;
use ecs_core::model::TaskArn;
use ecs_core::model::fault::{BlackholePort, Fault, FaultError, FaultId, FaultNetwork, FaultOperation, FaultStatus};
use record::{Record, Records};
use run::{Made, Run};
use shaping::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::{Instant, timeout_at};

/// Time limit for removing a fault without a request.
const REMOVAL: Duration = Duration::from_secs(10);

type NetworkLock = Arc<RwLock<()>>;

/// The faults of this host.
#[derive(Debug)]
pub struct Faults {
    programs: Programs,
    runner: Runner,
    records: Records,
    /// The lock of each network that has an operation.
    locks: Mutex<BTreeMap<Option<String>, NetworkLock>>,
}

/// The outcome of an operation.
pub type FaultResult = Result<FaultStatus, FaultError>;

impl Faults {
    /// The faults that an earlier process has recorded in `directory`. `None`: nothing is recorded, because the agent keeps no
    /// state.
    pub async fn restored(programs: Programs, directory: Option<&Path>) -> Self {
        let runner = Runner::for_this_process();
        Self { programs, runner, records: Records::restored(directory).await, locks: Mutex::default() }
    }

    /// Whether a fault is recorded.
    pub async fn is_empty(&self) -> bool {
        self.records.all().await.is_empty()
    }

    /// Carries out an operation and passes its outcome to `answer`, at the latest at the deadline. After a failed start, the rest
    /// of it is removed afterwards.
    pub async fn carry_out(
        &self,
        network: &FaultNetwork,
        operation: &FaultOperation,
        deadline: Instant,
        answer: impl FnOnce(FaultResult),
    ) {
        let lock = self.lock(network.namespace.as_deref());
        let run = self.run(&network.namespace, &network.task, deadline);
        let waited = async {
            match operation {
                FaultOperation::Status(_) => (Some(lock.read().await), None),
                FaultOperation::Start(_) | FaultOperation::Stop(_) => (None, Some(lock.write().await)),
            }
        };
        let Ok(_held) = timeout_at(deadline, waited).await else { return answer(Err(FaultError::TimedOut)) };
        if !matches!(operation, FaultOperation::Status(_)) {
            self.clean(network, deadline).await;
        }
        match operation {
            FaultOperation::Status(fault) => answer(self.status(&run, network, *fault).await),
            FaultOperation::Stop(fault) => answer(self.stop(&run, network, *fault).await),
            FaultOperation::Start(fault) => {
                let mut made = Made::default();
                let started = self.start(&run, network, fault, &mut made).await;
                answer(started);
                if started.is_err() && made != Made::default() {
                    self.undo(&Record::begun(network, fault.id()), &made).await;
                }
            }
        }
    }

    /// Removes what is left of faults in this network whose start was cut off.
    async fn clean(&self, network: &FaultNetwork, deadline: Instant) {
        let records = self.records.all().await;
        for record in records.iter().filter(|it| !it.is_complete && it.namespace == network.namespace) {
            if self.is_removed(record, &Made::everything(record), deadline).await {
                self.forget(|known| known == record).await;
            }
        }
    }

    /// Removes the faults of tasks that cannot run any more, and those whose start was cut off. Returns whether that succeeded for
    /// all of them.
    pub async fn take_back(&self, may_run: impl Fn(&TaskArn) -> bool) -> bool {
        let records = self.records.all().await;
        let (kept, over): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.is_complete && may_run(&record.task));
        let mut is_done = true;
        for record in over {
            let is_shared = kept.iter().any(|other| other.is_same_fault(&record));
            is_done &= self.remove(&record, is_shared).await;
        }
        is_done
    }

    /// Removes a fault, unless another task has it too. Returns whether that succeeded.
    async fn remove(&self, record: &Record, is_shared: bool) -> bool {
        let lock = self.lock(record.namespace.as_deref());
        let _held = lock.write().await;
        // It may have ended meanwhile.
        if !self.records.all().await.contains(record) {
            return true;
        }
        let id = record.task.task_id();
        let limit = Instant::now() + REMOVAL;
        let is_gone = is_shared || self.is_removed(record, &Made::everything(record), limit).await;
        if is_gone {
            tracing::info!(task = id, fault = %record.fault, "a network fault has ended with its task");
            self.forget(|known| known == record).await
        } else {
            tracing::error!(task = id, fault = %record.fault, "a network fault of an ended task cannot be removed yet");
            false
        }
    }

    fn run<'a>(&'a self, namespace: &'a Option<String>, task: &'a TaskArn, deadline: Instant) -> Run<'a> {
        Run { programs: &self.programs, runner: self.runner, namespace: namespace.as_deref(), deadline, task }
    }

    fn lock(&self, namespace: Option<&str>) -> NetworkLock {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(namespace.map(str::to_owned)).or_default())
    }

    async fn status(&self, run: &Run<'_>, network: &FaultNetwork, fault: FaultId) -> FaultResult {
        let is_running = match fault {
            FaultId::Blackhole(port) => run.has_blackhole(port).await?,
            FaultId::Latency => has(&self.shapes(run, network).await?, Shape::Latency),
            FaultId::Loss => has(&self.shapes(run, network).await?, Shape::Loss),
        };
        Ok(if is_running { FaultStatus::Running } else { FaultStatus::NotRunning })
    }

    async fn stop(&self, run: &Run<'_>, network: &FaultNetwork, fault: FaultId) -> FaultResult {
        match fault {
            FaultId::Blackhole(port) => Self::stop_blackhole(run, network, port).await?,
            FaultId::Latency => self.stop_shape(run, network, Shape::Latency).await?,
            FaultId::Loss => self.stop_shape(run, network, Shape::Loss).await?,
        }
        let stopped = Record::begun(network, fault);
        self.forget(|known| known.is_same_fault(&stopped)).await;
        Ok(FaultStatus::Stopped)
    }

    async fn stop_blackhole(run: &Run<'_>, network: &FaultNetwork, port: BlackholePort) -> Result<(), FaultError> {
        if !run.has_blackhole(port).await? {
            return Ok(());
        }
        let v4 = run.stop_family(Family::V4, port).await;
        let v6 = run.stop_family(Family::V6, port).await;
        // Compat: rules of IPv6 count only for a task that has no other addresses.
        if v6 == Err(FaultError::TimedOut) || network.interfaces.ipv6_only { v4.and(v6) } else { v4 }
    }

    async fn stop_shape(&self, run: &Run<'_>, network: &FaultNetwork, wanted: Shape) -> Result<(), FaultError> {
        for (interface, _) in self.shapes(run, network).await?.iter().filter(|(_, shape)| *shape == wanted) {
            run.stop_shape(interface).await?;
        }
        Ok(())
    }

    async fn start(&self, run: &Run<'_>, network: &FaultNetwork, fault: &Fault, made: &mut Made) -> FaultResult {
        let id = fault.id();
        if let Fault::Blackhole { port, .. } = fault {
            if run.has_blackhole(*port).await? {
                // Another task of this network may have started it. It ends with the last of them.
                self.record(network, id, true).await?;
                return Ok(FaultStatus::Running);
            }
        } else {
            let shapes = self.shapes(run, network).await?;
            let runs = [(Shape::Latency, FaultError::LatencyRuns), (Shape::Loss, FaultError::LossRuns)];
            if let Some((_, error)) = runs.into_iter().find(|(shape, _)| has(&shapes, *shape)) {
                return Err(error);
            }
        }
        self.record(network, id, false).await?;
        let started = match fault {
            Fault::Blackhole { port, spared } => {
                run.start_blackhole(*port, spared, network.interfaces.ipv6_only, made).await
            }
            Fault::Latency { .. } | Fault::Loss { .. } => run.start_shape(fault, &network.interfaces.names, made).await,
        };
        if started.is_ok() {
            self.record(network, id, true).await?;
        } else if *made == Made::default() {
            let begun = Record::begun(network, id);
            self.forget(|known| *known == begun).await;
        }
        started.map(|()| FaultStatus::Running)
    }

    /// The interfaces with latency or loss: of those that the network has now, and of those that it had when a fault was started.
    async fn shapes(&self, run: &Run<'_>, network: &FaultNetwork) -> Result<Vec<(String, Shape)>, FaultError> {
        let current = &network.interfaces.names;
        let mut shapes = Vec::new();
        for interface in current {
            shapes.extend(run.shape(interface).await?.map(|shape| (interface.clone(), shape)));
        }
        let records = self.records.all().await;
        let here = records.into_iter().filter(|record| record.namespace == network.namespace);
        let earlier: BTreeSet<String> = here.flat_map(|record| record.interfaces).collect();
        for interface in earlier.into_iter().filter(|name| !current.contains(name)) {
            // An interface that is gone has no fault.
            if let Ok(Some(shape)) = run.shape(&interface).await {
                shapes.push((interface, shape));
            }
        }
        Ok(shapes)
    }

    async fn record(&self, network: &FaultNetwork, fault: FaultId, is_complete: bool) -> Result<(), FaultError> {
        let new = Record { is_complete, ..Record::begun(network, fault) };
        let changed = self.records.change(|list| {
            list.retain(|known| !(known.is_same_fault(&new) && known.task == new.task));
            list.push(new.clone());
        });
        changed.await.map_err(|error| {
            tracing::error!(task = network.task.task_id(), %error, "the network fault is not started");
            FaultError::Failed
        })
    }

    /// Drops records. Returns whether that succeeded. If it did not, the next start of the agent finds nothing to remove.
    async fn forget(&self, is_over: impl Fn(&Record) -> bool) -> bool {
        let changed = self.records.change(|list| list.retain(|known| !is_over(known))).await;
        changed.inspect_err(|error| tracing::warn!(%error, "the end of a network fault is not saved")).is_ok()
    }

    /// Removes what a failed start has made. If that fails, the record stays, and [`Self::take_back`] tries again.
    async fn undo(&self, begun: &Record, made: &Made) {
        if self.is_removed(begun, made, Instant::now() + REMOVAL).await {
            self.forget(|known| known == begun).await;
        } else {
            let task = begun.task.task_id();
            tracing::error!(task, fault = %begun.fault, "the rest of a failed network fault cannot be removed yet");
        }
    }

    /// Removes these parts of a fault. Returns whether nothing of them is left.
    async fn is_removed(&self, record: &Record, made: &Made, deadline: Instant) -> bool {
        if record.namespace.as_ref().is_some_and(|file| !Path::new(file).exists()) {
            return true; // the network is gone, with everything in it
        }
        let run = self.run(&record.namespace, &record.task, deadline);
        let mut is_gone = true;
        if let FaultId::Blackhole(port) = record.fault {
            for family in &made.families {
                is_gone &=
                    run.has_chain(*family, port).await == Ok(false) || run.stop_family(*family, port).await.is_ok();
            }
        }
        for interface in &made.interfaces {
            // After a restart of the host, the interface may have a tree that is not ours. A fault whose start was cut off may
            // have no more than the root.
            let is_there = match record.is_complete {
                true => run.shape(interface).await.map(|shape| shape.is_some()),
                false => run.has_root(interface).await,
            };
            is_gone &= is_there == Ok(false) || run.stop_shape(interface).await.is_ok();
        }
        is_gone
    }
}

/// Whether an interface has this shape.
fn has(shapes: &[(String, Shape)], wanted: Shape) -> bool {
    shapes.iter().any(|(_, shape)| *shape == wanted)
}

impl Made {
    /// Everything that a start of this fault may have made.
    fn everything(record: &Record) -> Self {
        Self { families: Family::BOTH.to_vec(), interfaces: record.interfaces.clone() }
    }
}

#[cfg(test)]
mod tests;
