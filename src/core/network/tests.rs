use super::*;
use crate::model::attachment::{Attachment, AttachmentKind, Device};
use crate::model::task::{Condition, NETWORK_PAUSE_NAME};
use crate::model::waiting::Blocker;
use crate::model::{Ack, Failure, Interface, MacAddress, Observation, OpId, Span, TaskSpec};
use crate::policy::Policy;
use crate::sample::{NOW, container, done, run, seen, spec, state};
use crate::state::HostState;
use crate::{Event, Output, PayloadTask, Step, recover, step};

mod busy;
mod volumes;

const MAC: MacAddress = MacAddress([6, 0, 0, 0, 1, 1]);
const PAUSE: &str = NETWORK_PAUSE_NAME;

fn awsvpc() -> TaskSpec {
    let mut pause = container(PAUSE, &[]);
    pause.kind = ContainerKind::Pause;
    let interface = Interface { id: "eni-1".to_owned(), mac: MAC, attachment: "a".to_owned(), ..Interface::default() };
    TaskSpec {
        network: NetworkMode::Awsvpc,
        interfaces: vec![interface],
        ..spec("task", vec![container("web", &[(PAUSE, Condition::Start)]), pause])
    }
}

/// A core with one task, and what it has requested and not been answered.
struct Scene {
    state: State,
    now: Timestamp,
    pending: Vec<(OpId, Operation)>,
    /// Everything that was requested, by its kind and its container.
    log: Vec<String>,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        let mut scene = Self { state: state(policy), now: NOW, pending: Vec::new(), log: Vec::new() };
        let inventory = *scene.state.ops.keys().next().unwrap();
        scene.feed(done(inventory, Output::Inventory(Vec::new())));
        scene
    }

    fn feed(&mut self, event: Event) -> Step {
        let step = step(&mut self.state, self.now, event);
        crate::check(&self.state).unwrap();
        for effect in &step.effects {
            if let Effect::Do(op, operation) = effect {
                self.log.push(name(operation));
                self.pending.push((*op, operation.clone()));
            }
        }
        step
    }

    /// Takes the pending operation with this name.
    fn take(&mut self, wanted: &str) -> (OpId, Operation) {
        let at = self.pending.iter().position(|(_, operation)| name(operation) == wanted);
        let at = at.unwrap_or_else(|| panic!("{wanted} is not requested, but {:?}", self.log));
        self.pending.remove(at)
    }

    fn is_requested(&self, wanted: &str) -> bool {
        self.pending.iter().any(|(_, operation)| name(operation) == wanted)
    }

    fn succeed(&mut self, wanted: &str) {
        let (op, operation) = self.take(wanted);
        let there = |name: &str, state| {
            let id = format!("id-{name}");
            let seen = Observation { started_at: Some("run-1".to_owned()), ..seen("task", name, &id, state) };
            Output::Seen(Some(Box::new(seen)))
        };
        let its_name = |target: &str| match target.contains(PAUSE) || target.contains("internalecspause") {
            true => PAUSE,
            false => "web",
        };
        let output = match &operation {
            Operation::Create(request) => there(request.spec.name.as_str(), RunState::Created),
            Operation::Start(target) => there(its_name(target), RunState::Running),
            Operation::Stop { target, .. } => there(its_name(target), RunState::Exited),
            Operation::Inspect(target) => there(its_name(target), RunState::Running),
            Operation::Pull(_) => Output::Pulled,
            _ => Output::Nothing,
        };
        self.feed(done(op, output));
    }

    fn fail(&mut self, wanted: &str, error: OpError) {
        let (op, _) = self.take(wanted);
        self.feed(Event::Completed { op, outcome: Err(error) });
    }

    fn advance(&mut self) {
        self.now = crate::next_deadline(&self.state).unwrap().max(self.now);
        self.feed(Event::Tick);
    }

    /// The task arrives, its containers are created, and its pause container is started.
    fn with_pause(policy: Policy) -> Self {
        let mut scene = Self::new(policy);
        scene.feed(run(awsvpc()));
        for step in ["create pause", "pull", "create web", "start pause"] {
            scene.succeed(step);
        }
        scene
    }

    /// The task runs.
    fn running(policy: Policy) -> Self {
        let mut scene = Self::with_pause(policy);
        scene.succeed("set up");
        for step in ["start web", "report"] {
            scene.succeed(step);
        }
        scene
    }

    fn stop(&mut self) {
        let stop = PayloadTask::Stop("task".into(), Vec::new());
        self.feed(Event::Payload { tasks: vec![stop], seq: 2, ack: None });
    }

    fn task(&self) -> &TaskState {
        &self.state.tasks[&"task".into()]
    }

    fn observe(&mut self, name: &str, run_state: RunState, started_at: &str) {
        let seen = seen("task", name, &format!("id-{name}"), run_state);
        self.feed(Event::Observed(Box::new(Observation { started_at: Some(started_at.to_owned()), ..seen })));
    }

    /// What the container waits for, in words.
    fn wait(&self, name: &str) -> String {
        let view = crate::view(&self.state, self.now);
        let mut waits = view.tasks[0].waits.iter();
        let wait = waits.find(|wait| wait.container.as_ref().is_none_or(|it| it.as_str() == name));
        wait.map(|wait| wait.describe(self.now)).unwrap_or_default()
    }

    /// The agent is killed, and restarts with what is on disk. Docker has these containers.
    fn restart(self, containers: Vec<Observation>) -> Self {
        let reread = |task: &TaskState| serde_json::from_str(&serde_json::to_string(task).unwrap()).unwrap();
        let host: HostState = serde_json::from_str(&serde_json::to_string(&self.state.host).unwrap()).unwrap();
        let tasks: Vec<TaskState> = self.state.tasks.values().map(|task| reread(task)).collect();
        let state = recover(self.state.policy.clone(), host, tasks);
        let mut scene = Self { state, now: self.now, pending: Vec::new(), log: Vec::new() };
        scene.feed(Event::Tick);
        let (op, _) = scene.take("inventory");
        scene.feed(done(op, Output::Inventory(containers)));
        scene
    }
}

fn name(operation: &Operation) -> String {
    let its =
        |target: &str| if target.contains(PAUSE) || target.contains("internalecspause") { "pause" } else { "web" };
    match operation {
        Operation::Create(request) => format!("create {}", its(request.spec.name.as_str())),
        Operation::Start(target) => format!("start {}", its(target)),
        Operation::Stop { target, .. } => format!("stop {}", its(target)),
        Operation::Inspect(target) => format!("inspect {}", its(target)),
        Operation::Remove(target) => format!("remove {}", its(target)),
        Operation::Pull(_) => "pull".to_owned(),
        Operation::SetUpNetwork(_) => "set up".to_owned(),
        Operation::TearDownNetwork(_) => "tear down".to_owned(),
        Operation::Report(_) => "report".to_owned(),
        Operation::CreateResource(_) => "create volume".to_owned(),
        Operation::Inventory => "inventory".to_owned(),
        other => format!("{other:?}"),
    }
}

fn running(name: &str) -> Observation {
    Observation { started_at: Some("run-1".to_owned()), ..seen("task", name, &format!("id-{name}"), RunState::Running) }
}

#[test]
fn the_network_comes_before_all_other_containers() {
    let mut scene = Scene::with_pause(Policy::default());
    assert!(scene.is_requested("set up") && !scene.is_requested("start web"), "{:?}", scene.log);
    assert_eq!(scene.wait("web"), "its network is being set up (for 0 s)");
    let (op, operation) = scene.take("set up");
    let Operation::SetUpNetwork(request) = operation else { panic!() };
    assert_eq!((request.pause.as_str(), request.pause_pid), ("id-~internal~ecs~pause", 4711));
    assert_eq!((request.interfaces[0].mac, request.local_address.to_string().as_str()), (MAC, "169.254.172.2"));
    assert_eq!(scene.task().network.status, NetworkStatus::Requested, "it is on disk first");
    scene.feed(done(op, Output::Nothing));
    scene.succeed("start web");
    let view = crate::view(&scene.state, NOW);
    assert!(view.tasks[0].network_is_up && view.tasks[0].local_address == Some(request.local_address));
    assert_eq!(scene.task().known, TaskStatus::Running);
}

/// Docker pulls in the network of the host, and a container can be created in a namespace whose network is not there yet.
#[test]
fn containers_are_created_while_the_network_is_set_up() {
    let mut scene = Scene::new(Policy::default());
    scene.feed(run(awsvpc()));
    assert!(scene.is_requested("pull") && scene.is_requested("create pause"));
    scene.succeed("pull");
    assert_eq!(scene.wait("web"), "waits for its network to be set up");
    assert!(!scene.is_requested("create web"), "the pause container is not there");
    scene.succeed("create pause");
    let (_, operation) = scene.take("create web");
    let Operation::Create(request) = operation else { panic!() };
    assert_eq!(request.network, ContainerNetwork::Joined("id-~internal~ecs~pause".into()));
}

#[test]
fn the_labels_of_all_containers_name_the_address() {
    let mut scene = Scene::new(Policy::default());
    scene.feed(run(awsvpc()));
    let (_, operation) = scene.take("create pause");
    let Operation::Create(request) = operation else { panic!() };
    assert_eq!(request.outline.local_address, scene.task().network.local_address);
    assert_eq!(request.network, ContainerNetwork::Own(awsvpc().interfaces));
    assert!(request.outline.local_address.is_some() && request.outline.interfaces == awsvpc().interfaces);
}

#[test]
fn a_failed_set_up_stops_the_task_with_its_reason() {
    let mut scene = Scene::with_pause(Policy::default());
    let failure = Failure::permanent("ContainerNetworkingError", "no interface has the address 06:00:00:00:01:01");
    scene.fail("set up", failure.into());
    let reason = "ContainerNetworkingError: no interface has the address 06:00:00:00:01:01";
    assert_eq!(scene.task().reason.as_deref(), Some(reason));
    // A part may be there.
    assert!(scene.is_requested("tear down") && !scene.is_requested("stop pause"));
    scene.succeed("tear down");
    scene.succeed("stop pause");
    assert_eq!(scene.task().known, TaskStatus::Stopped);
    assert!(!scene.log.iter().any(|what| what == "start web"), "{:?}", scene.log);
}

#[test]
fn a_set_up_without_an_answer_is_repeated() {
    let mut scene = Scene::with_pause(Policy::default());
    let unknown = || OpError::Unknown(Failure::permanent("ContainerNetworkingError", "no answer"));
    scene.fail("set up", unknown());
    assert!(!scene.is_requested("set up") && scene.wait("web").contains("the next try"));
    scene.advance();
    scene.fail("set up", Failure::retryable("ContainerNetworkingError", "busy").into());
    scene.advance();
    assert_eq!(scene.task().desired, TaskStatus::Running);
    scene.fail("set up", unknown());
    assert_eq!(scene.task().reason.as_deref(), Some("ContainerNetworkingError: no answer"), "the last try");
    assert!(scene.is_requested("tear down"), "earlier failures do not delay it");
}

#[test]
fn the_network_is_torn_down_before_the_pause_and_after_the_end() {
    let mut scene = Scene::running(Policy::default());
    scene.log.clear();
    scene.stop();
    assert_eq!(scene.log, ["stop web"]);
    scene.succeed("stop web");
    assert_eq!(scene.log.last().map(String::as_str), Some("tear down"));
    assert_eq!(scene.wait(PAUSE), "its network is being torn down (for 0 s)");
    scene.succeed("tear down");
    scene.succeed("stop pause");
    let (op, operation) = scene.take("tear down");
    let Operation::TearDownNetwork(request) = operation else { panic!() };
    assert_eq!(request.pause_pid, 0, "it does not run");
    let holds = |scene: &Scene| scene.task().network.local_address.is_some();
    assert!(holds(&scene), "until nothing is left");
    scene.feed(done(op, Output::Nothing));
    assert!(!holds(&scene) && scene.task().network.status == NetworkStatus::Over);
    assert_eq!(scene.state.host.last_local_address.unwrap().to_string(), "169.254.172.2");
    assert_eq!(scene.log.iter().filter(|what| *what == "tear down").count(), 2);
}

#[test]
fn the_pause_stays_for_the_delay() {
    let delay = Span::secs(20);
    let mut scene = Scene::running(Policy { pause_cleanup_delay: delay, ..Policy::default() });
    scene.stop();
    scene.now = scene.now + Span::secs(5);
    scene.succeed("stop web");
    assert!(!scene.is_requested("tear down"));
    assert_eq!(scene.wait(PAUSE), "its network is torn down in 20 s");
    scene.now = scene.now + Span::secs(19);
    scene.feed(Event::Tick);
    assert!(!scene.is_requested("tear down"));
    scene.advance();
    assert_eq!(scene.now, NOW + Span::secs(25));
    assert!(scene.is_requested("tear down"));
}

#[test]
fn a_failed_tear_down_does_not_keep_the_pause_for_ever() {
    let mut scene = Scene::running(Policy::default());
    scene.stop();
    scene.succeed("stop web");
    for _ in 0..MAX_TRIES {
        assert!(!scene.is_requested("stop pause"));
        while !scene.is_requested("tear down") {
            scene.advance();
        }
        scene.fail("tear down", Failure::permanent("ContainerNetworkingError", "no").into());
    }
    scene.succeed("stop pause");
    assert!(scene.is_requested("tear down"), "once more after the end, and at once");
    for _ in 0..MAX_TRIES {
        while !scene.is_requested("tear down") {
            scene.advance();
        }
        assert!(scene.task().network.local_address.is_some());
        assert!(crate::view(&scene.state, scene.now).tasks[0].waits.iter().any(|wait| wait.container.is_none()));
        scene.fail("tear down", Failure::permanent("ContainerNetworkingError", "no").into());
    }
    assert_eq!((scene.task().network.status, scene.task().network.local_address), (NetworkStatus::Over, None));
}

#[test]
fn a_pause_that_ends_stops_the_task_and_is_torn_down() {
    let mut scene = Scene::running(Policy::default());
    scene.log.clear();
    scene.observe(PAUSE, RunState::Exited, "run-1");
    scene.succeed("stop web");
    let (_, operation) = scene.take("tear down");
    let Operation::TearDownNetwork(request) = operation else { panic!() };
    assert_eq!(request.pause_pid, 0);
    assert_eq!(scene.task().known, TaskStatus::Stopped);
}

/// Somebody starts the pause container again: it has another namespace then.
#[test]
fn a_pause_that_was_started_again_stops_the_task() {
    let mut scene = Scene::running(Policy::default());
    scene.observe(PAUSE, RunState::Running, "run-2");
    assert_eq!(
        scene.task().reason.as_deref(),
        Some("The pause container was started again, and so the network of the task is lost")
    );
    assert!(scene.is_requested("stop web"));
}

#[test]
fn a_restart_touches_no_network_that_is_up() {
    let scene = Scene::running(Policy::default());
    let scene = scene.restart(vec![running("web"), running(PAUSE)]);
    assert!(scene.log.iter().all(|what| what == "inventory" || what == "report"), "{:?}", scene.log);
    assert_eq!(scene.task().network.status, NetworkStatus::Up);
}

#[test]
fn a_network_that_is_half_set_up_at_a_restart_is_set_up_again() {
    let scene = Scene::with_pause(Policy::default());
    let address = scene.task().network.local_address;
    let web = seen("task", "web", "id-web", RunState::Created);
    let mut scene = scene.restart(vec![web, running(PAUSE)]);
    assert!(scene.is_requested("set up") && !scene.is_requested("start web"));
    assert_eq!(scene.task().network.local_address, address, "it keeps its address");
    scene.succeed("set up");
    assert!(scene.is_requested("start web"));
}

/// While the agent was away, somebody may have started the pause container again: its namespace would be another one.
#[test]
fn nothing_starts_in_an_unknown_run_after_a_restart() {
    for (started_at, goes_on) in [("run-1", true), ("run-2", false)] {
        let mut scene = Scene::with_pause(Policy::default());
        scene.succeed("set up");
        let listed = Observation { pid: None, started_at: None, ..running(PAUSE) };
        let mut scene = scene.restart(vec![seen("task", "web", "id-web", RunState::Created), listed]);
        assert!(!scene.is_requested("start web"), "{:?}", scene.log);
        let (op, _) = scene.take("inspect pause");
        let found = Observation { started_at: Some(started_at.to_owned()), ..running(PAUSE) };
        scene.feed(done(op, Output::Seen(Some(Box::new(found)))));
        assert_eq!(scene.is_requested("start web"), goes_on, "{:?}", scene.log);
        assert_eq!(scene.task().desired == TaskStatus::Running, goes_on);
    }
}

#[test]
fn a_kill_during_the_stop_goes_on_where_it_was() {
    let mut scene = Scene::running(Policy::default());
    scene.stop();
    scene.succeed("stop web");
    scene.succeed("tear down");
    let ended = Observation { exit_code: Some(0), ..seen("task", "web", "id-web", RunState::Exited) };
    let scene = scene.restart(vec![ended, running(PAUSE)]);
    assert!(scene.is_requested("stop pause") && !scene.is_requested("tear down"), "{:?}", scene.log);
}

/// A list that names no process is not enough to set up a network.
#[test]
fn the_pause_is_inspected_if_its_process_is_not_known() {
    let scene = Scene::with_pause(Policy::default());
    let mut scene = scene.restart(vec![Observation { pid: None, ..running(PAUSE) }]);
    assert!(!scene.is_requested("set up"));
    scene.succeed("inspect pause");
    assert!(scene.is_requested("set up"));
    let scene = Scene::with_pause(Policy::default());
    let mut scene = scene.restart(vec![Observation { pid: None, ..running(PAUSE) }]);
    let (op, _) = scene.take("inspect pause");
    scene.feed(done(op, Output::Seen(Some(Box::new(Observation { pid: None, ..running(PAUSE) })))));
    let reason = "The process of the pause container is not known, so the task can have no network";
    assert_eq!(scene.task().reason.as_deref(), Some(reason), "it is not asked again and again");
}

#[test]
fn the_set_up_waits_for_an_announced_interface() {
    let mut scene = Scene::new(Policy::default());
    let announced = Attachment {
        arn: "a".to_owned(),
        kind: AttachmentKind::TaskInterface("task".into()),
        device: Device::Interface(MAC),
        expires_at: NOW + Span::secs(160),
    };
    let ack = Ack {
        message_id: String::new(),
        cluster: String::new(),
        container_instance: String::new(),
        credentials: Vec::new(),
    };
    scene.feed(Event::Attachments { attachments: vec![announced], ack });
    scene.feed(run(awsvpc()));
    for step in ["create pause", "pull", "create web", "start pause"] {
        scene.succeed(step);
    }
    assert!(!scene.is_requested("set up"));
    scene.now = scene.now + Span::secs(40);
    let text = "the interface 06:00:00:00:01:01 has not appeared for 40 s; it expires in 2 min";
    assert_eq!(scene.wait("web"), text);
    let view = crate::view(&scene.state, scene.now);
    assert!(matches!(view.tasks[0].waits[0].blocker, Blocker::Interface(MAC, _)));
    let mut expired = Scene { state: scene.state.clone(), now: scene.now, pending: Vec::new(), log: Vec::new() };
    expired.advance();
    assert_eq!(expired.now, NOW + Span::secs(160));
    assert!(expired.is_requested("set up"), "the edge says what is missing");
    scene.feed(Event::Interfaces([MAC].into()));
    assert!(scene.is_requested("set up"));
}

#[test]
fn a_task_without_an_address_stops_with_the_reason() {
    let address = "169.254.172.9".parse().unwrap();
    let mut scene = Scene::new(Policy { local_address: Some(address), ..Policy::default() });
    let mut other = TaskState::new(spec("arn:x:task/c/other", vec![container("a", &[])]), 1, NOW);
    other.network.local_address = Some(address);
    scene.state.tasks.insert(other.spec.arn.clone(), Box::new(other));
    scene.feed(run(awsvpc()));
    assert!(scene.task().reason.as_deref().unwrap().contains("one task in network mode awsvpc at a time"));
    assert!(!scene.log.iter().any(|what| what == "create pause"), "{:?}", scene.log);
    assert_eq!(scene.task().network.status, NetworkStatus::Over);
}

/// The state is lost, and the task is rebuilt from the labels of its containers.
#[test]
fn a_rebuilt_task_keeps_its_network() {
    let scene = Scene::running(Policy::default());
    let task = scene.task();
    let (outline, address) = (Box::new(task.outline()), task.network.local_address);
    let label = |name: &str| Observation {
        outline: Some(outline.clone()),
        runtime_name: task.spec.runtime_name(&name.into()),
        ..running(name)
    };
    let rebuilt = |containers: Vec<Observation>| {
        let mut state = recover(Policy::default(), HostState { lost: true, ..HostState::default() }, []);
        step(&mut state, NOW, Event::Tick);
        let op = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(op, Output::Inventory(containers)));
        crate::check(&state).unwrap();
        state.tasks[&"task".into()].network.clone()
    };
    let up = rebuilt(vec![label("web"), label(PAUSE)]);
    assert_eq!((up.status, up.local_address), (NetworkStatus::Up, address));
    let begun = rebuilt(vec![label(PAUSE)]);
    assert_eq!((begun.status, begun.local_address), (NetworkStatus::Requested, address));
    let ended = |name: &str| Observation { state: RunState::Exited, exit_code: Some(0), pid: None, ..label(name) };
    let over = rebuilt(vec![ended("web"), ended(PAUSE)]);
    assert_eq!((over.status, over.local_address), (NetworkStatus::Over, None), "no namespace is left");
}

#[test]
fn a_document_of_an_earlier_version_has_no_network() {
    let task = crate::sample::task(vec![container("web", &[])]);
    let text = serde_json::to_string(&task).unwrap();
    assert!(!text.contains("network"), "{text}");
    assert_eq!(serde_json::from_str::<TaskState>(&text).unwrap(), task);
}
