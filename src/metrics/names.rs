//! All metrics, by name. Dashboards and alerts depend on these names: a test compares them with `examples/prometheus`.
//!
//! The names follow Prometheus' conventions: the unit is in the name, a counter ends in `_total`. Those that begin with `process_`
//! have the names and meanings that they have in all programs.

/// A metric: its name, its kind and what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name; that of a counter ends in `_total`.
    pub name: &'static str,
    /// What its samples are.
    pub kind: Kind,
    /// One sentence for an operator. No line break, no backslash, no quotation mark.
    pub help: &'static str,
}

/// What the samples of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows while the process runs.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Numbers of observations up to each bound.
    Histogram,
}

impl Kind {
    /// The name of the kind in both formats.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Each line is a constant with the metric of this name; [`ALL`] has them all.
macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub const $constant: &Family = &Family { name: $name, kind: Kind::$kind, help: $help };)*

        /// All metrics, in the order of a page.
        pub const ALL: &[&Family] = &[$($constant),*];
    };
}

families! {
    BUILD Gauge "ecs_agent_build_info" "The version of the agent; always 1."
    CHECK_PASSED Gauge "ecs_agent_check_passed" "1 if this check of the agent's health passes; see /health on port 51678."
    INSTANCE_REGISTERED Gauge "ecs_agent_instance_registered" "0 if ECS says that this instance is not registered."
    REBALANCE_RECOMMENDATIONS Counter "ecs_agent_rebalance_recommendations_total" "Recommendations of EC2 to replace this Spot instance."
    LINK_UP Gauge "ecs_agent_link_up" "1 while a connection to this service is open: ACS sends tasks, TCS gets metrics."
    LINK_MESSAGE_AGE Gauge "ecs_agent_link_last_message_age_seconds" "Seconds since this service last sent anything, or since the first connection. A heartbeat comes about every minute. Absent before the first connection."
    LINK_CONNECTIONS Counter "ecs_agent_link_connections_total" "Connections to this service that were made."
    TASKS Gauge "ecs_agent_tasks" "Tasks by the status that they have reached. A stopped task stays until its containers are removed."
    CONTAINERS Gauge "ecs_agent_containers" "Containers of tasks by the status that they have reached."
    WAITS Gauge "ecs_agent_waits" "Tasks and containers that have not reached their status, by what they wait for."
    PHASE_SECONDS Histogram "ecs_agent_task_phase_seconds" "How long the phases of tasks and containers took."
    REPORTS_WAITING Gauge "ecs_agent_reports_waiting" "Tasks with a change that ECS has not accepted yet."
    REPORTS_OLDEST_AGE Gauge "ecs_agent_reports_oldest_age_seconds" "Seconds for which the oldest change has waited that ECS has not accepted; 0: there is none."
    REPORTS Counter "ecs_agent_reports_total" "Attempts to report a change of a task, by their outcome. ECS refused an invalid one for good; a failed one is repeated."
    PULLS_RUNNING Gauge "ecs_agent_pulls_running" "Pulls of images that run or wait for their turn."
    PULLS Counter "ecs_agent_pulls_total" "Pulls that ended, by their outcome. present: the image was on this host; cached: the pull failed and the image on this host is used."
    PULL_SECONDS Histogram "ecs_agent_pull_seconds" "How long pulls took, with all attempts, if the registry was asked."
    DOCKER_CALL_SECONDS Histogram "ecs_agent_docker_call_seconds" "How long calls to Docker took that were answered. A stop takes as long as the container needs to end."
    DOCKER_CALL_ERRORS Counter "ecs_agent_docker_call_errors_total" "Calls to Docker without success. refused: an error of the caller, such as an unknown container; failed: an error of Docker; unreachable: no connection; cut: the connection ended; timeout: no answer in time, or no longer awaited."
    DOCKER_CALLS_RUNNING Gauge "ecs_agent_docker_calls_running" "Calls to Docker without an answer so far."
    DOCKER_ANSWER_AGE Gauge "ecs_agent_docker_last_answer_age_seconds" "Seconds since Docker last answered anything. The agent asks it at least every 15 seconds."
    QUEUE_LENGTH Gauge "ecs_agent_queue_length" "What waits in a queue of the agent: events for the core loop, lines for the log, messages for ACS and for TCS."
    QUEUE_CAPACITY Gauge "ecs_agent_queue_capacity" "How much fits into the queue."
    LOG_LINES_DROPPED Counter "ecs_agent_log_lines_dropped_total" "Lines of the log that were not written, since they were not read fast enough or the disk was full."
    TELEMETRY_DROPPED Counter "ecs_agent_telemetry_messages_dropped_total" "Messages for TCS that were dropped because too many waited."
    METADATA_REQUESTS Counter "ecs_agent_task_metadata_requests_total" "Requests of containers to 169.254.170.2, credentials included."
    METADATA_THROTTLED Counter "ecs_agent_task_metadata_throttled_total" "Those of these requests that were answered with status 429, since one address asked too often."
    CREDENTIAL_REQUESTS Counter "ecs_agent_credential_requests_total" "Requests for credentials of roles, by their outcome. no_id, unknown_id: no task has this id; not_ready: the SDK tries again; wrong_address: the address is not the task's."
    CREDENTIALS_TTL Gauge "ecs_agent_credentials_time_to_live_seconds" "Seconds until the first credentials of tasks expire, by the kind of their role; below 0: expired. Absent if there are none."
    STORE_COMMIT_SECONDS Histogram "ecs_agent_store_commit_seconds" "How long it took to write changes of the state to disk."
    STORE_COMMITS_FAILED Counter "ecs_agent_store_commits_failed_total" "Attempts to write the state that failed. The agent does nothing until one succeeds."
    STORE_FILE_BYTES Gauge "ecs_agent_store_file_bytes" "Size of the state file after the last commit."
    FIREWALL_PUT_BACK Counter "ecs_agent_firewall_rules_put_back_total" "How often rules of the firewall were missing and were put back."
    FIREWALL_FAILING Gauge "ecs_agent_firewall_failing" "1 while rules of the firewall, or other settings of the host, cannot be made; see /v1/debug/host on port 51678."
    PROCESS_CPU Counter "process_cpu_seconds_total" "Total user and system CPU time spent in seconds."
    PROCESS_OPEN_FDS Gauge "process_open_fds" "Number of open file descriptors."
    PROCESS_MAX_FDS Gauge "process_max_fds" "Maximum number of open file descriptors."
    PROCESS_VIRTUAL_MEMORY Gauge "process_virtual_memory_bytes" "Virtual memory size in bytes."
    PROCESS_RESIDENT_MEMORY Gauge "process_resident_memory_bytes" "Resident memory size in bytes."
    PROCESS_THREADS Gauge "process_threads" "Number of OS threads in the process."
    PROCESS_START_TIME Gauge "process_start_time_seconds" "Start time of the process since unix epoch in seconds."
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for family in ALL {
            let Family { name, kind, help } = family;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("ecs_agent_") || name.starts_with("process_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!help.contains(['\n', '\\', '"']) && help.ends_with('.'), "{name}: {help}");
        }
    }

    /// The names of metrics in a text, each without the end that a histogram adds.
    fn named(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names = words.filter(|word| word.starts_with("ecs_agent_") || word.starts_with("process_"));
        let histograms: Vec<&str> =
            ALL.iter().filter(|family| family.kind == Kind::Histogram).map(|family| family.name).collect();
        let without_end = |word: &str| {
            let ends = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            ends.filter(|start| histograms.contains(start)).unwrap_or(word).to_owned()
        };
        names.map(without_end).collect()
    }

    #[test]
    fn the_examples_name_only_metrics_that_exist() {
        let known: BTreeSet<String> = ALL.iter().map(|family| family.name.to_owned()).collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus");
        let mut read = 0;
        for file in ["rules.yml", "rules-test.yml", "dashboard.json", "README.md"] {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let unknown: Vec<_> = named(&text).difference(&known).cloned().collect();
            assert_eq!(unknown, Vec::<String>::new(), "{file}");
            read += named(&text).len();
        }
        assert!(read > 40, "{read} names were read");
    }

    #[test]
    fn the_page_lists_every_metric() {
        let page = include_str!("../../examples/prometheus/README.md");
        let listed = named(page);
        let missing: Vec<_> =
            ALL.iter().filter(|family| !listed.contains(family.name)).map(|family| family.name).collect();
        assert_eq!(missing, Vec::<&str>::new(), "in examples/prometheus/README.md");
    }
}
