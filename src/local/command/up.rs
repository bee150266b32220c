//! `ecs-local up`: runs one task from a file and returns the exit code of the container that ended it. This module owns the order
//! of the steps. Invariant: the agent, the task's containers and the session's directory are gone when it ends, and soon after it
//! was killed.

use super::agent::Agent;
use super::arguments::Up;
use super::containers::{Ends, Follower};
use super::exit_code::exit_code;
use super::files::{read_text, shown};
use super::guard::Guard;
use super::health::endless_waits;
use super::machine::Machine;
use super::not_started::has_run;
use super::output::{
    end_with_reader, has_lost_reader, is_read_by_a_person, print_error, print_line, set_live_lines, wrong_argument,
};
use super::refused::{self, refused};
use super::session::{self, Kind, Session};
use super::shared_volumes::SharedVolumes;
use super::signals::Interrupts;
use super::start_problem::start_problem;
use super::states::Shown;
use super::token::Token;
use super::{agent, child, definition_file, end, leftovers, not_started, role_address, settings, waits};
use crate::{Options, Server, Task, TaskStatus};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// The time limit for the agent to register and connect.
const REGISTER_LIMIT: Duration = Duration::from_secs(90);
/// The port on which every agent answers.
const INTROSPECTION: u16 = 51678;
/// The time limit for finding out whether an agent listens there.
const PORT_LIMIT: Duration = Duration::from_secs(1);
/// Said if the agent works, but something else has its port.
const PORT_TAKEN: &str = "another program has port 51678 of the agent: `up` cannot show what the task waits for. `ss -ltnp` names the program.";
/// After this time without a line, it is said what is awaited.
const SILENCE: Duration = Duration::from_secs(3);
/// The time limit for the task to stop after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(150);
/// The same if nobody reads the output any more, as in `ecs-local up TASK | head`: a shell waits for all programs of a pipe.
const UNREAD_STOP_LIMIT: Duration = Duration::from_secs(5);

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
    let text = match read_text(&request.task) {
        Ok(text) => text,
        Err(problem) => return Ok(wrong_argument(&problem)),
    };
    let definition = definition_file::read(&request.task, &text)?;
    let report = match agent::program(&request) {
        Ok(program) => {
            let report = settings::report(&program, &request.environment).await;
            if let Err(problem) = settings::check(&program, &report, &request.environment) {
                return Ok(wrong_argument(&format!("a setting after `--` is wrong:\n{problem}")));
            }
            report
        }
        Err(problem) if request.agent.is_some() => return Ok(wrong_argument(&problem)),
        // It is an error of its start.
        Err(_) => Value::Null,
    };
    can_run(&request.task, &definition, &Machine::this(&report))?;
    let token = match request.token.value() {
        Ok(token) => token,
        Err(problem) => return Ok(wrong_argument(&problem)),
    };
    let mut interrupts = Interrupts::new()?;
    end_with_reader();
    child::choose_docker(&request.environment).await?;
    child::require_docker().await?;
    leftovers::tidy_before_up().await;
    // In a network namespace of its own, a session may run beside another one.
    if let Some(other) = session::running_up()
        && is_port_taken()
    {
        return Err(format!(
            "another `ecs-local up` runs (session {other}), and one Docker has one agent at a time: end it first"
        ));
    }
    let session = Session::begin(Kind::Up)?;
    let guard = Guard::start(&session).await?;
    let volumes = SharedVolumes::before(&definition).await;
    let mut is_placed = false;
    let result = in_session(&request, &session, &report, &definition, token, &mut interrupts, &mut is_placed).await;
    set_live_lines(Vec::new());
    // Docker may be the reason why no task was placed.
    let removed = if is_placed { leftovers::remove_containers(&session.id).await.map(drop) } else { Ok(()) };
    // If something stays, its directory does too, and the next session finds it.
    if let Err(problem) = removed.and_then(|()| session.remove()) {
        print_error(&format!("{problem}; `ecs-local clean` removes what this session left"));
    }
    if is_placed {
        volumes.after(request.remove_volumes, request.quiet).await;
    }
    guard.dismiss().await;
    result
}

/// Something listens on the agent's port.
fn is_port_taken() -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], INTROSPECTION)), PORT_LIMIT).is_ok()
}

/// Checks that the definition has nothing that `up` cannot run, and no mistake. All findings are reported together.
fn can_run(file: &Path, definition: &Value, machine: &Machine) -> Result<(), String> {
    let found = refused(definition, machine);
    let file = shown(file);
    let mistakes = crate::definition::checked(&refused::without(definition, &found)).err();
    // A list begins with a line break.
    let space = |mistakes: &str| if mistakes.starts_with('\n') { "" } else { " " };
    let mistakes = mistakes.map(|mistakes| format!("{file}:{}{mistakes}", space(&mistakes)));
    if found.is_empty() {
        return mistakes.map_or(Ok(()), Err);
    }
    let list: String = found.iter().map(|refused| format!("\n  {}", refused.text)).collect();
    let mistakes = mistakes.map(|mistakes| format!("\n{mistakes}")).unwrap_or_default();
    Err(format!("{file}: this task cannot run here as it is:{list}{mistakes}"))
}

async fn in_session(
    request: &Up,
    session: &Session,
    report: &Value,
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
    let server = match Server::start(options).await {
        Ok(server) => server,
        Err(error) => return start_problem(&error),
    };
    session.note_address(&server.url(), server.token()).unwrap_or_else(|problem| print_error(&problem));
    let registered = server.call("RegisterTaskDefinition", definition);
    let registered = registered.map_err(|error| format!("{}: {}", shown(&request.task), error.message))?;
    let is_taken = is_port_taken();
    let mut agent = Agent::start(request, &server, session, definition)?;
    let mut run =
        Run { request, server: &server, cluster: &cluster, interrupts, is_placed: false, is_impatient: false };
    let result = match run.connect(&mut agent).await {
        Ok(()) => {
            if is_taken {
                print_error(PORT_TAKEN);
            }
            role_address::warn(request, report, definition).await;
            run.task(&mut agent, &registered["taskDefinition"]).await
        }
        Err(problem) => Err(problem),
    };
    *is_placed = run.is_placed;
    agent.end(run.is_impatient).await;
    server.shutdown().await;
    result
}

impl Run<'_> {
    /// Waits until the agent is ready.
    async fn connect(&mut self, agent: &mut Agent) -> Result<(), String> {
        let connected = self.server.wait_for("the agent to register and connect", REGISTER_LIMIT, |state| {
            state.instances().iter().any(|instance| instance.connected()).then_some(())
        });
        tokio::pin!(connected);
        let silence = tokio::time::sleep(SILENCE);
        tokio::pin!(silence);
        let mut is_announced = self.request.quiet;
        let connected = loop {
            tokio::select! {
                () = self.interrupts.next() => {
                    let why = agent.last_failure().map(|line| format!(": {line}")).unwrap_or_default();
                    return Err(format!("interrupted before the agent was ready{why}"));
                }
                problem = agent.ended() => return Err(problem),
                connected = &mut connected => break connected,
                () = &mut silence, if !is_announced => {
                    is_announced = true;
                    print_line("waiting for the agent to register and connect");
                    if let Some(line) = agent.last_failure() {
                        print_error(&format!("the agent says: {line}"));
                    }
                }
            }
        };
        for line in agent.warnings_about_settings() {
            print_error(&format!("the agent's settings: {line}"));
        }
        connected.map_err(|error| format!("{error}{}", agent.log_tail()))
    }

    /// Places the task, and follows it.
    async fn task(&mut self, agent: &mut Agent, definition: &Value) -> Result<u8, String> {
        let quiet = self.request.quiet;
        let begin = SystemTime::now();
        self.is_placed = true;
        let mut run = json!({"cluster": self.cluster, "taskDefinition": definition["taskDefinitionArn"]});
        if definition["networkMode"] == "awsvpc" {
            run["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": [crate::imds::SUBNET]}});
        }
        let answer = self.server.call("RunTask", &run);
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
        let follower = Follower::start(arn, begin, quiet, endless_waits(definition));
        let mut waits = JoinSet::new();
        let mut shown = Shown::default();
        if !quiet {
            waits.spawn(waits::show(arn.to_owned(), shown.stopped.clone()));
        }
        let followed = self.follow(agent, arn, &mut shown).await;
        waits.shutdown().await;
        set_live_lines(Vec::new());
        let (task, result) = match followed {
            Ok(task) => (Some(task), Ok(())),
            Err(problem) => (self.server.read(|state| state.task(arn).cloned()), Err(problem)),
        };
        let containers = task.iter().flat_map(|task| &task.containers);
        let ran = containers.filter(|container| container.runtime_id.is_some() && has_run(container));
        let ran = ran.map(|container| container.name.clone()).collect();
        let not_started = task.as_ref().map(not_started::lines).unwrap_or_default();
        let ends = if self.is_impatient { Ends::new() } else { follower.finish(ran).await };
        let code = result
            .and_then(|()| task.map_or_else(|| Err("the task is unknown".to_owned()), |task| exit_code(&task, &ends)));
        let last = code.as_ref().err().map(String::as_str).unwrap_or_default();
        shown.rest(last).iter().for_each(|line| print_error(line));
        not_started.iter().filter(|line| *line != last).for_each(|line| print_error(line));
        code.map_err(|problem| match end::remedy(&problem, definition, &self.request.directories) {
            Some(remedy) => format!("{problem}\n{remedy}"),
            None => problem,
        })
    }

    fn print_addresses(&self, arn: &str) {
        print_line(&format!("task {arn}"));
        // A log, as in CI, is no place for a secret, though this one ends with the session.
        if self.request.token == Token::Random && !is_read_by_a_person() {
            return;
        }
        let (url, shown) = (self.server.url(), self.request.token.shown(self.server.token()));
        print_line(&look(&url, &shown, &self.request.options.region, self.cluster, arn));
        self.request.token.note().iter().for_each(|note| print_line(&format!("  {note}")));
    }

    /// Prints the states of the task until it has stopped. Returns the stopped task.
    async fn follow(&mut self, agent: &mut Agent, arn: &str, shown: &mut Shown) -> Result<Task, String> {
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
                    let limit = if has_lost_reader() { UNREAD_STOP_LIMIT } else { STOP_LIMIT };
                    print_error(
                        "stopping the task: each container gets SIGTERM, and SIGKILL after its stopTimeout or 30 s (again: do not wait)",
                    );
                    self.server.stop_task(arn, "Stopped by ecs-local up").map_err(|error| error.message)?;
                    stopping = Some(tokio::time::Instant::now() + limit);
                    continue;
                }
                problem = agent.ended() => return Err(problem),
                changed = changed => changed,
            };
            let Ok(task) = next else {
                if stopping.is_some() {
                    // The containers are removed in any case.
                    self.is_impatient = has_lost_reader();
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

/// How to look at the task with the aws CLI. The token is named once.
fn look(url: &str, token: &str, region: &str, cluster: &str, arn: &str) -> String {
    let id = arn.rsplit('/').next().unwrap_or(arn);
    format!(
        "Look at it: export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={token} AWS_DEFAULT_REGION={region}\n  \
         aws ecs --endpoint-url {url} describe-tasks --cluster {cluster} --tasks {id}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_an_error_ends_with_a_blank() {
        let container = json!({"name": "a", "image": "i", "memory": 8});
        let taken =
            |definition: Value| can_run(Path::new("t.json"), &definition, &Machine::this(&Value::Null)).unwrap_err();
        let single = taken(json!({"family": "a b", "containerDefinitions": [container]}));
        assert!(single.starts_with("t.json: Family `a b`"), "{single}");
        let several = taken(json!({"family": "a b", "networkMode": "x", "containerDefinitions": [container]}));
        assert!(several.starts_with("t.json:\n  Family `a b`"), "{several}");
        let all = taken(
            json!({"family": "a b", "networkMode": "x", "requiresCompatibilities": ["FARGATE"], "memory": "99999999", "containerDefinitions": [container]}),
        );
        assert!(
            all.contains("cannot run here as it is:\n  requiresCompatibilities")
                && all.contains("\n  memory: the task"),
            "{all}"
        );
        assert!(all.contains("\nt.json:\n  Family `a b`") && !all.lines().any(|line| line.ends_with(' ')), "{all}");
    }

    #[test]
    fn how_to_look_at_a_task_fits_on_two_lines() {
        let id = "10ca1abcde0123456789abcdef012345";
        let arn = format!("arn:aws:ecs:us-west-2:123456789012:task/up-10ca1abcde/{id}");
        let token = "0123456789abcdef0123456789abcdef";
        let text = look("http://127.0.0.1:40001", token, "us-west-2", "up-10ca1abcde", &arn);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.len() <= 130), "{text}");
        assert_eq!(text.matches(token).count(), 1);
        assert!(lines[1].ends_with(&format!("--cluster up-10ca1abcde --tasks {id}")), "{text}");
    }
}
