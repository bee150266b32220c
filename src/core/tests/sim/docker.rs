//! The model of Docker: containers, images, events. Owns what is true on the host, and does not know the agent.
//!
//! Invariant: `truth` only grows. The laws judge the agent by it, even if the agent got the events late or never.

use crate::control::PAUSE;
use crate::network::Run;
use ecs_core::model::image::{ImageListing, ImageWork, ListedContainer, ListedImage};
use ecs_core::model::observation::{GivenIds, LastCheck};
use ecs_core::model::{
    ContainerKind, ContainerName, ContainerSpec, CreateRequest, CredentialsId, Failure, FailureKind, Health,
    Observation, OpError, OwnerId, OwnerMark, RunState, RuntimeId, Span, TaskArn, TaskSpec, TextMap, task::Condition,
};
use ecs_core::{Effect, Event, Message, Operation, Outcome, Output};
use std::collections::{BTreeMap, BTreeSet};

/// The identity of the other agent, which uses the same Docker and has a data directory of the same name.
pub(crate) const OTHER_AGENT: &str = "rival";
/// The id that customers give to their containers without a task role.
pub(crate) const OWN_ID: &str = "own";
/// The data directory of the agent.
pub(crate) const DATA_DIRECTORY: &str = "8:1 /data";

/// One container that exists.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: RuntimeId,
    pub(crate) name: String,
    pub(crate) task: TaskArn,
    pub(crate) container: ContainerName,
    pub(crate) state: RunState,
    pub(crate) exit_code: Option<i32>,
    /// Docker's error for the container; `None` if there is none.
    pub(crate) error: Option<Failure>,
    pub(crate) health: Health,
    pub(crate) health_check: bool,
    pub(crate) started: bool,
    /// The number of the container's last start, counted over all containers.
    pub(crate) run: u64,
    /// Id of the container's image.
    pub(crate) image: String,
    /// The container has a restart policy.
    pub(crate) restarts: bool,
    /// The last start came late or from a person, so the agent could not know of it when it happened.
    pub(crate) unsolicited: bool,
    /// A person has renamed the container.
    pub(crate) renamed: bool,
    /// Somebody else created the container, and the agent must leave it alone.
    pub(crate) foreign: bool,
    /// The label that names the agent that created the container; `None` if there is none.
    pub(crate) owner: Option<OwnerId>,
    /// The label with the outline of the container's task; `None` if there is none.
    pub(crate) outline: Option<Box<TaskSpec>>,
    /// The run of the pause container whose namespace the container is in; `None`: it is in its own.
    pub(crate) joined: Option<Run>,
    /// The ids of the task metadata endpoint in the container's environment.
    pub(crate) ids: GivenIds,
}

/// Everything that has happened to a container of a task, over all its incarnations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) created: bool,
    pub(crate) started: bool,
    pub(crate) exits: BTreeSet<i32>,
    pub(crate) was_healthy: bool,
    /// Number of starts that the agent requested.
    pub(crate) starts: u32,
}

/// A task of the other agent.
fn other_agents_task() -> TaskSpec {
    let container = |name: &str| ContainerSpec { name: name.into(), essential: true, ..ContainerSpec::default() };
    TaskSpec {
        arn: "task/of-a-rival".into(),
        family: "family".to_owned(),
        version: "1".to_owned(),
        containers: ["r0", "r1", "r2"].map(container).to_vec(),
        ..TaskSpec::default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Docker {
    pub(crate) containers: Vec<Container>,
    pub(crate) images: BTreeSet<String>,
    /// Resources of tasks that exist outside the agent's memory.
    pub(crate) resources: BTreeSet<(TaskArn, String)>,
    /// Events on the way to the agent.
    pub(crate) events: Vec<Event>,
    pub(crate) truth: BTreeMap<(TaskArn, ContainerName), Truth>,
    /// Number of foreign containers.
    pub(crate) foreign_count: usize,
    /// The owner label of new containers; `None` for an older agent, which writes no such label.
    pub(crate) owner: Option<OwnerId>,
    last_id: u64,
    last_run: u64,
}

impl Docker {
    /// A host with some images, and with foreign containers that have labels.
    pub(crate) fn new(with_images: bool) -> Self {
        let mut docker = Self::default();
        if with_images {
            docker.images.extend(["image-0".to_owned(), "image-1".to_owned()]);
        }
        docker.add_foreign_container("elsewhere".to_owned(), RunState::Running);
        docker.add_foreign_container("made-by-hand".to_owned(), RunState::Created);
        let task = other_agents_task();
        for (name, state) in [("r0", RunState::Running), ("r1", RunState::Created), ("r2", RunState::Exited)] {
            docker.add_container_of_other_agent(&task, &name.into(), state);
        }
        docker
    }

    /// Another agent creates a container for a task of the same cluster, which may also be a task of this agent.
    pub(crate) fn add_container_of_other_agent(&mut self, task: &TaskSpec, container: &ContainerName, state: RunState) {
        let name = task.runtime_name(container);
        if self.find(&name).is_some() {
            return;
        }
        self.foreign_count += 1;
        self.push(name, task.arn.clone(), container.clone());
        let container = self.containers.last_mut().expect("just made");
        (container.state, container.started, container.foreign) = (state, state != RunState::Created, true);
        (container.owner, container.outline) = (Some(OTHER_AGENT.into()), Some(Box::new(task.outline())));
        self.send_event(self.containers.len() - 1);
    }

    /// The agents that have containers here, with their data directories.
    pub(crate) fn owner_marks(&self) -> Vec<OwnerMark> {
        let mark = |id: &OwnerId| OwnerMark { id: id.clone(), data_directory: DATA_DIRECTORY.to_owned() };
        self.containers.iter().filter_map(|container| container.owner.as_ref().map(mark)).collect()
    }

    /// Somebody else creates a container.
    pub(crate) fn add_foreign_container(&mut self, name: String, state: RunState) {
        if self.find(&name).is_some() {
            return;
        }
        self.foreign_count += 1;
        let container = ContainerName::from(name.as_str());
        self.push(name, TaskArn::from("task/of-another-agent"), container);
        let foreign = self.containers.last_mut().expect("just made");
        (foreign.state, foreign.started, foreign.foreign) = (state, state == RunState::Running, true);
        foreign.owner = None;
    }

    fn push(&mut self, name: String, task: TaskArn, container: ContainerName) {
        self.last_id += 1;
        self.containers.push(Container {
            id: RuntimeId::from(format!("id-{}", self.last_id)),
            name,
            task,
            container,
            state: RunState::Created,
            exit_code: None,
            error: None,
            health: Health::Unknown,
            health_check: false,
            started: false,
            run: 0,
            image: String::new(),
            restarts: false,
            unsolicited: false,
            renamed: false,
            foreign: false,
            owner: self.owner.clone(),
            outline: None,
            joined: None,
            ids: GivenIds::default(),
        });
    }

    pub(crate) fn find(&self, target: &str) -> Option<usize> {
        self.containers.iter().position(|container| container.id.as_str() == target || container.name == target)
    }

    /// The container with this target, unless it is foreign.
    fn find_ours(&self, target: &str) -> Option<usize> {
        self.find(target).filter(|index| !self.containers[*index].foreign)
    }

    /// The container of a task; `None` if there is none. After a renaming there may be two; the one with the right name is
    /// taken.
    pub(crate) fn container_of(&self, task: &TaskArn, container: &ContainerName) -> Option<&Container> {
        let candidates = self
            .containers
            .iter()
            .filter(|candidate| !candidate.foreign && &candidate.task == task && &candidate.container == container);
        candidates.min_by_key(|candidate| candidate.renamed)
    }

    pub(crate) fn truth_of(&self, task: &TaskArn, container: &ContainerName) -> Truth {
        self.truth.get(&(task.clone(), container.clone())).cloned().unwrap_or_default()
    }

    /// Whether a condition of `dependsOn` has been met, judged by what happened.
    pub(crate) fn fulfils(&self, task: &TaskArn, container: &ContainerName, condition: Condition) -> bool {
        let truth = self.truth_of(task, container);
        match condition {
            Condition::Create => truth.created,
            Condition::Start => truth.started,
            Condition::Complete => !truth.exits.is_empty(),
            Condition::Success => truth.exits.contains(&0),
            Condition::Healthy => truth.was_healthy,
        }
    }

    fn truth_mut(&mut self, index: usize) -> &mut Truth {
        let container = &self.containers[index];
        self.truth.entry((container.task.clone(), container.container.clone())).or_default()
    }

    pub(crate) fn observation(&self, index: usize) -> Observation {
        let container = &self.containers[index];
        Observation {
            task: container.task.clone(),
            container: container.container.clone(),
            owner: container.owner.clone(),
            runtime_name: container.name.clone(),
            runtime_id: container.id.clone(),
            state: container.state,
            pid: (container.state == RunState::Running).then_some(container.run as u32),
            exit_code: container.exit_code,
            error: container.error.clone(),
            health: container.health,
            last_check: LastCheck::default(),
            created_at: None,
            finished_at: None,
            started_at: container.started.then(|| format!("{:09}", container.run)),
            bindings: Vec::new(),
            mounts: Vec::new(),
            address: None,
            labels: TextMap::default(),
            networks: Vec::new(),
            image_id: container.image.clone(),
            image_digest: None,
            health_output: String::new(),
            ids: container.ids.clone(),
            outline: None,
        }
    }

    /// The observation of a container in an inventory, which includes the outline.
    fn listed(&self, index: usize) -> Observation {
        Observation { outline: self.containers[index].outline.clone(), ..self.observation(index) }
    }

    fn send_event(&mut self, index: usize) {
        let seen = self.observation(index);
        self.events.push(Event::Observed(Box::new(seen)));
    }

    pub(crate) fn start(&mut self, index: usize, unsolicited: bool) {
        let container = &mut self.containers[index];
        if container.state == RunState::Running {
            return;
        }
        container.state = RunState::Running;
        (container.exit_code, container.error) = (None, None);
        container.health = Health::Unknown;
        // A second run follows a late start: events of the first may arrive after the answer to the second.
        container.unsolicited = unsolicited || (container.started && !container.restarts);
        container.started = true;
        self.last_run += 1;
        container.run = self.last_run;
        self.join(index);
        let truth = self.truth_mut(index);
        truth.started = true;
        truth.starts += u32::from(!unsolicited);
        self.send_event(index);
    }

    /// A container that starts joins the namespace of its task's pause container.
    fn join(&mut self, index: usize) {
        let task = self.containers[index].task.clone();
        let is_pause = |it: &&Container| it.task == task && !it.foreign && it.container.as_str() == PAUSE;
        let pause = self.containers.iter().find(is_pause).filter(|it| it.state == RunState::Running);
        self.containers[index].joined = pause.map(|it| (it.id.clone(), it.run as u32));
    }

    pub(crate) fn exit(&mut self, index: usize, code: i32) {
        let container = &mut self.containers[index];
        if container.state != RunState::Running {
            return;
        }
        container.state = RunState::Exited;
        container.exit_code = Some(code);
        self.truth_mut(index).exits.insert(code);
        self.send_event(index);
    }

    /// The kernel kills the container because it is out of memory.
    pub(crate) fn run_out_of_memory(&mut self, index: usize) {
        self.containers[index].error = Some(Failure::permanent("OutOfMemoryError", "used too much"));
        self.exit(index, 137);
    }

    /// A refused start leaves a container that never ran, without an exit code and with an error.
    pub(crate) fn refuse(&mut self, target: &str) {
        let Some(index) = self.find_ours(target) else { return };
        let container = &mut self.containers[index];
        if container.state == RunState::Created {
            container.state = RunState::Exited;
            container.error = Some(Failure::permanent("DockerStateError", "no such program"));
            self.send_event(index);
        }
    }

    pub(crate) fn health(&mut self, index: usize, good: bool) {
        let container = &mut self.containers[index];
        if container.state != RunState::Running || !container.health_check {
            return;
        }
        container.health = if good { Health::Healthy } else { Health::Unhealthy };
        self.truth_mut(index).was_healthy |= good;
        self.send_event(index);
    }

    /// The agent's state is lost, so nothing proves to it that a renamed container is ours. From now on the agent need not stop
    /// that container, and a container that it creates instead is started for the first time.
    pub(crate) fn disown_renamed(&mut self) {
        for index in 0..self.containers.len() {
            if self.containers[index].renamed {
                self.containers[index].unsolicited = true;
                self.truth_mut(index).starts = 0;
            }
        }
    }

    /// Renames a container. An agent that has not seen the container before may not find it any more.
    pub(crate) fn rename(&mut self, index: usize) {
        let container = &mut self.containers[index];
        container.name = format!("renamed-{}", container.id);
        (container.renamed, container.unsolicited) = (true, true);
    }

    /// Removes a container; a running one is killed first.
    pub(crate) fn remove(&mut self, index: usize) {
        if self.containers[index].state == RunState::Running {
            self.truth_mut(index).exits.insert(137);
            self.containers[index].exit_code = Some(137);
        }
        let gone = self.containers.remove(index);
        self.events.push(Event::Removed {
            task: gone.task,
            container: gone.container,
            runtime_id: gone.id,
            exit_code: gone.exit_code,
        });
    }

    /// The daemon restarts: its containers end or live on, and events may be missed.
    pub(crate) fn restart(&mut self, bits: u64) {
        let dies = |index: usize| match bits % 4 {
            0 => false, // live restore
            1 => bits >> (index % 60 + 2) & 1 == 0,
            _ => true,
        };
        for index in 0..self.containers.len() {
            if !self.containers[index].foreign && dies(index) {
                self.exit(index, 137);
            }
        }
        self.events.clear();
        self.events.push(Event::EventsMissed);
    }

    fn create(&mut self, request: &CreateRequest) -> Outcome {
        let index = match self.find(&request.runtime_name) {
            Some(index) if self.containers[index].foreign => {
                return Err(OpError::Failed(Failure::permanent("CannotCreateContainerError", "the name is in use")));
            }
            Some(index) => index,
            // The edge loads the image of pause containers.
            None if request.spec.kind == ContainerKind::Pause => self.make(request),
            None if !self.images.contains(&request.spec.image) => {
                let kind = FailureKind::ImageMissing;
                let name = "CannotCreateContainerError".to_owned();
                return Err(OpError::Failed(Failure { name, message: "no such image".to_owned(), kind }));
            }
            None => self.make(request),
        };
        self.seen(Some(index))
    }

    fn make(&mut self, request: &CreateRequest) -> usize {
        self.push(request.runtime_name.clone(), request.task.clone(), request.spec.name.clone());
        let index = self.containers.len() - 1;
        self.containers[index].health_check = request.spec.health_check;
        self.containers[index].image = format!("id-of-{}", request.spec.image);
        self.containers[index].restarts = request.spec.restart.is_some();
        self.containers[index].outline = Some(Box::new(request.outline.clone()));
        // A pause container has no environment. Customers set the variable themselves where there is no role.
        let own = || CredentialsId::from(OWN_ID);
        if request.spec.kind == ContainerKind::Normal {
            self.containers[index].ids = GivenIds {
                endpoint: Some(request.spec.endpoint_id.clone()),
                role: Some(request.role_id.clone().unwrap_or_else(own)),
                execution_role: request.log_role_id.clone(),
            };
        }
        self.truth_mut(index).created = true;
        self.send_event(index);
        index
    }

    /// The outcome of a failed effect. For a pull, the request says whether to check if the image is on this host.
    pub(crate) fn failed(&self, effect: &Effect, failure: Failure) -> Outcome {
        match effect {
            Effect::Do(_, Operation::Pull(image))
                if image.checks_host_after_failure && self.images.contains(&image.image) =>
            {
                Ok(Output::Cached)
            }
            Effect::Do(_, Operation::Pull(image)) if image.checks_host_after_failure => {
                Err(OpError::Failed(Failure { kind: FailureKind::ImageMissing, ..failure }))
            }
            _ => Err(OpError::Failed(failure)),
        }
    }

    /// Executes an operation of the image clean-up. An image that a container uses stays.
    fn clean(&mut self, work: &ImageWork) -> Outcome {
        match work {
            ImageWork::List { disk, .. } => {
                let image = |name: &String| ListedImage {
                    id: format!("id-of-{name}"),
                    names: vec![name.clone()],
                    age: Span::secs(100_000),
                    ..ListedImage::default()
                };
                let container = |listed: &Container| ListedContainer {
                    id: listed.id.clone(),
                    name: listed.name.clone(),
                    owner: listed.owner.clone(),
                    image_id: listed.image.clone(),
                    ended: match listed.state {
                        RunState::Created => Some(Span::MAX),
                        RunState::Exited => Some(Span::secs(5)),
                        RunState::Running => None,
                    },
                };
                Ok(Output::Images(Box::new(ImageListing {
                    images: self.images.iter().map(image).collect(),
                    containers: self.containers.iter().map(container).collect(),
                    disk_percent: disk.then(|| u8::try_from(self.images.len() * 25).unwrap_or(100)),
                    running_owners: Some(BTreeSet::from([OTHER_AGENT.into()])),
                })))
            }
            ImageWork::RemoveImage { id, .. } if self.containers.iter().any(|container| container.image == *id) => {
                Err(OpError::Failed(Failure::permanent("CannotRemoveImageError", "a container uses it")))
            }
            ImageWork::RemoveImage { names, .. } => {
                self.images.retain(|image| !names.contains(image));
                Ok(Output::Nothing)
            }
            ImageWork::RemoveContainer(id) => match self.find(&id.0) {
                Some(index) if self.containers[index].state == RunState::Running => {
                    Err(OpError::Failed(Failure::permanent("CannotRemoveContainerError", "it runs")))
                }
                Some(index) => {
                    self.foreign_count -= usize::from(self.containers[index].foreign);
                    self.remove(index);
                    Ok(Output::Nothing)
                }
                None => Ok(Output::Nothing),
            },
        }
    }

    fn seen(&self, index: Option<usize>) -> Outcome {
        Ok(Output::Seen(index.map(|index| Box::new(self.observation(index)))))
    }

    /// Executes an effect. `late`: the agent no longer waits for its answer.
    pub(crate) fn perform(&mut self, effect: &Effect, late: bool) -> Outcome {
        match effect {
            Effect::Do(_, Operation::ResolveDigest(image)) => {
                let digest = image.image.ends_with('0').then(|| "sha256:0".to_owned());
                Ok(Output::Digest(digest))
            }
            Effect::Do(_, Operation::Pull(image)) => {
                let is_new = self.images.insert(image.image.clone());
                Ok(if is_new || image.asks_registry { Output::Pulled } else { Output::Nothing })
            }
            Effect::Do(_, Operation::Create(request)) => self.create(request),
            Effect::Do(_, Operation::Start(target)) => match self.find_ours(target) {
                Some(index) => {
                    self.start(index, late);
                    self.seen(Some(index))
                }
                None => Err(OpError::Failed(Failure::permanent("CannotStartContainerError", "no such container"))),
            },
            Effect::Do(_, Operation::Stop { target, .. }) => {
                let index = self.find_ours(target);
                if let Some(index) = index {
                    self.exit(index, 143);
                }
                self.seen(index)
            }
            Effect::Do(_, Operation::Inspect(target)) => self.seen(self.find_ours(target)),
            Effect::Do(_, Operation::Remove(target)) => match self.find_ours(target) {
                Some(index) if self.containers[index].state == RunState::Running => {
                    Err(OpError::Failed(Failure::permanent("CannotRemoveContainerError", "it runs")))
                }
                Some(index) => {
                    self.remove(index);
                    Ok(Output::Nothing)
                }
                None => Ok(Output::Nothing),
            },
            Effect::Do(_, Operation::Inventory) => {
                Ok(Output::Inventory((0..self.containers.len()).map(|index| self.listed(index)).collect()))
            }
            Effect::Do(_, Operation::CleanImages(work)) => self.clean(work),
            Effect::Do(_, Operation::CreateResource(request)) => {
                self.resources.insert((request.task.clone(), request.spec.name.clone()));
                Ok(Output::Nothing)
            }
            Effect::Do(_, Operation::RenewResource(_)) => Ok(Output::Nothing),
            Effect::Do(_, Operation::RemoveResource(request)) => {
                self.resources.remove(&(request.task.clone(), request.spec.name.clone()));
                Ok(Output::Nothing)
            }
            Effect::Do(_, Operation::SetUpNetwork(_) | Operation::TearDownNetwork(_))
            | Effect::Do(_, Operation::Report(_) | Operation::ReportAttachment(_))
            | Effect::Cancel(_)
            | Effect::Send(Message::Ack(_))
            | Effect::Send(Message::AckCredentials(_))
            | Effect::Send(Message::VerifyStop { .. })
            | Effect::ForgetCredentials(_)
            | Effect::WriteMetadata(_)
            | Effect::RemoveMetadata(_) => unreachable!("not for the container engine"),
        }
    }
}
