//! `ecs-local up`: runs one task from a file and returns the exit code of the container that ended it. This module owns the order
//! of the steps, and the lines about the task's states. Invariant: the agent, the task's containers and the session's directory
//! are gone when it ends, and soon after it was killed.

use super::agent::Agent;
use super::arguments::Up;
use super::containers::{Ends, Follower};
use super::guard::Guard;
use super::output::{end_with_reader, print_error, print_line, set_live_lines};
use super::session::{self, Kind, Session};
use super::signals::Interrupts;
use super::{child, definition_file, leftovers, waits};
use crate::remedy;
use crate::{Options, Server, Task, TaskContainer, TaskStatus};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// The time limit for the agent to register and connect.
const REGISTER_LIMIT: Duration = Duration::from_secs(90);
/// The port on which every agent answers.
const INTROSPECTION: u16 = 51678;
/// The time limit for finding out whether an agent listens there.
const PORT_LIMIT: Duration = Duration::from_secs(1);
/// After this time without a line, it is said what is awaited.
const SILENCE: Duration = Duration::from_secs(3);
/// The time limit for the task to stop after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(150);

/// A run of `up`.
struct Run<'a> {
    request: &'a Up,
    server: &'a Server,
    cluster: &'a str,
    interrupts: &'a mut Interrupts,
    /// The task was placed, so that there may be containers.
    is_placed: bool,
    /// A second interrupt has come: nothing is waited for.
    is_impatient: bool,
}

/// Runs the task. Returns the exit code of the container that ended it.
pub(crate) async fn up(request: Up) -> Result<u8, String> {
    let definition = definition_file::read(&request.task)?;
    let token = request.token.value()?;
    let mut interrupts = Interrupts::new()?;
    end_with_reader();
    child::choose_docker(&request.environment).await?;
    child::require_docker().await?;
    leftovers::tidy_before_up().await;
    // In a network namespace of its own, a session may run beside another one.
    if let Some(other) = session::running_up()
        && TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], INTROSPECTION)), PORT_LIMIT).is_ok()
    {
        return Err(format!(
            "another `ecs-local up` runs (session {other}), and one Docker has one agent at a time: end it first"
        ));
    }
    let session = Session::begin(Kind::Up)?;
    let guard = Guard::start(&session).await?;
    let mut is_placed = false;
    let result = in_session(&request, &session, &definition, token, &mut interrupts, &mut is_placed).await;
    set_live_lines(Vec::new());
    // Docker may be the reason why no task was placed.
    let removed = if is_placed { leftovers::remove_containers(&session.id).await } else { Ok(0) };
    // If something stays, its directory does too, and the next session finds it.
    if let Err(problem) = removed.and_then(|_count| session.remove()) {
        print_error(&format!("{problem}; `ecs-local clean` removes what this session left"));
    }
    guard.dismiss().await;
    result
}

async fn in_session(
    request: &Up,
    session: &Session,
    definition: &Value,
    token: Option<ecs_core::model::Secret>,
    interrupts: &mut Interrupts,
    is_placed: &mut bool,
) -> Result<u8, String> {
    let asked = request.options.listen;
    super::output::warn_beyond_loopback(asked);
    // With a cluster of its own, the agent has nothing in common with containers of other agents.
    let cluster = request.cluster.clone().unwrap_or_else(|| format!("up-{}", session.id));
    let session_id = Some(session.id.clone());
    let options = Options { token, session_id, cluster: cluster.clone(), ..request.options.clone() };
    let server = Server::start(options).await.map_err(|error| error.to_string())?;
    let registered = server.call("RegisterTaskDefinition", definition);
    let registered = registered.map_err(|error| format!("{}: {}", request.task.display(), error.message))?;
    let mut agent = Agent::start(request, &server, session, definition)?;
    let mut run =
        Run { request, server: &server, cluster: &cluster, interrupts, is_placed: false, is_impatient: false };
    let result = run.task(&mut agent, &registered["taskDefinition"]["taskDefinitionArn"]).await;
    *is_placed = run.is_placed;
    agent.end(run.is_impatient).await;
    server.shutdown().await;
    result
}

impl Run<'_> {
    /// Waits for the agent, places the task, and follows it.
    async fn task(&mut self, agent: &mut Agent, definition: &Value) -> Result<u8, String> {
        let connected = self.server.wait_for("the agent to register and connect", REGISTER_LIMIT, |state| {
            state.instances().iter().any(|instance| instance.connected()).then_some(())
        });
        let quiet = self.request.quiet;
        tokio::pin!(connected);
        let silence = tokio::time::sleep(SILENCE);
        tokio::pin!(silence);
        let mut is_announced = quiet;
        let connected = loop {
            tokio::select! {
                () = self.interrupts.next() => {
                    let why = agent.last_warning().map(|line| format!(": {line}")).unwrap_or_default();
                    return Err(format!("interrupted before the agent was ready{why}"));
                }
                problem = agent.ended() => return Err(problem),
                connected = &mut connected => break connected,
                () = &mut silence, if !is_announced => {
                    is_announced = true;
                    print_line("waiting for the agent to register and connect");
                    if let Some(line) = agent.last_warning() {
                        print_error(&format!("the agent says: {line}"));
                    }
                }
            }
        };
        for line in agent.warnings_about_settings() {
            print_error(&format!("the agent's settings: {line}"));
        }
        connected.map_err(|error| format!("{error}{}", agent.log_tail()))?;
        let begin = SystemTime::now();
        self.is_placed = true;
        let answer = self.server.call("RunTask", &json!({"cluster": self.cluster, "taskDefinition": definition}));
        let answer = answer.map_err(|error| error.message)?;
        let Some(arn) = answer["tasks"][0]["taskArn"].as_str() else {
            let text = |member: &str| answer["failures"][0][member].as_str().unwrap_or_default().to_owned();
            let (reason, detail) = (text("reason"), text("detail"));
            let how = if detail.contains("start the agent") {
                "\n`up` starts its agent with what follows `--`: ecs-local up FILE -- NAME=VALUE"
            } else {
                ""
            };
            return Err(format!("the task cannot be placed: {reason}: {detail}{how}"));
        };
        if !quiet {
            self.print_addresses(arn);
        }
        let follower = Follower::start(arn, begin, quiet);
        let mut waits = JoinSet::new();
        if !quiet {
            waits.spawn(waits::show(arn.to_owned()));
        }
        let followed = self.follow(agent, arn).await;
        waits.shutdown().await;
        set_live_lines(Vec::new());
        let (task, result) = match followed {
            Ok(task) => (Some(task), Ok(())),
            Err(problem) => (self.server.read(|state| state.task(arn).cloned()), Err(problem)),
        };
        let containers = task.iter().flat_map(|task| &task.containers);
        let ran = containers.filter(|container| container.runtime_id.is_some() && has_run(container));
        let ends = follower.finish(ran.map(|container| container.name.clone()).collect()).await;
        result?;
        let code = task.map_or_else(|| Err("the task is unknown".to_owned()), |task| exit_code(&task, &ends));
        code.map_err(|problem| match remedy::for_end(&problem) {
            Some(remedy) => format!("{problem}\n{remedy}"),
            None => problem,
        })
    }

    fn print_addresses(&self, arn: &str) {
        let (url, shown) = (self.server.url(), self.request.token.shown(self.server.token()));
        let cluster = self.cluster;
        print_line(&format!(
            "task {arn}\nLook at it: AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={shown} AWS_DEFAULT_REGION={} aws ecs \
             --endpoint-url {url} describe-tasks --cluster {cluster} --tasks {arn}\nor: curl --user local:{shown} {url}/_local/state",
            self.request.options.region
        ));
    }

    /// Prints the states of the task until it has stopped. Returns the stopped task.
    async fn follow(&mut self, agent: &mut Agent, arn: &str) -> Result<Task, String> {
        let mut shown = Shown::default();
        let mut stopping: Option<tokio::time::Instant> = None;
        loop {
            let limit = stopping.map_or(STOP_LIMIT, |end| end.saturating_duration_since(tokio::time::Instant::now()));
            let changed = self
                .server
                .wait_for("a change", limit, |state| state.task(arn).filter(|task| shown.has_changed(task)).cloned());
            let next = tokio::select! {
                () = self.interrupts.next() => {
                    if stopping.is_some() {
                        self.is_impatient = true;
                        return Err("interrupted twice: not waiting for the task to stop".to_owned());
                    }
                    print_error(
                        "stopping the task: each container gets SIGTERM, and SIGKILL after its stopTimeout or 30 s (again: do not wait)",
                    );
                    self.server.stop_task(arn, "Stopped by ecs-local up").map_err(|error| error.message)?;
                    stopping = Some(tokio::time::Instant::now() + STOP_LIMIT);
                    continue;
                }
                problem = agent.ended() => return Err(problem),
                changed = changed => changed,
            };
            let Ok(task) = next else {
                if stopping.is_some() {
                    return Err("the task did not stop in time".to_owned());
                }
                continue;
            };
            shown.show(&task, self.request.quiet);
            if task.last_status == TaskStatus::Stopped {
                return Ok(task);
            }
        }
    }
}

/// The lines that were printed already: the last one, by task or container.
#[derive(Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    fn lines(task: &Task) -> Vec<(String, String)> {
        let reason = task.stopped_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let mut lines =
            vec![("task".to_owned(), format!("{}, desired {}{reason}", task.last_status, task.desired_status))];
        for container in &task.containers {
            let code = container.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let reason = container.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let addresses: String = addresses(container).iter().map(|address| format!(", {address}")).collect();
            let line = format!("{}{code}{addresses}{reason}", container.last_status);
            lines.push((format!("container {}", container.name), line));
        }
        lines
    }

    fn has_changed(&self, task: &Task) -> bool {
        Self::lines(task).iter().any(|(name, line)| self.0.get(name) != Some(line))
    }

    fn show(&mut self, task: &Task, quiet: bool) {
        for (name, line) in Self::lines(task) {
            if self.0.get(&name) != Some(&line) {
                if !quiet {
                    print_line(&format!("{name}: {line}"));
                }
                self.0.insert(name, line);
            }
        }
    }
}

/// The published ports of a container that runs, each as an address that can be opened from this machine.
fn addresses(container: &TaskContainer) -> BTreeSet<String> {
    let is_running = container.last_status == TaskStatus::Running;
    let bindings = container.network_bindings.iter().filter(|_| is_running);
    let address = |binding: &Value| {
        let host = match binding["bindIP"].as_str().unwrap_or_default() {
            "" | "0.0.0.0" | "::" => "localhost".to_owned(),
            ip if ip.contains(':') => format!("[{ip}]"),
            ip => ip.to_owned(),
        };
        let (port, inner) = (binding["hostPort"].as_u64(), &binding["containerPort"]);
        match (port, binding["hostPortRange"].as_str()) {
            (Some(port), _) if binding["protocol"] == "udp" => format!("{host}:{port}/udp -> {inner}"),
            (Some(port), _) => format!("{}{host}:{port} -> {inner}", scheme(inner.as_u64())),
            (None, range) => format!("{host}:{} -> {}", range.unwrap_or("?"), binding["containerPortRange"]),
        }
    };
    bindings.map(address).collect()
}

/// How the address of a TCP port begins, from the port inside the container: most speak HTTP, some are known not to.
fn scheme(port: Option<u64>) -> &'static str {
    match port {
        Some(443 | 8443) => "https://",
        // ssh, smtp, dns, ldap, smtps, submission, imaps, mqtt, mssql, oracle, zookeeper, nfs, mysql, postgres, amqp, redis, cassandra,
        // kafka, memcached, mongodb
        Some(
            22 | 25 | 53 | 389 | 465 | 587 | 993 | 1883 | 1433 | 1521 | 2181 | 2049 | 3306 | 5432 | 5672 | 6379 | 9042
            | 9092 | 11211 | 27017,
        ) => "",
        _ => "http://",
    }
}

/// The container has run: the agent also reports an exit code for a container that it could not start.
fn has_run(container: &TaskContainer) -> bool {
    let is_refused = container.reason.as_deref().is_some_and(|reason| reason.starts_with("Cannot"));
    container.exit_code.is_some() && !is_refused
}

/// The exit code of the container that ended the task: of the essential ones, the first that ended for good. If one could not
/// start because a container before it failed, that one has ended the task. `ends` says when each ended.
fn exit_code(task: &Task, ends: &Ends) -> Result<u8, String> {
    let first = |is_essential: bool| {
        let ended =
            task.containers.iter().filter(|container| container.essential == is_essential && has_run(container));
        let coded = ended.filter_map(|container| Some((container.name.as_str(), container.exit_code?)));
        let failed = coded.filter(|(_, code)| is_essential || *code != 0);
        failed.min_by_key(|(name, code)| (ends.get(*name).copied().unwrap_or(u64::MAX), -code)).map(|(_, code)| code)
    };
    let refused = task.containers.iter().find(|c| c.essential && !has_run(c) && c.reason.is_some());
    let reason = refused.and_then(|container| container.reason.as_deref());
    let code = match reason {
        Some(reason) if reason.contains("dependency") => first(false),
        Some(_) => None,
        None => first(true).or_else(|| first(false)),
    };
    // A container that waited for another one names the one that could not start.
    let is_waiting =
        |container: &&TaskContainer| container.reason.as_deref().is_some_and(|reason| reason.contains("dependency"));
    let first_cause = || task.containers.iter().find(|c| c.reason.is_some() && !has_run(c) && !is_waiting(c));
    let cause = refused.map(|refused| first_cause().filter(|_| is_waiting(&refused)).unwrap_or(refused));
    let reason = cause.and_then(|container| container.reason.as_deref());
    match (code, cause) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(255)),
        (None, Some(container)) => Err(format!("container {}: {}", container.name, reason.unwrap_or_default())),
        (None, None) => {
            let reason = task.stopped_reason.as_deref().unwrap_or("no reason was given");
            Err(format!("no essential container of the task ran: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::scripted_task;
    use crate::site::Site;

    fn task(containers: &[(&str, bool, Option<i64>)]) -> Task {
        let list: Vec<Value> = containers
            .iter()
            .map(|(name, essential, _)| json!({"name": name, "image": "i", "essential": essential}))
            .collect();
        let mut task = scripted_task(&Site::example(), "c", "i", json!({"containers": list}), 1.0);
        for (container, (_, _, code)) in task.containers.iter_mut().zip(containers) {
            container.exit_code = *code;
        }
        task
    }

    #[test]
    fn the_code_is_that_of_the_container_that_ended_the_task() {
        let ends = |order: &[&str]| order.iter().zip(1..).map(|(name, at)| ((*name).to_owned(), at)).collect::<Ends>();
        let two = task(&[("a", true, Some(0)), ("b", true, Some(137)), ("side", false, Some(9))]);
        assert_eq!(exit_code(&two, &ends(&["side", "a", "b"])), Ok(0), "b was stopped because a had ended");
        assert_eq!(exit_code(&two, &ends(&["b", "a"])), Ok(137));
        assert_eq!(exit_code(&two, &Ends::new()), Ok(137), "it is not known: the larger one");
        let first = task(&[("a", true, None), ("init", false, Some(3))]);
        assert_eq!(exit_code(&first, &ends(&["init"])), Ok(3), "a waited for init");
        let mut waiting = task(&[("a", true, Some(143)), ("b", true, Some(0)), ("init", false, Some(3))]);
        waiting.containers[0].reason =
            Some("CannotStartContainerError: ... dependency did not exit successfully".to_owned());
        assert_eq!(exit_code(&waiting, &ends(&["init", "b"])), Ok(3), "a was never started");
        let mut broken = task(&[("a", true, None), ("b", true, Some(0))]);
        broken.containers[0].reason = Some("CannotPullContainerError".to_owned());
        assert!(exit_code(&broken, &ends(&["b"])).unwrap_err().contains("container a: CannotPull"));
        broken.containers.insert(0, task(&[("side", false, None)]).containers.remove(0));
        broken.containers[0].reason = Some("CannotStartContainerError: unrelated".to_owned());
        assert!(exit_code(&broken, &ends(&["b"])).unwrap_err().contains("container a: CannotPull"));
        let mut chained = task(&[("a", true, None), ("init", false, None)]);
        chained.containers[0].reason =
            Some("CannotStartContainerError: ... because dependency will never start".to_owned());
        chained.containers[1].reason = Some("CannotStartContainerError: exec: not found".to_owned());
        let cause = exit_code(&chained, &Ends::new()).unwrap_err();
        assert_eq!(cause, "container init: CannotStartContainerError: exec: not found");
        let none = exit_code(&task(&[("a", true, None), ("init", false, Some(0))]), &Ends::new()).unwrap_err();
        assert!(none.starts_with("no essential container of the task ran: "), "{none}");
        assert_eq!(exit_code(&task(&[("a", true, Some(-1))]), &Ends::new()), Ok(255));
    }

    #[test]
    fn published_ports_are_addresses_that_can_be_opened() {
        let mut container = task(&[("a", true, None)]).containers.remove(0);
        container.network_bindings = vec![
            json!({"bindIP": "0.0.0.0", "hostPort": 32768, "containerPort": 80, "protocol": "tcp"}),
            json!({"bindIP": "::", "hostPort": 32768, "containerPort": 80, "protocol": "tcp"}),
            json!({"bindIP": "10.0.0.7", "hostPort": 81, "containerPort": 81, "protocol": "tcp"}),
            json!({"bindIP": "0.0.0.0", "hostPort": 53, "containerPort": 53, "protocol": "udp"}),
            json!({"bindIP": "0.0.0.0", "hostPort": 32769, "containerPort": 5432, "protocol": "tcp"}),
            json!({"bindIP": "0.0.0.0", "hostPort": 32770, "containerPort": 443, "protocol": "tcp"}),
        ];
        assert!(addresses(&container).is_empty(), "it does not run yet");
        container.last_status = TaskStatus::Running;
        let found: Vec<String> = addresses(&container).into_iter().collect();
        let wanted = [
            "http://10.0.0.7:81 -> 81",
            "http://localhost:32768 -> 80",
            "https://localhost:32770 -> 443",
            "localhost:32769 -> 5432",
            "localhost:53/udp -> 53",
        ];
        assert_eq!(found, wanted);
    }
}
