//! Two agents on one Docker engine. In one network namespace the second does not start; in two, neither touches the other's
//! tasks.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::{Source, TaskStatus};
use ecs_testing::docker::{Image, TempDir, docker, inspect, unique};
use ecs_testing::wait::until;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const AGENT: &str = env!("CARGO_BIN_EXE_ecs-agent");

/// A second agent of the same cluster with a data directory of its own.
struct Second {
    data: PathBuf,
    command: Command,
}

impl Second {
    fn new(rig: &Rig, program: &[&str]) -> Self {
        let data = rig.directory.path().join("second");
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(rig.environment.iter().map(|(name, value)| (name, value)))
            .env("ECS_DATADIR", &data)
            // The metadata gives keys to processes of this user only, and the second agent may be another user's.
            .env("AWS_ACCESS_KEY_ID", "AKIASECOND")
            .env("AWS_SECRET_ACCESS_KEY", rig.server.token().expose())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self { data, command }
    }

    fn output(&mut self) -> Output {
        self.command.output().unwrap()
    }
}

/// Checks that the second agent ended with exit code 1 and named the first one.
fn assert_names_first(second: &Output, pid: u32, data: &Path, cluster: &str) {
    let printed = String::from_utf8_lossy(&second.stdout);
    assert_eq!(second.status.code(), Some(1), "{printed}");
    let parts = [format!("process {pid}, "), format!("ECS_DATADIR {}", data.display()), format!("cluster {cluster}")];
    let words = ["another agent works with this Docker engine", "stop it first"];
    for part in parts.iter().map(String::as_str).chain(words) {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(!printed.contains("not the system service"), "{printed}");
}

fn data(rig: &Rig) -> PathBuf {
    rig.directory.path().join("data")
}

fn registrations(rig: &Rig) -> usize {
    let is_registration =
        |record: &&ecs_local::Record| record.source == Source::Api && record.name == "RegisterContainerInstance";
    rig.server.read(|state| state.records().filter(is_registration).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_agent_ends_and_names_the_first() {
    let Some(mut rig) = Rig::start("two agents", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let mut second = Second::new(&rig, &[AGENT]);
    assert_names_first(&second.output(), rig.pid(), &data(&rig), &rig.cluster.name);
    assert!(!second.data.exists(), "nothing was written");
    // The same with the same data directory.
    let mut same_data = Second::new(&rig, &[AGENT]);
    same_data.command.env("ECS_DATADIR", data(&rig));
    assert_names_first(&same_data.output(), rig.pid(), &data(&rig), &rig.cluster.name);
    // The same by another path to the same engine.
    let link = rig.directory.path().join("docker.sock");
    std::os::unix::fs::symlink("/var/run/docker.sock", &link).unwrap();
    second.command.env("DOCKER_HOST", format!("unix://{}", link.display()));
    assert_names_first(&second.output(), rig.pid(), &data(&rig), &rig.cluster.name);
    assert_eq!(registrations(&rig), 1, "refused before it registers");
    assert_eq!(
        rig.introspect("/v1/metadata").await["Cluster"],
        rig.cluster.name.as_str(),
        "the first one keeps running"
    );

    // kill -9 frees the lock. Another data directory is another agent, which leaves the first one's task alone.
    rig.kill();
    let owner = inspect(&id)["Config"]["Labels"]["ecs-agent.owner"].clone();
    rig.environment.push(("ECS_DATADIR".into(), second.data.display().to_string()));
    rig.environment.push(("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION".into(), "2s".into()));
    rig.start_agent();
    rig.registered().await;
    let next = rig.server.run_task(&one_container(&rig.image(), "exit 0")).unwrap();
    rig.task(&next, TaskStatus::Stopped).await;
    until("the clean-up of its own", LIMIT, async || (rig.containers().len() == 1).then_some(())).await;
    let shown = rig.introspect("/v1/tasks").await;
    assert!(!shown.to_string().contains(&arn), "{shown}");
    assert_eq!(inspect(&id)["State"]["Running"], true);
    assert!(owner.as_str().is_some_and(|id| id.len() == 32), "{owner}");
    rig.terminate();

    // With the first one's data directory the agent knows the task again.
    rig.environment.pop();
    rig.environment.pop();
    rig.start_agent();
    rig.registered().await;
    let shown = rig.ask("/v1/tasks").await;
    assert!(shown["Tasks"].as_array().unwrap().iter().any(|task| task["Arn"] == arn.as_str()), "{shown}");
}

/// The agent knows them by the label that holds its data directory.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_data_an_agent_still_knows_its_containers() {
    let Some(mut rig) = Rig::start("identity lost", Plan::default()).await else { return };
    let mut tasks = Vec::new();
    for round in 0..3 {
        let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
        let task = rig.task(&arn, TaskStatus::Running).await;
        tasks.push((arn, task.container("main").unwrap().runtime_id.clone().unwrap()));
        rig.kill();
        // First the whole directory is lost, then the state file alone, then nothing.
        match round {
            0 => std::fs::remove_dir_all(data(&rig)).unwrap(),
            1 => std::fs::remove_file(data(&rig).join("ecs-agent.redb")).unwrap(),
            _ => {}
        }
        rig.start_agent();
        rig.registered().await;
        for (arn, id) in &tasks {
            until("the task to be known", LIMIT, async || {
                let shown = rig.introspect("/v1/tasks").await;
                let task = shown["Tasks"].as_array()?.iter().find(|task| task["Arn"] == arn.as_str())?.clone();
                (task["KnownStatus"] == "RUNNING" && task["Containers"][0]["DockerId"] == id.as_str()).then_some(())
            })
            .await;
            assert_eq!(inspect(id)["State"]["Running"], true);
        }
    }
    let owner = |id: &String| inspect(id)["Config"]["Labels"]["ecs-agent.owner"].as_str().unwrap().to_owned();
    let owners: Vec<String> = tasks.iter().map(|(_, id)| owner(id)).collect();
    assert_ne!(owners[0], owners[1], "an identity that is lost is not made again");
    assert_eq!(owners[1], owners[2], "it outlives the state file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_data_directory_is_no_second_agent() {
    let Some(rig) = Rig::start("copied data", Plan::default()).await else { return };
    let second = &mut Second::new(&rig, &["unshare", "--net", AGENT]);
    let copied = Command::new("cp").arg("-a").args([data(&rig), second.data.clone()]).status().unwrap();
    assert!(copied.success());
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this process may not make a network namespace");
        return;
    }
    let output = second.output();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("another agent has the identity of this data directory"), "{printed}");
    assert!(printed.contains(&format!("process {}", rig.pid())), "{printed}");
}

/// The lock file of the agent with this process id: below `/run`, or in a directory of its own if its user may not write there.
fn lock_file(pid: u32) -> Option<PathBuf> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = entries(Path::new("/dev/shm")).filter(|path| path.to_string_lossy().contains("/ecs-agent-"));
    let is_its = |path: &PathBuf| {
        let holder = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        holder.is_some_and(|holder| holder["pid"] == pid)
    };
    let mut directories = std::iter::once(PathBuf::from("/run/ecs-agent")).chain(own);
    directories.find_map(|directory| entries(&directory).find(is_its))
}

/// An empty lock file at `path` that this process holds.
fn planted(path: &Path) -> File {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.lock().unwrap();
    file
}

/// The time that `systemd/README.md` gives, and some more for a busy machine.
const RENEWED_WITHIN: Duration = Duration::from_secs(15 + 4);

async fn is_renewed(pid: u32, path: &Path, when: &str) {
    until(when, RENEWED_WITHIN, async || (lock_file(pid).as_deref() == Some(path)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_lock_file_is_back_within_15_seconds() {
    let plan = Plan { environment: &[("ECS_WARM_POOLS_CHECK", "true")], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("lock file removed", plan).await else { return };
    let target = "autoscaling/target-lifecycle-state";
    rig.server.set_metadata(target, Some("Warmed:Running"));
    rig.start_agent();
    until("it to wait", LIMIT, async || rig.log().contains("Warmed:Running").then_some(())).await;
    let path = lock_file(rig.pid()).expect("a lock file that names the agent");
    std::fs::remove_file(&path).unwrap();
    is_renewed(rig.pid(), &path, "the lock file, in a warm pool").await;
    assert_names_first(&Second::new(&rig, &[AGENT]).output(), rig.pid(), &data(&rig), &rig.cluster.name);
    rig.server.set_metadata(target, Some("InService"));
    rig.registered().await;
    std::fs::remove_file(&path).unwrap();
    is_renewed(rig.pid(), &path, "the lock file, in service").await;
    // Another agent is quicker. The log names it, and when it ends the next check takes the lock.
    std::fs::remove_file(&path).unwrap();
    let other = planted(&path);
    let error = "the lock file of this agent was removed, and another agent works with this Docker engine";
    until("the error", RENEWED_WITHIN, async || rig.log().contains(error).then_some(())).await;
    drop(other);
    is_renewed(rig.pid(), &path, "the lock of the agent that has ended").await;
    assert_names_first(&Second::new(&rig, &[AGENT]).output(), rig.pid(), &data(&rig), &rig.cluster.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_over_where_not_all_agents_are_known() {
    let Some(mut rig) = Rig::start("unknown agents", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let path = lock_file(rig.pid()).unwrap();
    rig.kill();
    std::fs::remove_dir_all(data(&rig)).unwrap();
    // An agent in another network namespace that has not yet written its identity: the container may be its own.
    let engine = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
    let other_path = path.with_file_name(format!("{engine}.1.lock"));
    let other = planted(&other_path);
    rig.start_agent();
    rig.registered().await;
    let shown = rig.introspect("/v1/tasks").await;
    std::fs::remove_file(&other_path).unwrap();
    drop(other);
    assert!(rig.log().contains("no containers are taken over"), "{}", rig.log());
    assert!(!shown.to_string().contains(&arn), "{shown}");
    assert_eq!(inspect(&id)["State"]["Running"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_ecs_local_beside_an_agent_ends_with_1() {
    let Some(rig) = Rig::start("session beside an agent", Plan::default()).await else { return };
    let task = rig.directory.path().join("task.json");
    std::fs::write(&task, one_container("busybox", "exit 0").to_string()).unwrap();
    let mut session = Command::new(env!("CARGO_BIN_EXE_ecs-local"));
    // Sessions of this machine that have nothing to do with this test are not its business.
    session.env("TMPDIR", rig.directory.path());
    let session = session.arg("up").arg(&task).args(["--agent", AGENT]).stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&session.stdout).into_owned() + &String::from_utf8_lossy(&session.stderr);
    assert_eq!(session.status.code(), Some(1), "{printed}");
    assert!(printed.contains("another agent works with this Docker engine"), "{printed}");
    assert!(printed.contains(&format!("process {}, ", rig.pid())), "{printed}");
    assert!(!printed.contains("exit status"), "{printed}");
}

/// The group that may use Docker's socket; `None` if this process is not root, or if only root may use the socket.
fn docker_group() -> Option<u32> {
    let socket = std::fs::metadata("/var/run/docker.sock").ok()?;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    (is_root && socket.gid() != 0 && socket.permissions().mode() & 0o060 == 0o060).then(|| socket.gid())
}

const USER: u32 = 54_321;

#[tokio::test(flavor = "multi_thread")]
async fn root_and_a_member_of_the_docker_group_see_each_other() {
    let Some(mut rig) = Rig::start("docker group", Plan::default()).await else { return };
    let Some(group) = docker_group() else {
        eprintln!("SKIPPED: not root, or Docker's socket is of no group");
        return;
    };
    std::fs::set_permissions(rig.directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let ids = [USER.to_string(), USER.to_string(), group.to_string()];
    let program = ["setpriv", "--reuid", &ids[0], "--regid", &ids[1], "--groups", &ids[2], "--no-new-privs", AGENT];
    let mut member = Second::new(&rig, &program);
    assert_names_first(&member.output(), rig.pid(), &data(&rig), &rig.cluster.name);
    rig.kill();
    // Now root's agent is the second. A lock file that root left behind keeps nobody out. Without one, as on a host where root
    // has run no agent since the boot, the member's lock file is in a directory of its own.
    std::fs::create_dir(&member.data).unwrap();
    chown(&member.data, Some(USER), Some(USER)).unwrap();
    let hidden = format!("mount -t tmpfs -o mode=755 tmpfs /var/run/ecs-agent && exec {}", program.join(" "));
    let mut elsewhere = Second::new(&rig, &["unshare", "--mount", "sh", "-c", &hidden]);
    for (round, first) in [&mut member, &mut elsewhere].into_iter().enumerate() {
        let before = registrations(&rig);
        let first = Running(first.command.stdout(Stdio::null()).spawn().unwrap());
        until("the first one's registration", LIMIT, async || (registrations(&rig) > before).then_some(())).await;
        rig.start_agent();
        assert_eq!(rig.ended().code(), Some(1), "{round}");
        let named = format!("process {}, ", first.0.id());
        assert!(rig.log().contains(&named), "{round}: {}", rig.log());
    }
    rig.start_agent();
    rig.registered().await;
}

/// A process that is killed when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One run of `ecs-local up` (a session) in a network namespace of its own. Every session has the cluster `default`.
struct Session {
    child: Running,
    log: PathBuf,
}

impl Session {
    fn start(directory: &TempDir, name: &str, image: &str, command: &str) -> Self {
        let (task, log) = (directory.path().join(format!("{name}.json")), directory.path().join(format!("{name}.log")));
        std::fs::write(&task, one_container(image, command).to_string()).unwrap();
        let script = "ip link set lo up; exec \"$0\" up \"$1\" --agent \"$2\" --agent-log -- ECS_IMAGE_PULL_BEHAVIOR=prefer-cached";
        let output = std::fs::File::create(&log).unwrap();
        let child = Command::new("unshare")
            // All processes of a PID namespace end with its first process.
            .args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, env!("CARGO_BIN_EXE_ecs-local")])
            .args([task.as_os_str(), AGENT.as_ref()])
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child: Running(child), log }
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        until(what, LIMIT, async || self.printed().contains(what).then_some(())).await;
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.0.id().to_string()]).status().unwrap().success());
    }
}

fn containers(image: &str) -> Vec<String> {
    let listed = docker(&["ps", "-a", "--no-trunc", "--filter", &format!("ancestor={image}"), "--format", "{{.ID}}"]);
    listed.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_ecs_local_leave_each_other_alone() {
    let Some(rig) = Rig::without_agent("two sessions", Plan::default()).await else { return };
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this process may not make a network namespace");
        return;
    }
    let images = ["first", "second"].map(|name| Image::make(&format!("{}:{name}", unique("ecs-test-session")), &[]));
    let first = Session::start(&rig.directory, "first", &images[0].reference, FOREVER);
    first.says("task: RUNNING").await;
    let its = containers(&images[0].reference);
    assert_eq!(its.len(), 1);
    // Its agent finds no state, looks at all containers of the cluster, and gets a manifest that names no task of the first
    // session.
    let mut second = Session::start(&rig.directory, "second", &images[1].reference, "sleep 3; exit 7");
    second.says("task: STOPPED").await;
    assert_eq!(second.child.0.wait().unwrap().code(), Some(7), "{}", second.printed());
    assert_eq!(inspect(&its[0])["State"]["Running"], true);
    let task = inspect(&its[0])["Config"]["Labels"]["com.amazonaws.ecs.task-arn"].as_str().unwrap().to_owned();
    assert!(!second.printed().contains(&task), "{}", second.printed());
    // A killed session leaves its container behind. The next one removes it, and does not take it over.
    first.signal("-KILL");
    assert_eq!(inspect(&its[0])["State"]["Running"], json!(true));
    let mut third = Session::start(&rig.directory, "third", &images[1].reference, "sleep 1; exit 0");
    third.says("task: STOPPED").await;
    assert_eq!(third.child.0.wait().unwrap().code(), Some(0), "{}", third.printed());
    assert!(!third.printed().contains(&task), "{}", third.printed());
    assert_eq!(containers(&images[0].reference), Vec::<String>::new());
}
