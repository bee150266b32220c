//! The lines about the states of a task and its containers. This module owns their form. Invariant: a state is printed once, and so
//! is the reason of an end.

use super::not_started::{self, has_run};
use super::output::print_line;
use super::waits::Stopped;
use crate::{Task, TaskContainer, TaskStatus};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The lines that were printed already: the last one, by task or container.
#[derive(Default)]
pub(super) struct Shown {
    lines: BTreeMap<String, String>,
    /// Reasons that are left to the end of `up`, by the name of task or container.
    held: BTreeMap<String, String>,
    /// What was shown as stopped.
    pub(super) stopped: Stopped,
}

/// A state of the task or of a container.
struct State {
    /// `task`, or `container` with its name.
    name: String,
    line: String,
    reason: Option<String>,
    has_stopped: bool,
    /// The reason may be that of `up`'s own end, which is printed last: it is not printed before.
    is_last_word: bool,
}

impl Shown {
    fn states(task: &Task) -> Vec<State> {
        let has_run_at_all = task.containers.iter().any(has_run);
        let mut states = vec![State {
            name: "task".to_owned(),
            line: format!("{}, desired {}", task.last_status, task.desired_status),
            reason: task.stopped_reason.clone(),
            has_stopped: task.last_status == TaskStatus::Stopped,
            is_last_word: !has_run_at_all && task.containers.iter().all(|container| container.reason.is_none()),
        }];
        for container in &task.containers {
            // The agent reports an exit code for a container that never started, as the Go agent does.
            let code = container.exit_code.filter(|_| has_run(container));
            let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let mut open = addresses(container);
            open.extend(own_addresses(task, container));
            let addresses: String = open.iter().map(|address| format!(", {address}")).collect();
            let cause = not_started::cause(task, container);
            // If the task ends with it, `not_started` says it then, once for all containers.
            let is_explained = cause.is_some() && task.desired_status == TaskStatus::Stopped;
            let plain = cause.map(|cause| format!("did not start: {cause}"));
            states.push(State {
                name: format!("container {}", container.name),
                line: format!("{}{code}{addresses}", container.last_status),
                reason: plain.or_else(|| container.reason.clone()).filter(|_| !is_explained),
                has_stopped: container.last_status == TaskStatus::Stopped,
                is_last_word: container.essential && !has_run(container),
            });
        }
        states
    }

    /// The task has a state that was not shown yet.
    pub(super) fn has_changed(&self, task: &Task) -> bool {
        Self::states(task).iter().any(|state| self.lines.get(&state.name) != Some(&state.text()))
    }

    /// Prints the states that were not shown yet.
    pub(super) fn show(&mut self, task: &Task, quiet: bool) {
        let states = Self::states(task);
        states.iter().filter(|state| state.has_stopped).for_each(|state| self.stopped.add(&state.name));
        for state in states {
            let text = state.text();
            if self.lines.get(&state.name) == Some(&text) {
                continue;
            }
            if !quiet {
                print_line(&format!("{}: {text}", state.name));
            }
            if let Some(reason) = state.reason.filter(|_| state.is_last_word) {
                self.held.insert(state.name.clone(), reason);
            }
            self.lines.insert(state.name, text);
        }
    }

    /// The reasons that were not printed and are not in the last error of `up`, which is printed after them.
    pub(super) fn rest(&self, last: &str) -> Vec<String> {
        let rest = self.held.iter().filter(|(_, reason)| !last.contains(reason.as_str()));
        rest.map(|(name, reason)| format!("{name}: {reason}")).collect()
    }
}

impl State {
    fn text(&self) -> String {
        match self.reason.as_ref().filter(|_| !self.is_last_word) {
            Some(reason) => format!("{} ({reason})", self.line),
            None => self.line.clone(),
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
            (None, range) => {
                format!("{host}:{} -> {}", range.unwrap_or("?"), binding["containerPortRange"].as_str().unwrap_or("?"))
            }
        }
    };
    bindings.map(address).collect()
}

/// The ports of a running container whose task has an interface of its own: no port is published, each has the interface's address.
fn own_addresses(task: &Task, container: &TaskContainer) -> Vec<String> {
    let is_running = container.last_status == TaskStatus::Running;
    let Some(interface) = task.interface.as_ref().filter(|_| is_running) else { return Vec::new() };
    let defined = task.payload["containers"].as_array().into_iter().flatten();
    let defined = defined.filter(|defined| defined["name"] == container.name.as_str());
    let ports = defined.flat_map(|defined| defined["portMappings"].as_array().into_iter().flatten());
    let address = |port: &Value| {
        let (port, protocol) = (port["containerPort"].as_u64()?, port["protocol"].as_str());
        let host = interface.link.address;
        Some(match protocol {
            Some("udp") => format!("{host}:{port}/udp"),
            _ => format!("{}{host}:{port}", scheme(Some(port))),
        })
    };
    ports.filter_map(address).collect()
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

#[cfg(test)]
mod tests {
    use super::super::exit_code::tests::task;
    use super::*;
    use crate::interfaces::TaskInterface;
    use serde_json::json;

    #[test]
    fn the_reason_of_a_failed_pull_is_left_to_the_end() {
        let mut pulled = task(&[("web", true, None), ("side", false, None)]);
        let reason = "CannotPullContainerError: no such host";
        for container in &mut pulled.containers {
            container.last_status = TaskStatus::Stopped;
            container.reason = Some(reason.to_owned());
        }
        let mut shown = Shown::default();
        shown.show(&pulled, true);
        assert_eq!(shown.lines["container web"], "STOPPED");
        assert_eq!(shown.lines["container side"], format!("STOPPED ({reason})"), "the task may go on for hours");
        assert!(shown.rest(&format!("container web: {reason}")).is_empty());
        assert_eq!(shown.rest("interrupted"), [format!("container web: {reason}")]);
        assert!(!shown.has_changed(&pulled));
        pulled.containers[1].exit_code = Some(143);
        shown.show(&pulled, true);
        assert_eq!(shown.lines["container side"], format!("STOPPED ({reason})"), "it never ran");
    }

    #[test]
    fn a_container_that_waited_in_vain_is_explained_in_plain_words() {
        let mut waiting = task(&[("app", true, Some(143)), ("init", false, Some(5))]);
        waiting.containers[0].last_status = TaskStatus::Stopped;
        waiting.containers[0].reason = Some(
            "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [init(i) (STOPPED->STOPPED) - \
             Exit: 5] for target [app(i) (NONE->STOPPED)] as dependency did not exit successfully."
                .to_owned(),
        );
        let mut shown = Shown::default();
        waiting.containers[0].essential = false;
        shown.show(&waiting, true);
        let wanted = "STOPPED (did not start: init ended with exit code 5)";
        assert_eq!(shown.lines["container app"], wanted, "the task goes on");
        waiting.containers[0].essential = true;
        waiting.desired_status = TaskStatus::Stopped;
        let mut shown = Shown::default();
        shown.show(&waiting, true);
        assert_eq!(shown.lines["container app"], "STOPPED", "it is said at the end");
        assert!(shown.rest("").is_empty());
    }

    #[test]
    fn the_reason_of_a_container_that_ran_is_in_its_line() {
        let mut ended = task(&[("web", true, Some(137))]);
        ended.stopped_reason = Some("Essential container in task exited".to_owned());
        ended.containers[0].reason = Some("OutOfMemoryError".to_owned());
        let mut shown = Shown::default();
        shown.show(&ended, true);
        assert!(shown.lines["container web"].ends_with(", exit code 137 (OutOfMemoryError)"));
        assert!(shown.lines["task"].ends_with(" (Essential container in task exited)"));
        assert!(shown.rest("").is_empty());
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
            json!({"bindIP": "0.0.0.0", "hostPortRange": "32780-32782", "containerPortRange": "80-82", "protocol": "tcp"}),
        ];
        assert!(addresses(&container).is_empty(), "it does not run yet");
        container.last_status = TaskStatus::Running;
        let found: Vec<String> = addresses(&container).into_iter().collect();
        let wanted = [
            "http://10.0.0.7:81 -> 81",
            "http://localhost:32768 -> 80",
            "https://localhost:32770 -> 443",
            "localhost:32769 -> 5432",
            "localhost:32780-32782 -> 80-82",
            "localhost:53/udp -> 53",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn ports_of_a_task_with_an_interface_have_its_address() {
        let mut shown = task(&[("a", true, None), ("b", false, None)]);
        let ports = json!([{"containerPort": 8080, "protocol": "tcp"}, {"containerPort": 53, "protocol": "udp"}]);
        shown.payload =
            json!({"containers": [{"name": "a", "portMappings": ports}, {"name": "b", "portMappings": []}]});
        let running = |task: &mut Task| task.containers.iter_mut().for_each(|c| c.last_status = TaskStatus::Running);
        let found =
            |task: &Task| task.containers.iter().map(|container| own_addresses(task, container)).collect::<Vec<_>>();
        running(&mut shown);
        assert_eq!(found(&shown), [vec![], Vec::<String>::new()], "it has no interface");
        shown.interface = TaskInterface::new("subnet-1", |_| true);
        let address = shown.interface.as_ref().unwrap().link.address;
        assert_eq!(found(&shown), [vec![format!("http://{address}:8080"), format!("{address}:53/udp")], vec![]]);
        shown.containers[0].last_status = TaskStatus::Pending;
        assert_eq!(found(&shown), [vec![], Vec::<String>::new()], "it does not run yet");
    }
}
