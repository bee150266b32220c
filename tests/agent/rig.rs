//! A rig: an agent with its surroundings, which are a control plane, a registry, a cluster label and a data directory. All of
//! these are removed with the rig.

use ecs_local::{Options, Server, Source, Task, TaskStatus};
use ecs_testing::docker::{Cluster, TempDir, available, control_groups, one_agent};
use ecs_testing::registry::{Registry, container_ports};
use serde_json::{Value, json};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The statuses that are reported for a task.
pub(crate) const WHOLE_LIFE: [&str; 3] = ["PENDING", "RUNNING", "STOPPED"];
/// The time limit of a wait, long enough for a loaded machine. A wait that succeeds ends at once.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The time limit of the wait for an answer of the introspection port. A closed connection that had this port as its local port
/// holds it for a minute, and the agent tries again after waits that grow to a minute.
const PORT_LIMIT: Duration = Duration::from_secs(150);

/// The agent and its surroundings.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) server: Server,
    /// The label of the rig's containers. They are removed before the registry's images.
    pub(crate) cluster: Cluster,
    groups: Groups,
    pub(crate) registry: Registry,
    pub(crate) directory: TempDir,
    /// Environment variables of the agent. If a name occurs twice, the later value counts.
    pub(crate) environment: Vec<(String, String)>,
    /// Command-line flags of the agent.
    pub(crate) arguments: Vec<&'static str>,
    /// The agent's program.
    pub(crate) program: PathBuf,
    agent: Option<Child>,
    /// The passwords of the registry, which no log may hold.
    passwords: Vec<String>,
    /// The number of connections to ACS before the agent that runs now.
    connections: usize,
    _one_agent: File,
}

/// The options of a rig.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// Users of the registry with their passwords; empty: the registry is open to everybody.
    pub(crate) users: &'a [(&'a str, &'a str)],
    /// More variables for the agent.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Changes the options of the control plane.
    pub(crate) options: Option<fn(&mut Options, &Registry)>,
}

impl Rig {
    /// A registered agent; `None` on a machine without Docker.
    pub(crate) async fn start(test: &str, plan: Plan<'_>) -> Option<Self> {
        let mut rig = Self::without_agent(test, plan).await?;
        rig.start_agent();
        rig.registered().await;
        Some(rig)
    }

    /// Everything but the agent.
    pub(crate) async fn without_agent(test: &str, plan: Plan<'_>) -> Option<Self> {
        if !available(test) {
            return None;
        }
        ecs_agent::aws::install_tls(); // reqwest wants a provider, also for plain http
        let one_agent = tokio::task::spawn_blocking(one_agent).await.unwrap();
        // The answers of another agent would be taken for those of the agent under test.
        let stranger = std::net::TcpStream::connect(("127.0.0.1", 51678));
        assert!(stranger.is_err(), "another agent holds port 51678 of this host: end it first (ss -ltnp)");
        let (registry, cluster) = (Registry::start(plan.users), Cluster::new());
        let mut options = Options { cluster: cluster.name.clone(), ..Options::default() };
        if let Some(change) = plan.options {
            change(&mut options, &registry);
        }
        let server = Server::start(options).await.unwrap();
        let directory = TempDir::new("ecs-test-agent");
        let mut environment = server.environment();
        environment.push(("ECS_DATADIR".into(), directory.path().join("data").to_string_lossy().into_owned()));
        environment.push(("ECS_CONFIG_FILE".into(), Self::empty_config(&directory)));
        environment.push(("ECS_AGENT_CONFIG_FILE_PATH".into(), "/dev/null".into()));
        environment
            .push(("ECS_AUDIT_LOGFILE".into(), directory.path().join("audit.log").to_string_lossy().into_owned()));
        // An agent on the host's network must not change the rules of this machine.
        environment.push(("ECS_MANAGE_FIREWALL".into(), "false".into()));
        if logs_to_keep().is_some() {
            environment.push(("ECS_LOGLEVEL".into(), "debug".into()));
        }
        if let Ok(format) = std::env::var("ECS_TEST_LOG_FORMAT") {
            environment.push(("ECS_LOG_OUTPUT_FORMAT".into(), format));
        }
        environment.extend(container_ports().map(|range| ("ECS_DYNAMIC_HOST_PORT_RANGE".into(), range)));
        environment.extend(plan.environment.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        Some(Self {
            server,
            registry,
            directory,
            cluster,
            groups: Groups::default(),
            environment,
            arguments: Vec::new(),
            program: env!("CARGO_BIN_EXE_ecs-agent").into(),
            agent: None,
            passwords: plan.users.iter().map(|(_, password)| (*password).to_owned()).collect(),
            connections: 0,
            _one_agent: one_agent,
        })
    }

    /// An empty configuration file, so that the host's own `/etc/ecs/ecs.config` does not matter.
    fn empty_config(directory: &TempDir) -> String {
        let path = directory.path().join("ecs.config");
        std::fs::write(&path, "").unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Starts the agent's process.
    pub(crate) fn start_agent(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.start_agent_logging_to(log.into());
    }

    /// Starts the agent's process, which writes its log to `log`.
    pub(crate) fn start_agent_logging_to(&mut self, log: Stdio) {
        assert!(self.agent.is_none(), "an agent is running already");
        self.expects_another();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    /// Notes that an agent is about to start: earlier connections belong to other agents.
    pub(crate) fn expects_another(&mut self) {
        self.connections = self.server.read(connections);
    }

    /// The agent's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().expect("an agent runs");
        let status = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
        assert!(status.success());
        agent.wait().unwrap()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().expect("an agent runs");
        let started = std::time::Instant::now();
        while started.elapsed() < LIMIT {
            if let Some(status) = agent.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = agent.kill();
        let _ = agent.wait();
        panic!("the agent did not end by itself:\n{}", self.log());
    }

    /// Waits until the agent that runs now has registered and its ACS websocket is open.
    pub(crate) async fn registered(&self) {
        let connected = |state: &ecs_local::State| {
            // The control plane may notice the end of an earlier connection late, of this process or of the previous one.
            let is_new = connections(state) > self.connections;
            (is_new && state.instances().iter().any(ecs_local::Instance::connected)).then_some(())
        };
        self.wait("the agent to connect", connected).await;
    }

    /// Waits until `probe` finds something in the control plane's state.
    pub(crate) async fn wait<T>(&self, what: &str, probe: impl FnMut(&ecs_local::State) -> Option<T>) -> T {
        match self.server.wait_for(what, LIMIT, probe).await {
            Ok(found) => found,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until the task has been reported to have this status, or a later one.
    pub(crate) async fn task(&self, arn: &str, status: TaskStatus) -> Task {
        let what = format!("{arn} to be {status}");
        self.wait(&what, |state| state.task(arn).filter(|task| task.last_status >= status).cloned()).await
    }

    /// Runs a task that ends with this exit code, whatever fails meanwhile, and checks that each status was reported once.
    pub(crate) async fn lives_once(&self, image: &str, code: i64, why: &str) {
        let arn = self.server.run_task(&one_container(image, &format!("exit {code}"))).unwrap();
        let task = self.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(code), "{why}");
        // A PENDING that could not be sent is not needed any more once RUNNING is reported.
        let reported = self.statuses(&arn);
        assert!(reported == WHOLE_LIFE || reported == WHOLE_LIFE[1..], "{why}: {reported:?}");
    }

    /// Pushes a busybox image to the rig's registry and returns its name.
    pub(crate) fn image(&self) -> String {
        self.registry.push_busybox("test/busybox", &[])
    }

    /// All `SubmitTaskStateChange` bodies of a task, in order.
    pub(crate) fn reports(&self, arn: &str) -> Vec<Value> {
        self.server.submissions().into_iter().map(|record| record.body).filter(|body| body["task"] == arn).collect()
    }

    /// The statuses reported for a task, in order.
    pub(crate) fn statuses(&self, arn: &str) -> Vec<String> {
        let text = |body: &Value| body["status"].as_str().unwrap_or_default().to_owned();
        self.reports(arn).iter().map(text).collect()
    }

    /// GET on the agent's introspection port, which another agent on this host may hold.
    pub(crate) async fn introspect(&self, path: &str) -> Value {
        let ours = self.server.read(|state| state.instances().last().map(|instance| instance.arn.clone()));
        let shown = self.ask("/v1/metadata").await;
        assert_eq!(shown["ContainerInstanceArn"].as_str(), ours.as_deref(), "another agent holds port 51678");
        self.ask(path).await
    }

    /// Like [`Self::introspect`], without a check of which agent answers.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:51678{path}");
        let answer =
            ecs_testing::wait::until("introspection", PORT_LIMIT, async || reqwest::get(&url).await.ok()).await;
        answer.json().await.unwrap()
    }

    /// A directory for the containers of tasks. Any user may write to it: with `userns-remap`, root in a container is another one.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        path
    }

    /// Names of all containers of this rig's cluster, in any state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=com.amazonaws.ecs.cluster={}", self.cluster.name);
        let listed = ecs_testing::docker::docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Where the agent's log goes.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    /// What the agent has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// Where the logs of all agents are kept for `tests/log/run`; `None`: they are not kept. The agents then log at debug level.
fn logs_to_keep() -> Option<PathBuf> {
    std::env::var_os("ECS_TEST_LOGS").map(PathBuf::from)
}

/// ARNs of the tasks whose control groups are removed with the rig: a killed agent leaves some. They go after their containers.
#[derive(Debug, Default)]
struct Groups(Vec<String>);

impl Drop for Groups {
    fn drop(&mut self) {
        let ids = self.0.iter().filter_map(|arn| arn.rsplit('/').next());
        for group in ids.flat_map(|id| control_groups(&format!("/ecs/{id}"))) {
            let _ = std::fs::remove_dir(group);
        }
    }
}

impl Drop for Rig {
    #[expect(clippy::print_stderr, reason = "a failed test shows the agent's log")]
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        self.groups.0 = self.server.read(|state| state.tasks().iter().map(|task| task.arn.clone()).collect());
        // Tasks that a test sent directly are known by their reports only.
        let reported =
            self.server.submissions().into_iter().filter_map(|record| Some(record.body["task"].as_str()?.to_owned()));
        self.groups.0.extend(reported);
        if let Some(directory) = logs_to_keep() {
            let kept = directory.join(&self.cluster.name);
            let passwords = self.passwords.iter().map(String::as_str);
            let roles = self.server.role_secrets();
            let roles = roles.iter().map(|secret| secret.expose());
            let secrets: Vec<&str> = passwords.chain([self.server.token().expose()]).chain(roles).collect();
            // A rig whose agent never ran has no log.
            if std::fs::copy(self.log_path(), kept.with_extension("log")).is_ok() {
                let _ = std::fs::write(kept.with_extension("secrets"), secrets.join("\n"));
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the agent's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn connections(state: &ecs_local::State) -> usize {
    state.records().filter(|record| record.source == Source::AcsConnect).count()
}

/// A task definition of one container that runs a shell command.
pub(crate) fn one_container(image: &str, command: &str) -> Value {
    json!({
        "family": "test",
        "containerDefinitions": [shell("main", image, command)],
    })
}

/// A container definition that runs a shell command. The container stops at SIGTERM only if the command handles it.
pub(crate) fn shell(name: &str, image: &str, command: &str) -> Value {
    json!({"name": name, "image": image, "memory": 32, "command": ["sh", "-c", command], "essential": true})
}

/// A shell command that runs until SIGTERM, and then ends with exit code 0.
pub(crate) const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
