//! What waits to be sent: metrics and health of the last minutes (spec `tcs.md` §3).
//!
//! Owns the bounds. The invariant: at most five minutes of each wait, and of metrics at most [`MAX_TASKS`] tasks, so that an
//! instance with many tasks does not fill its memory while TCS cannot be reached. The oldest are dropped first. (The Go agent
//! drops the newest.)

use super::health::TaskHealth;
use super::metrics::TaskMetrics;
use super::{Dated, Outgoing};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Maximum number of messages of each kind: one each 20 seconds, for five minutes.
pub const MAX_MESSAGES: usize = 15;
/// Maximum number of tasks in all waiting metrics. The newest metrics are kept, however many tasks they have.
pub const MAX_TASKS: usize = 1500;

/// The messages that wait, each with the time of its data.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The waiting metrics, oldest first; an empty list: the instance was idle.
    metrics: VecDeque<(Instant, Vec<TaskMetrics>)>,
    /// The waiting health, oldest first.
    health: VecDeque<(Instant, Vec<TaskHealth>)>,
}

impl Waiting {
    /// Adds the metrics of an interval that ends now; none: the instance is idle. Returns how many messages were dropped.
    pub fn push_metrics(&mut self, tasks: Vec<TaskMetrics>) -> usize {
        self.metrics.push_back((Instant::now(), tasks));
        let mut dropped = 0;
        while self.metrics.len() > MAX_MESSAGES || (self.tasks() > MAX_TASKS && self.metrics.len() > 1) {
            self.metrics.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// Adds the health of all containers. Returns how many messages were dropped. Nothing is added if there are none.
    pub fn push_health(&mut self, tasks: Vec<TaskHealth>) -> usize {
        if tasks.is_empty() {
            return 0;
        }
        self.health.push_back((Instant::now(), tasks));
        let dropped = self.health.len().saturating_sub(MAX_MESSAGES);
        self.health.drain(..dropped);
        dropped
    }

    /// Number of messages that wait.
    pub fn len(&self) -> usize {
        self.metrics.len() + self.health.len()
    }

    /// Whether anything waits.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.health.is_empty()
    }

    /// Takes the next message: metrics first, then health, each oldest first.
    pub fn take(&mut self) -> Option<Dated> {
        let metrics = self.metrics.pop_front().map(|(at, tasks)| match tasks.is_empty() {
            true => Dated { at, outgoing: Outgoing::Idle },
            false => Dated { at, outgoing: Outgoing::Metrics(tasks) },
        });
        metrics.or_else(|| self.health.pop_front().map(|(at, tasks)| Dated { at, outgoing: Outgoing::Health(tasks) }))
    }

    fn tasks(&self) -> usize {
        self.metrics.iter().map(|(_, tasks)| tasks.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(version: usize, tasks: usize) -> Vec<TaskMetrics> {
        vec![TaskMetrics { version: version.to_string(), ..TaskMetrics::default() }; tasks]
    }

    fn health(version: usize) -> Vec<TaskHealth> {
        let (family, version) = ("web".to_owned(), version.to_string());
        vec![TaskHealth { arn: "a".into(), family, version, containers: Vec::new() }]
    }

    /// What waits, in order: the kind, and the version of its first task.
    fn taken(mut waiting: Waiting) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(message) = waiting.take() {
            found.push(match message.outgoing {
                Outgoing::Metrics(tasks) => format!("m{}", tasks[0].version),
                Outgoing::Health(tasks) => format!("h{}", tasks[0].version),
                other => format!("{other:?}"),
            });
        }
        assert!(waiting.is_empty());
        found
    }

    #[test]
    fn the_last_five_minutes_are_kept_in_order() {
        let mut waiting = Waiting::default();
        let dropped: usize =
            (0..20).map(|at| waiting.push_metrics(metrics(at, 2)) + waiting.push_health(health(at))).sum();
        assert_eq!(dropped, 10);
        let expected = (5..20).map(|at| format!("m{at}")).chain((5..20).map(|at| format!("h{at}")));
        assert_eq!(taken(waiting), expected.collect::<Vec<_>>());
    }

    #[test]
    fn many_tasks_wait_for_a_shorter_time() {
        let mut waiting = Waiting::default();
        let dropped: Vec<usize> = (0..4).map(|at| waiting.push_metrics(metrics(at, 600))).collect();
        assert_eq!(dropped, [0, 0, 1, 1]);
        assert_eq!(taken(waiting), ["m2", "m3"]);
        let mut waiting = Waiting::default();
        waiting.push_metrics(metrics(0, 1));
        assert_eq!(waiting.push_metrics(metrics(1, MAX_TASKS + 1)), 1, "the newest are kept, however many");
        assert_eq!(taken(waiting), ["m1"]);
    }

    #[test]
    fn an_idle_instance_says_so_and_no_health_is_no_message() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.push_health(Vec::new()) + waiting.push_metrics(Vec::new()), 0);
        assert_eq!(taken(waiting), ["Idle"]);
    }
}
