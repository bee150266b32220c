//! The model of ECS: what it wants, what it has sent, and what the agent has reported.
//!
//! Invariant: like the real ECS, it never sends a task again that it knows to be stopped.

use crate::schedule::Rng;
use ecs_core::model::resource::{CgroupSpec, ResourceKind, ResourceSpec, VolumeScope, VolumeSpec};
use ecs_core::model::task::{
    Condition, ContainerKind, Dependency, EcrAuth, NETWORK_PAUSE_NAME, NetworkMode, PAUSE_IMAGE, PAUSE_NAME,
    PortMapping, RegistryAuth, RestartPolicy, SecretAuth,
};
use ecs_core::model::{
    Ack, ContainerName, ContainerSpec, ContainerStatus, CredentialsId, Interface, InterfaceKind, MacAddress, Protocol,
    Span, StateChange, TaskArn, TaskSpec, TaskStatus,
};
use ecs_core::{Event, PayloadTask};
use std::collections::{BTreeMap, BTreeSet};

/// The pause container of a task with interfaces of its own.
pub(crate) const PAUSE: &str = NETWORK_PAUSE_NAME;

/// The largest number of tasks in one schedule.
pub(crate) const MAX_TASKS: usize = 4;

/// The reported statuses of a task and its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) status: TaskStatus,
    pub(crate) containers: BTreeMap<ContainerName, ContainerStatus>,
}

impl Reported {
    pub(crate) fn add(&mut self, change: &StateChange) {
        self.status = self.status.max(change.status);
        for container in &change.containers {
            let status = self.containers.entry(container.container.clone()).or_default();
            *status = container.status.max(*status);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EcsTask {
    pub(crate) wants_stop: bool,
    /// The containers of the task that ECS knows.
    pub(crate) containers: Vec<ContainerName>,
    /// The statuses that ECS has accepted or refused for good, whether or not the answer reached the agent.
    pub(crate) accepted: Reported,
    /// The part of `accepted` whose answers have reached the agent and are committed.
    pub(crate) confirmed: Reported,
    /// The agent has committed a message that requests the stop of the task.
    pub(crate) stop_arrived: bool,
    pub(crate) credentials: Option<CredentialsId>,
    /// The id of the latest credentials of the task role; `None` if the task has no such role.
    pub(crate) role: Option<CredentialsId>,
    /// The state of the agent was lost after the task was sent, so the agent may not know the task.
    pub(crate) lost: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) seq: i64,
    pub(crate) ack: Ack,
    pub(crate) tasks: Vec<PayloadTask>,
}

#[derive(Debug, Default)]
pub(crate) struct Ecs {
    pub(crate) tasks: BTreeMap<TaskArn, EcsTask>,
    /// Messages that are not acknowledged yet.
    pub(crate) messages: Vec<Message>,
    /// All messages that were ever sent.
    pub(crate) sent: Vec<Message>,
    /// The timelines of all manifests, by message id.
    pub(crate) manifests: BTreeMap<String, i64>,
    /// All manifests as events; any of them may arrive late or again.
    pub(crate) lists: Vec<Event>,
    /// Message ids of manifests that were acknowledged.
    pub(crate) acknowledged: BTreeSet<String>,
    /// Answers that confirm which tasks must stop; each may arrive more than once.
    pub(crate) confirmations: Vec<Event>,
    pub(crate) acks_to_lose: u8,
    seq: i64,
    made: usize,
}

fn ack(message_id: String) -> Ack {
    Ack {
        message_id,
        cluster: "cluster".to_owned(),
        container_instance: "instance".to_owned(),
        credentials: Vec::new(),
    }
}

/// The names of the customer's containers, without those of the agent.
fn customer_containers(spec: &TaskSpec) -> Vec<ContainerName> {
    spec.containers
        .iter()
        .filter(|container| container.kind == ContainerKind::Normal)
        .map(|container| container.name.clone())
        .collect()
}

impl Ecs {
    pub(crate) fn send(&mut self, shape: u64) {
        let mut rng = Rng(shape);
        let mut tasks = Vec::new();
        for _ in 0..=u64::from(rng.percent(25)) {
            if self.made < MAX_TASKS {
                let arn = self.new_task();
                let spec = spec(&mut rng, arn.clone());
                let task = self.tasks.get_mut(&arn).expect("just made");
                task.credentials.clone_from(&spec.execution_credentials);
                task.role.clone_from(&spec.role_credentials);
                task.containers = customer_containers(&spec);
                tasks.push(PayloadTask::Run(Box::new(spec)));
            }
        }
        self.message(tasks);
    }

    /// Sends a task with a given specification.
    pub(crate) fn send_task(&mut self, spec: impl FnOnce(TaskArn) -> TaskSpec) -> TaskArn {
        let arn = self.new_task();
        let spec = spec(arn.clone());
        self.tasks.get_mut(&arn).expect("just made").containers = customer_containers(&spec);
        self.message(vec![PayloadTask::Run(Box::new(spec))]);
        arn
    }

    fn new_task(&mut self) -> TaskArn {
        self.made += 1;
        let arn = TaskArn::from(format!("task/{}", self.made));
        let task = EcsTask {
            wants_stop: false,
            containers: Vec::new(),
            accepted: Reported::default(),
            confirmed: Reported::default(),
            stop_arrived: false,
            credentials: None,
            role: None,
            lost: false,
        };
        self.tasks.insert(arn.clone(), task);
        arn
    }

    fn message(&mut self, tasks: Vec<PayloadTask>) {
        if !tasks.is_empty() {
            self.seq += 1;
            let message = Message { seq: self.seq, ack: ack(format!("message-{}", self.seq)), tasks };
            self.sent.push(message.clone());
            self.messages.push(message);
        }
    }

    pub(crate) fn stop(&mut self, pick: usize) {
        if let Some(arn) = self.stop_silently(pick) {
            let containers = self.tasks[&arn].containers.clone();
            self.message(vec![PayloadTask::Stop(arn, containers)]);
        }
    }

    pub(crate) fn stop_silently(&mut self, pick: usize) -> Option<TaskArn> {
        let at = pick.checked_rem(self.tasks.len())?;
        let (arn, task) = self.tasks.iter_mut().nth(at)?;
        task.wants_stop = true;
        Some(arn.clone())
    }

    pub(crate) fn stop_unknown(&mut self) {
        if self.made < MAX_TASKS {
            let arn = self.new_task();
            let task = self.tasks.get_mut(&arn).expect("just made");
            (task.wants_stop, task.containers) = (true, vec!["a".into(), "b".into()]);
            let containers = task.containers.clone();
            self.message(vec![PayloadTask::Stop(arn, containers)]);
        }
    }

    pub(crate) fn refuse(&mut self) {
        if self.made < MAX_TASKS {
            let arn = self.new_task();
            self.message(vec![PayloadTask::Refused { arn, reason: "not supported".to_owned() }]);
        }
    }

    /// The agent has lost its state, and with it everything that it reported and received.
    pub(crate) fn state_lost(&mut self) {
        for task in self.tasks.values_mut() {
            (task.confirmed, task.stop_arrived, task.lost) = (Reported::default(), false, true);
        }
        self.acknowledged.clear(); // the last manifest is forgotten too
    }

    pub(crate) fn stop_all(&mut self) {
        let arns: Vec<TaskArn> = self.tasks.keys().cloned().collect();
        for arn in arns {
            let task = self.tasks.get_mut(&arn).expect("listed");
            task.wants_stop = true;
            if std::mem::take(&mut task.lost) || task.accepted.status != TaskStatus::Stopped {
                let containers = task.containers.clone();
                self.message(vec![PayloadTask::Stop(arn, containers)]);
            }
        }
    }

    /// One of these messages as it arrives, without tasks that ECS knows to be stopped; `None` if there is none.
    pub(crate) fn arriving(&self, among: &[Message], pick: usize) -> Option<Message> {
        let mut message = among.get(pick.checked_rem(among.len())?)?.clone();
        message.tasks.retain(|task| match task {
            PayloadTask::Run(spec) => self.tasks[&spec.arn].accepted.status != TaskStatus::Stopped,
            PayloadTask::Refused { arn, .. } => self.tasks[arn].accepted.status != TaskStatus::Stopped,
            PayloadTask::Stop(..) => true,
        });
        for task in &mut message.tasks {
            if let PayloadTask::Run(spec) = task {
                spec.execution_credentials.clone_from(&self.tasks[&spec.arn].credentials);
                spec.role_credentials.clone_from(&self.tasks[&spec.arn].role);
            }
        }
        Some(message)
    }

    pub(crate) fn manifest(&mut self) -> Event {
        self.seq += 1;
        let message_id = format!("manifest-{}", self.seq);
        self.manifests.insert(message_id.clone(), self.seq);
        let wanted = |task: &EcsTask| !task.wants_stop && task.accepted.status != TaskStatus::Stopped;
        let running = self.tasks.iter().filter(|(_, task)| wanted(task)).map(|(arn, _)| arn.clone()).collect();
        let manifest = Event::Manifest { timeline: self.seq, running, ack: ack(message_id) };
        self.lists.push(manifest.clone());
        manifest
    }

    pub(crate) fn asked_to_stop(&mut self, message_id: &str, doubted: &[TaskArn]) {
        let mut tasks: Vec<TaskArn> = doubted.to_vec();
        tasks.retain(|arn| self.tasks.get(arn).is_none_or(|task| task.wants_stop));
        self.confirmations.push(Event::StopVerificationAck { message_id: message_id.to_owned(), tasks });
    }
}

/// A random task: small enough to run to its end, and unusual enough to find bugs.
fn spec(rng: &mut Rng, arn: TaskArn) -> TaskSpec {
    let count = 1 + rng.below(3);
    let mut containers: Vec<ContainerSpec> = (0..count).map(|index| container(rng, index)).collect();
    for index in 1..containers.len() {
        if rng.percent(60) {
            let on = rng.below(index as u64) as usize;
            depend(rng, &mut containers, index, on);
        }
    }
    if rng.percent(3) {
        depend(rng, &mut containers, 0, 0); // unsolvable
    }
    // The order in the task definition is independent of the start order.
    if rng.percent(30) {
        containers.reverse();
    }
    // Some tasks have a pause container, which ends last.
    // Without drawing from `rng`, so that all other tasks are as they were before there were networks.
    let interfaces = interfaces(Rng(rng.0 ^ 0x0e71), &arn);
    if arn.as_str().ends_with(['3', '7']) || !interfaces.is_empty() {
        let pause_name = if interfaces.is_empty() { PAUSE_NAME } else { PAUSE };
        let on_pause = || Dependency { container: pause_name.into(), condition: Condition::Start };
        containers.iter_mut().for_each(|container| container.depends_on.push(on_pause()));
        let kind = ContainerKind::Pause;
        let (name, image) = (pause_name.into(), PAUSE_IMAGE.to_owned());
        containers.push(ContainerSpec { name, kind, image, essential: true, ..ContainerSpec::default() });
    }
    let mut resources = if rng.percent(30) { resources(rng, &mut containers) } else { Vec::new() };
    // The first container of some tasks with a task role mounts a volume with it.
    if arn.as_str().ends_with(['4', '8']) {
        let volume = VolumeSpec { runtime_name: format!("v-{arn}"), with_role: true, ..volume() };
        let needed_by = containers.first().map(|container| container.name.clone()).into_iter().collect();
        resources.push(ResourceSpec { name: "volume".to_owned(), needed_by, kind: ResourceKind::Volume(volume) });
    }
    let needs_role = containers.iter().any(|container| container.registry_auth != RegistryAuth::Engine)
        || resources.iter().any(|resource| resource.kind.needs_execution_role());
    let id = CredentialsId::from(format!("credentials-of-{arn}"));
    // Every other task has a task role, and sends its logs with the execution role, if it has one.
    let has_task_role = arn.as_str().ends_with(['0', '2', '4', '6', '8']);
    let role = CredentialsId::from(format!("role-of-{arn}"));
    containers.iter_mut().for_each(|container| container.logs_with_execution_role = has_task_role && needs_role);
    TaskSpec {
        arn,
        family: "family".to_owned(),
        version: "1".to_owned(),
        containers,
        resources,
        execution_credentials: needs_role.then_some(id),
        role_credentials: has_task_role.then_some(role),
        cpu_micros: if rng.percent(10) { 300_000 + 500_000 * rng.below(2) } else { 0 },
        memory: if rng.percent(10) { 100 + 400 * rng.below(2) } else { 0 },
        network: if interfaces.is_empty() { NetworkMode::Bridge } else { NetworkMode::Awsvpc },
        interfaces,
        ..TaskSpec::default()
    }
}

/// The interfaces of a task; none for most tasks. The second of two may be a branch interface.
fn interfaces(mut rng: Rng, arn: &TaskArn) -> Vec<Interface> {
    if !rng.percent(35) {
        return Vec::new();
    }
    let task: u8 = arn.task_id().parse().unwrap_or_default();
    let is_branch = rng.percent(30);
    let interface = |nth: u8| Interface {
        id: format!("eni-{task}-{nth}"),
        attachment: format!("attachment/{task}-{nth}"),
        mac: MacAddress([6, 0, 0, 0, task, nth]),
        kind: match is_branch && nth > 0 {
            true => InterfaceKind::Branch { vlan: 101, trunk: MacAddress([6, 0, 0, 0, 0, 9]) },
            false => InterfaceKind::Standard,
        },
        ..Interface::default()
    };
    (0..1 + rng.below(2) as u8).map(interface).collect()
}

fn volume() -> VolumeSpec {
    VolumeSpec {
        runtime_name: String::new(),
        driver: "driver".to_owned(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        scope: VolumeScope::Task,
        with_role: false,
        in_network: false,
    }
}

/// One or two resources, with the three lifetimes that the core distinguishes.
fn resources(rng: &mut Rng, containers: &mut [ContainerSpec]) -> Vec<ResourceSpec> {
    let mut resource = |rng: &mut Rng, nth: u64| {
        let needed_by: Vec<_> =
            containers.iter().filter(|_| rng.percent(60)).map(|container| container.name.clone()).collect();
        let kind = match rng.below(100) {
            0..50 => ResourceKind::Cgroup(CgroupSpec::default()),
            // A task has one resource for all its credential specs.
            bits if bits < 80 || nth > 0 => ResourceKind::Secrets(Vec::new()),
            bits => {
                // Half of the tickets are domainless, and are renewed with new credentials of the task.
                let spec = if bits < 90 { "credentialspec:file://" } else { "credentialspecdomainless:file://" };
                let spec = format!("{spec}{nth}");
                let users = containers.iter_mut().filter(|container| needed_by.contains(&container.name));
                users.for_each(|container| container.credential_spec = Some(spec.clone()));
                ResourceKind::CredentialSpecs(vec![spec])
            }
        };
        ResourceSpec { name: format!("r{nth}"), needed_by, kind }
    };
    (0..1 + rng.below(2)).map(|nth| resource(rng, nth)).collect()
}

fn depend(rng: &mut Rng, containers: &mut [ContainerSpec], index: usize, on: usize) {
    let condition = match rng.below(4) {
        0 => Condition::Start,
        1 => Condition::Complete,
        2 => Condition::Success,
        _ => Condition::Healthy,
    };
    containers[on].health_check |= condition == Condition::Healthy && !rng.percent(3);
    if condition != Condition::Start {
        // A container that others wait for to end is not essential, or the task would stop with it.
        containers[on].essential &= condition == Condition::Healthy;
    }
    if rng.percent(20) {
        containers[on].start_timeout = Some(Span::secs(1 + rng.below(60)));
    }
    containers[index].depends_on.push(Dependency { container: containers[on].name.clone(), condition });
}

fn container(rng: &mut Rng, index: u64) -> ContainerSpec {
    let by_role = EcrAuth { use_execution_role: true, ..EcrAuth::default() };
    let port = PortMapping { container_port: 80, host_port: 80 + rng.below(2) as u16, protocol: Protocol::Tcp };
    ContainerSpec {
        name: ContainerName::from(format!("c{index}")),
        image: format!("image-{}{}", rng.below(3), if rng.percent(10) { "@sha256:fixed" } else { "" }),
        essential: rng.percent(70),
        cpu: [0, 128, 512, 2048][rng.below(100) as usize % 13 % 4],
        memory: 64,
        memory_reservation: if rng.percent(30) { 300 } else { 0 },
        ports: if rng.percent(20) { vec![port] } else { Vec::new() },
        gpus: if rng.percent(8) { vec![format!("gpu-{}", rng.below(2))] } else { Vec::new() },
        restart: rng.percent(25).then(|| RestartPolicy {
            ignored_exit_codes: if rng.percent(50) { vec![0, 3] } else { Vec::new() },
            attempt_period: Span::secs([5, 60][rng.below(2) as usize]),
        }),
        health_check: rng.percent(10),
        registry_auth: match rng.below(100) {
            0..=9 => RegistryAuth::Ecr(by_role),
            10..=14 => RegistryAuth::Secret(SecretAuth::default()),
            _ => RegistryAuth::Engine,
        },
        ..ContainerSpec::default()
    }
}
