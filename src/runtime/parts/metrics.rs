//! Fills the page of a scrape (`ECS_ENABLE_PROMETHEUS_METRICS`): from the view, from the agent's health, and from what the parts count.
//!
//! Invariant: a scrape waits for nothing, and changes nothing. Without the setting nothing here runs.

use super::firewall::Rules;
use super::health::Health;
use crate::acs;
use crate::host::this_process::Usage;
use crate::http::metrics::Scrape;
use crate::http::task_metadata::Requests;
use crate::metrics::{Form, Page, names};
use crate::runtime::execute::edges::Edges;
use crate::runtime::execute::pulls::Pulls;
use crate::runtime::logging::{LogControl, queue};
use crate::tcs::waiting;
use crate::version;
use ecs_core::Event;
use ecs_core::model::agent_health::{Check, Subject};
use ecs_core::model::view::View;
use ecs_core::model::waiting::Blocker;
use ecs_core::model::{ContainerStatus, RoleKind, TaskStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What a scrape reads.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) health: Health,
    pub(crate) edges: Arc<Edges>,
    pub(crate) pulls: Pulls,
    pub(crate) rules: Arc<Rules>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) queues: Queues,
}

/// The queues between the parts. They end with their senders, of which these are none.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) core: mpsc::WeakSender<Event>,
    pub(crate) acs: mpsc::WeakSender<acs::Outgoing>,
    pub(crate) log: LogControl,
}

impl Sources {
    /// The function that makes the pages.
    pub(crate) fn scrape(self) -> Scrape {
        Arc::new(move |form| self.page(form))
    }

    fn page(&self, form: Form) -> String {
        let mut page = Page::new(form);
        let view = Arc::clone(&self.view.borrow());
        build(&mut page);
        self.health(&mut page);
        tasks(&mut page, &view);
        self.reports(&mut page, &view);
        self.pulls(&mut page);
        self.docker(&mut page);
        self.queues(&mut page);
        self.requests(&mut page, &view);
        self.state(&mut page);
        process(&mut page, &Usage::read());
        page.finish()
    }

    fn health(&self, page: &mut Page) {
        let health = self.health.judge();
        let mut passed = page.family(names::CHECK_PASSED);
        for Check { subject, healthy, .. } in &health.checks {
            passed.add(&[("check", check_label(*subject))], *healthy);
        }
        let (links, now) = (self.health.links(), Instant::now());
        let is_registered = links.iter().all(|(_, seen)| seen.deregistered.is_none());
        page.single(names::INSTANCE_REGISTERED, is_registered);
        page.single(names::REBALANCE_RECOMMENDATIONS, self.health.recommendations().count());
        let mut up = page.family(names::LINK_UP);
        links.iter().for_each(|(link, seen)| up.add(&[("link", link)], seen.is_connected));
        let mut age = page.family(names::LINK_MESSAGE_AGE);
        for (link, seen) in &links {
            let since = seen.last_word.or(seen.first_connection).map(|at| now.saturating_duration_since(at));
            since.into_iter().for_each(|since| age.add(&[("link", link)], since));
        }
        let mut connections = page.family(names::LINK_CONNECTIONS);
        links.iter().for_each(|(link, seen)| connections.add(&[("link", link)], seen.connections));
    }

    fn reports(&self, page: &mut Page, view: &View) {
        let mut phases = page.family(names::PHASE_SECONDS);
        self.edges.metrics.phases().for_each(|(phase, seconds)| phases.histogram(&[("phase", phase)], seconds));
        let now = self.edges.clock.now();
        let waiting: Vec<_> = view.tasks.iter().filter_map(|task| task.unreported_since).collect();
        let oldest = waiting.iter().min().map_or(Duration::ZERO, |since| now.since(*since).into());
        page.single(names::REPORTS_WAITING, waiting.len());
        page.single(names::REPORTS_OLDEST_AGE, oldest);
        let mut reports = page.family(names::REPORTS);
        self.edges.metrics.reports().for_each(|(outcome, count)| reports.add(&[("outcome", outcome)], count));
    }

    fn pulls(&self, page: &mut Page) {
        page.single(names::PULLS_RUNNING, self.pulls.running());
        let mut pulls = page.family(names::PULLS);
        self.edges.metrics.pulls().for_each(|(outcome, count)| pulls.add(&[("outcome", outcome)], count));
        page.family(names::PULL_SECONDS).histogram(&[], &self.edges.metrics.pull_seconds);
    }

    fn docker(&self, page: &mut Page) {
        let calls = self.edges.docker.calls();
        let mut seconds = page.family(names::DOCKER_CALL_SECONDS);
        calls.seconds().for_each(|(operation, took)| seconds.histogram(&[("operation", operation)], took));
        let mut errors = page.family(names::DOCKER_CALL_ERRORS);
        for (operation, reason, count) in calls.errors() {
            errors.add(&[("operation", operation), ("reason", reason)], count);
        }
        page.single(names::DOCKER_CALLS_RUNNING, calls.running());
        let mut age = page.family(names::DOCKER_ANSWER_AGE);
        age.some(calls.last_answer_age());
    }

    fn queues(&self, page: &mut Page) {
        let metrics = &self.edges.metrics;
        let telemetry = usize::try_from(metrics.telemetry_waiting.get()).unwrap_or(usize::MAX);
        let mut all = vec![("tcs", telemetry, 2 * waiting::MAX_MESSAGES)];
        all.extend(depth(&self.queues.core).map(|(length, capacity)| ("core", length, capacity)));
        all.extend(depth(&self.queues.acs).map(|(length, capacity)| ("acs", length, capacity)));
        let mut dropped = Vec::new();
        for (is_file, length, lines) in self.queues.log.depths() {
            let label = if is_file { "log_file" } else { "log" };
            all.push((label, length, queue::MAX_LINES));
            dropped.push((label, lines));
        }
        let mut lengths = page.family(names::QUEUE_LENGTH);
        all.iter().for_each(|(queue, length, _)| lengths.add(&[("queue", queue)], *length));
        let mut capacities = page.family(names::QUEUE_CAPACITY);
        all.iter().for_each(|(queue, _, capacity)| capacities.add(&[("queue", queue)], *capacity));
        let mut lines = page.family(names::LOG_LINES_DROPPED);
        dropped.iter().for_each(|(queue, count)| lines.add(&[("queue", queue)], *count));
        page.single(names::TELEMETRY_DROPPED, metrics.telemetry_dropped.get());
    }

    fn requests(&self, page: &mut Page, view: &View) {
        page.single(names::METADATA_REQUESTS, self.requests.all.get());
        page.single(names::METADATA_THROTTLED, self.requests.throttled.get());
        let mut credentials = page.family(names::CREDENTIAL_REQUESTS);
        self.requests.credentials().for_each(|(outcome, count)| credentials.add(&[("outcome", outcome)], count));
        let clock = &self.edges.clock;
        let now = clock.wall(clock.now()).as_secs_f64();
        let mut left = page.family(names::CREDENTIALS_TTL);
        for (kind, label) in [(RoleKind::Task, "task"), (RoleKind::Execution, "execution")] {
            // ECS renews those of running tasks.
            let running = view.tasks.iter().filter(|task| task.known < TaskStatus::Stopped);
            let roles = running.flat_map(|task| &task.roles).filter(|role| role.kind == kind);
            let first = roles.filter_map(|role| self.edges.roles.expiration(&role.current)).min_by(f64::total_cmp);
            first.into_iter().for_each(|at| left.add(&[("role", label)], at - now));
        }
    }

    fn state(&self, page: &mut Page) {
        let metrics = &self.edges.metrics;
        page.family(names::STORE_COMMIT_SECONDS).histogram(&[], &metrics.commit_seconds);
        page.single(names::STORE_COMMITS_FAILED, metrics.commits_failed.get());
        page.single(names::STORE_FILE_BYTES, metrics.store_bytes.get());
        page.single(names::FIREWALL_PUT_BACK, self.rules.put_back());
        page.single(names::FIREWALL_FAILING, self.rules.is_failing());
    }
}

fn build(page: &mut Page) {
    let labels = [("version", version::OWN), ("reported_version", version::REPORTED), ("commit", version::COMMIT)];
    page.family(names::BUILD).add(&labels, 1_u64);
}

fn check_label(subject: Subject) -> &'static str {
    match subject {
        Subject::Start => "start",
        Subject::CoreLoop => "core_loop",
        Subject::State => "state",
        Subject::Docker => "docker",
        Subject::Acs => "acs",
        Subject::Telemetry => "telemetry",
        Subject::TaskMetadata => "task_metadata",
        Subject::Spot => "spot",
    }
}

/// All statuses, also those that nothing has: a series that comes and goes cannot be added up.
fn tasks(page: &mut Page, view: &View) {
    const TASK: [(TaskStatus, &str); 5] = [
        (TaskStatus::None, "NONE"),
        (TaskStatus::ManifestPulled, "MANIFEST_PULLED"),
        (TaskStatus::Created, "CREATED"),
        (TaskStatus::Running, "RUNNING"),
        (TaskStatus::Stopped, "STOPPED"),
    ];
    const CONTAINER: [(ContainerStatus, &str); 6] = [
        (ContainerStatus::None, "NONE"),
        (ContainerStatus::ManifestPulled, "MANIFEST_PULLED"),
        (ContainerStatus::Pulled, "PULLED"),
        (ContainerStatus::Created, "CREATED"),
        (ContainerStatus::Running, "RUNNING"),
        (ContainerStatus::Stopped, "STOPPED"),
    ];
    let (mut known, mut containers) = (BTreeMap::new(), BTreeMap::new());
    let mut waits: BTreeMap<&str, u64> = Blocker::KINDS.into_iter().map(|kind| (kind, 0)).collect();
    for task in &view.tasks {
        *known.entry(task.known).or_insert(0_u64) += 1;
        for container in &task.containers {
            *containers.entry(container.known).or_insert(0_u64) += 1;
        }
        for wait in &task.waits {
            *waits.entry(wait.blocker.kind()).or_insert(0) += 1;
        }
    }
    let mut samples = page.family(names::TASKS);
    for (status, label) in TASK {
        samples.add(&[("status", label)], known.get(&status).copied().unwrap_or_default());
    }
    let mut samples = page.family(names::CONTAINERS);
    for (status, label) in CONTAINER {
        samples.add(&[("status", label)], containers.get(&status).copied().unwrap_or_default());
    }
    let mut samples = page.family(names::WAITS);
    waits.iter().for_each(|(kind, count)| samples.add(&[("for", kind)], *count));
}

/// How many messages wait in a queue, and how many fit; `None`: its sender has ended.
fn depth<T>(queue: &mpsc::WeakSender<T>) -> Option<(usize, usize)> {
    let sender = queue.upgrade()?;
    Some((sender.max_capacity() - sender.capacity(), sender.max_capacity()))
}

fn process(page: &mut Page, usage: &Usage) {
    page.family(names::PROCESS_CPU).some(usage.cpu);
    page.family(names::PROCESS_OPEN_FDS).some(usage.open_files);
    page.family(names::PROCESS_MAX_FDS).some(usage.max_files);
    page.family(names::PROCESS_VIRTUAL_MEMORY).some(usage.virtual_bytes);
    page.family(names::PROCESS_RESIDENT_MEMORY).some(usage.resident_bytes);
    page.family(names::PROCESS_THREADS).some(usage.threads);
    page.family(names::PROCESS_START_TIME).some(usage.started);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::view::{ContainerView, TaskView};
    use ecs_core::model::waiting::Waiting;
    use ecs_core::model::{OpId, Timestamp};

    fn page_of(view: &View) -> String {
        let mut page = Page::new(Form::Prometheus);
        tasks(&mut page, view);
        page.finish()
    }

    #[test]
    fn every_status_has_its_series_whatever_the_tasks() {
        let container = |known| ContainerView { known, ..ContainerView::default() };
        let blocker = Blocker::Pull(OpId(1), "secret/image".to_owned());
        let task = |known| TaskView {
            arn: "arn:secret".into(),
            known,
            containers: vec![container(ContainerStatus::Running), container(ContainerStatus::Pulled)],
            waits: vec![Waiting { container: Some("name".into()), blocker: blocker.clone(), since: Timestamp(0) }],
            ..TaskView::default()
        };
        let statuses = [TaskStatus::Running, TaskStatus::Running, TaskStatus::Stopped];
        let full = View { tasks: statuses.into_iter().map(|known| Arc::new(task(known))).collect(), ..View::default() };
        let (text, empty) = (page_of(&full), page_of(&View::default()));
        for line in [
            "ecs_agent_tasks{status=\"RUNNING\"} 2",
            "ecs_agent_tasks{status=\"STOPPED\"} 1",
            "ecs_agent_tasks{status=\"CREATED\"} 0",
            "ecs_agent_containers{status=\"PULLED\"} 3",
            "ecs_agent_waits{for=\"pull\"} 3",
            "ecs_agent_waits{for=\"engine\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let series =
            |text: &str| text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>();
        assert_eq!(series(&text), series(&empty), "the series do not depend on tasks");
        assert!(!text.contains("secret") && !text.contains("name="), "{text}");
    }
}
