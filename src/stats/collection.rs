//! The statistics of all containers.
//!
//! Owns which containers are tracked: those that run, of tasks that have not ended (spec `stats.md` §2), pause containers included.
//! A container between two runs is not tracked, but its statistics are kept.

use super::carried::Carried;
use super::history::{History, TaskStats};
use super::saved::Saved;
use ecs_core::model::task::NetworkMode;
use ecs_core::model::usage::{LastStatistics, Process, Reading};
use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{ContainerKind, ContainerName, ContainerStatus, RuntimeId, TaskArn, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Docker's names for networks in which a container has no interfaces of its own.
const WITHOUT_INTERFACES: [&str; 2] = ["host", "none"];

/// A container whose statistics are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Docker's id of the container.
    pub id: RuntimeId,
    /// Its first process.
    pub process: Process,
    /// It has network interfaces of its own.
    pub has_networks: bool,
}

/// The statistics of all containers.
#[derive(Debug)]
pub struct Collection {
    containers: BTreeMap<RuntimeId, Container>,
    /// What earlier processes of the agent have saved, of containers that this one has not seen running yet.
    saved: Saved,
    /// How many readings are kept of each container.
    capacity: usize,
    /// How often what is to be saved has changed.
    changes: u64,
}

#[derive(Debug)]
struct Container {
    task: TaskArn,
    family: String,
    version: String,
    name: ContainerName,
    /// It only holds the interfaces of the others.
    is_network_pause: bool,
    /// `None`: the container is between two runs.
    process: Option<Process>,
    restarts: Option<u32>,
    history: History,
}

/// What a report has.
#[derive(Clone, Debug, PartialEq)]
pub enum Gathered {
    /// No container is tracked.
    Idle,
    /// Containers are tracked, but there is too little to report of any of them.
    TooLittle,
    /// The figures of these tasks.
    Tasks(Vec<TaskStats>),
}

impl Collection {
    /// Nothing is tracked yet. `capacity`: how many readings are kept of each container.
    pub fn new(saved: Saved, capacity: usize) -> Self {
        Self { containers: BTreeMap::new(), saved, capacity, changes: 0 }
    }

    /// Tracks the containers that run in this view, and forgets those that will not run again. Returns the tracked ones.
    pub fn track(&mut self, view: &View) -> Vec<Tracked> {
        let mut before = std::mem::take(&mut self.containers);
        let mut tracked = Vec::new();
        for (task, container) in live(view) {
            let Some(id) = &container.runtime_id else { continue };
            let known = before.remove(id).map(|known| known.history);
            let history = match (&container.process, known) {
                (_, Some(history)) => history,
                (Some(_), None) => History::new(self.saved.0.remove(id), self.capacity),
                (None, None) => continue,
            };
            self.containers.insert(id.clone(), Container::new(task, container, history));
            if let Some(process) = container.process.clone() {
                tracked.push(Tracked { id: id.clone(), process, has_networks: has_interfaces(task, container) });
            }
        }
        // Those that are left will not run again.
        let mut has_changed = before.values().any(|container| container.to_save().is_some());
        if !view.is_incomplete {
            let known: BTreeSet<_> = live(view).filter_map(|(_, container)| container.runtime_id.as_ref()).collect();
            let saved = self.saved.0.len();
            self.saved.0.retain(|id, _| known.contains(id));
            has_changed |= self.saved.0.len() < saved;
        }
        self.changes += u64::from(has_changed);
        tracked
    }

    /// Adds a reading of a tracked container.
    pub fn add(&mut self, reading: Reading, process: &Process) {
        let Some(container) = self.containers.get_mut(&reading.id) else { return };
        // A reading of a run that has ended meanwhile would count as one of the next run.
        if container.process.as_ref() == Some(process) {
            let has_changed = container.history.add(reading, process, container.restarts);
            self.changes += u64::from(has_changed);
        }
    }

    /// The last statistics of a container. Those of a container between two runs are the last of its last run.
    pub fn lookup(&self, id: &RuntimeId) -> LastStatistics {
        let container = self.containers.get(id);
        container.map_or(LastStatistics::Untracked, |container| {
            container.history.last().map_or(LastStatistics::Waiting, LastStatistics::Known)
        })
    }

    /// What a report has, in the order of tasks. The readings in it are not in the next report.
    pub fn gather(&mut self) -> Gathered {
        if self.containers.values().all(|container| container.process.is_none()) {
            return Gathered::Idle;
        }
        let mut tasks: BTreeMap<&TaskArn, TaskStats> = BTreeMap::new();
        for container in self.containers.values() {
            let Some(mut stats) = container.history.report(&container.name) else { continue };
            if container.is_network_pause {
                // The other containers report them (spec `stats.md` §5).
                stats.network = None;
            }
            let task = tasks.entry(&container.task).or_insert_with(|| TaskStats {
                arn: container.task.clone(),
                family: container.family.clone(),
                version: container.version.clone(),
                containers: Vec::new(),
            });
            task.containers.push(stats);
        }
        let mut tasks: Vec<_> = tasks.into_values().collect();
        if tasks.is_empty() {
            return Gathered::TooLittle;
        }
        for task in &mut tasks {
            task.containers.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self.containers.values_mut().for_each(|container| container.history.take());
        Gathered::Tasks(tasks)
    }

    /// What the next process of the agent must know.
    pub fn to_save(&self) -> Saved {
        let mut saved = self.saved.clone();
        for (id, container) in &self.containers {
            saved.0.extend(container.to_save().map(|carried| (id.clone(), Arc::clone(carried))));
        }
        saved
    }

    /// How often that has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

impl Container {
    fn new(task: &TaskView, container: &ContainerView, history: History) -> Self {
        Self {
            task: task.arn.clone(),
            family: task.family.clone(),
            version: task.version.clone(),
            name: container.name.clone(),
            is_network_pause: container.kind == ContainerKind::Pause && task.network == NetworkMode::Awsvpc,
            process: container.process.clone(),
            restarts: container.restarts,
            history,
        }
    }

    fn to_save(&self) -> Option<&Arc<Carried>> {
        self.history.carried().filter(|_| self.restarts.is_some())
    }
}

/// The containers that run, or may run again, with their tasks.
fn live(view: &View) -> impl Iterator<Item = (&TaskView, &ContainerView)> {
    let tasks = view.tasks.iter().filter(|task| task.known < TaskStatus::Stopped && !task.family.is_empty());
    let containers = tasks.flat_map(|task| task.containers.iter().map(move |container| (&**task, container)));
    containers.filter(|(_, container)| container.known < ContainerStatus::Stopped)
}

/// In network mode `awsvpc`, all containers of a task show the task's interfaces.
fn has_interfaces(task: &TaskView, container: &ContainerView) -> bool {
    task.network == NetworkMode::Awsvpc
        || container.networks.iter().any(|network| !WITHOUT_INTERFACES.contains(&network.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::observation::Network;
    use ecs_core::model::usage::{CpuUsage, Interface, Traffic, Usage};

    fn run(pid: u32) -> Process {
        Process { pid, started_at: "".into() }
    }

    fn container(name: &str, pid: Option<u32>, restarts: Option<u32>) -> ContainerView {
        ContainerView {
            name: name.into(),
            runtime_id: Some(format!("id-{name}").as_str().into()),
            process: pid.map(run),
            restarts,
            known: ContainerStatus::Running,
            ..ContainerView::default()
        }
    }

    fn task(arn: &str, containers: Vec<ContainerView>) -> Arc<TaskView> {
        let (family, version) = ("family".to_owned(), "1".to_owned());
        Arc::new(TaskView { arn: arn.into(), family, version, containers, ..TaskView::default() })
    }

    fn view(tasks: Vec<Arc<TaskView>>) -> View {
        View { tasks, ..View::default() }
    }

    fn reading(name: &str, at: u64, total: u64) -> Reading {
        let usage = Usage { cpu: CpuUsage { total, online: 1, ..CpuUsage::default() }, ..Usage::default() };
        Reading { id: format!("id-{name}").as_str().into(), at: at * 1_000_000_000, usage, ..Reading::default() }
    }

    fn total(collection: &Collection, name: &str) -> Option<u64> {
        match collection.lookup(&format!("id-{name}").as_str().into()) {
            LastStatistics::Known(statistics) => Some(statistics.usage.cpu.total),
            LastStatistics::Waiting | LastStatistics::Untracked => None,
        }
    }

    #[test]
    fn running_containers_are_tracked_and_reported_by_task() {
        let mut collection = Collection::new(Saved::default(), 80);
        assert_eq!(collection.gather(), Gathered::Idle);
        let main = || container("main", Some(1), None);
        let tasks = vec![
            task("b", vec![main(), container("created", None, None)]),
            task("a", vec![container("a", Some(2), None)]),
        ];
        let tracked = collection.track(&view(tasks.clone()));
        assert_eq!(tracked.iter().map(|tracked| tracked.id.as_str()).collect::<Vec<_>>(), ["id-main", "id-a"]);
        assert_eq!(collection.lookup(&"id-main".into()), LastStatistics::Waiting);
        assert_eq!(collection.lookup(&"id-created".into()), LastStatistics::Untracked);
        assert_eq!(collection.gather(), Gathered::TooLittle);
        for at in 1..=3 {
            collection.add(reading("main", at, 10), &run(1));
        }
        collection.add(reading("unknown", 1, 10), &run(1));
        let Gathered::Tasks(reported) = collection.gather() else { panic!("there is something to report") };
        assert_eq!(reported.len(), 1, "the other task has no figures yet");
        assert_eq!((reported[0].arn.as_str(), reported[0].containers[0].memory.count), ("b", 3));
        assert_eq!(collection.gather(), Gathered::TooLittle, "nothing new");
        let stopped = TaskView { known: TaskStatus::Stopped, ..(*tasks[0]).clone() };
        assert_eq!(collection.track(&view(vec![Arc::new(stopped)])), []);
        assert_eq!(collection.lookup(&"id-main".into()), LastStatistics::Untracked);
        assert_eq!(collection.gather(), Gathered::Idle);
    }

    #[test]
    fn a_container_between_two_runs_is_not_forgotten() {
        let mut collection = Collection::new(Saved::default(), 80);
        let with = |pid, restarts| view(vec![task("a", vec![container("main", pid, Some(restarts))])]);
        collection.track(&with(Some(1), 0));
        collection.add(reading("main", 1, 100), &run(1));
        assert_eq!(collection.track(&with(None, 1)), []);
        assert_eq!(total(&collection, "main"), Some(100));
        assert_eq!(collection.gather(), Gathered::Idle);
        collection.track(&with(Some(2), 1));
        collection.add(reading("main", 2, 900), &run(1));
        assert_eq!(
            (total(&collection, "main"), collection.changes()),
            (Some(100), 0),
            "a late reading of the run before"
        );
        collection.add(reading("main", 3, 7), &run(2));
        assert_eq!((total(&collection, "main"), collection.changes()), (Some(107), 1));

        // An agent that starts again goes on with what was saved.
        let saved = collection.to_save();
        let mut next = Collection::new(saved.clone(), 80);
        next.track(&View { is_incomplete: true, ..View::default() });
        assert_eq!(next.to_save(), saved, "tasks may be missing in this view");
        next.track(&with(None, 1));
        assert_eq!(next.to_save(), saved, "the container does not run yet");
        let mut ended = Collection::new(saved.clone(), 80);
        ended.track(&View::default());
        assert_eq!((ended.to_save(), ended.changes()), (Saved::default(), 1), "it ended while no agent ran");
        next.track(&with(Some(2), 1));
        next.add(reading("main", 1, 9), &run(2));
        assert_eq!(total(&next, "main"), Some(109));
        assert_eq!((next.to_save(), next.changes()), (saved, 0));
        next.track(&View::default());
        assert_eq!((next.to_save(), next.changes()), (Saved::default(), 1), "the task is gone");
    }

    #[test]
    fn the_network_of_a_pause_container_is_not_reported() {
        let mut collection = Collection::new(Saved::default(), 80);
        let pause = ContainerView { kind: ContainerKind::Pause, ..container("pause", Some(1), None) };
        let containers = vec![container("main", Some(2), None), pause];
        let own = TaskView { network: NetworkMode::Awsvpc, ..(*task("a", containers)).clone() };
        let tracked = collection.track(&view(vec![Arc::new(own)]));
        assert!(tracked.iter().all(|tracked| tracked.has_networks), "task metadata shows it of both: {tracked:?}");
        for (name, pid) in [("pause", 1), ("main", 2)] {
            for at in 1..=3 {
                let mut reading = reading(name, at, 10);
                let traffic = Traffic { rx_bytes: at * 100, ..Traffic::default() };
                reading.usage.networks = vec![Interface { name: "eth0".to_owned(), traffic }];
                collection.add(reading, &run(pid));
            }
        }
        let Gathered::Tasks(reported) = collection.gather() else { panic!("there is something to report") };
        let networks = reported[0].containers.iter().map(|stats| (stats.name.as_str(), stats.network.is_some()));
        assert_eq!(networks.collect::<Vec<_>>(), [("main", true), ("pause", false)]);
    }

    #[test]
    fn a_container_without_interfaces_of_its_own_has_no_networks() {
        let named = |names: &[&str]| {
            let network = |name: &&str| Network { name: (*name).to_owned(), ipv4: String::new(), ipv6: String::new() };
            let networks = names.iter().map(network).collect();
            has_interfaces(&TaskView::default(), &ContainerView { networks, ..ContainerView::default() })
        };
        for (names, expected) in [
            (&["bridge"][..], true),
            (&["a", "b"], true),
            (&["container:0123"], true),
            (&["host"], false),
            (&["none"], false),
            (&[], false),
        ] {
            assert_eq!(named(names), expected, "{names:?}");
        }
    }
}
