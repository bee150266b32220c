//! What an agent in a container lacks of its host: what it is, what does not work without it, and the flags of `docker run` that add it.
//! No other file decides that.
//!
//! The service of the host has all of this by itself. Whoever starts a container has to name each of it, and what is forgotten shows only
//! later, in tasks. So the agent says all of it once, at its start, before it waits for Docker.

use crate::model::container_form::{Facts, Groups, Place, Socket, Wanted};

/// Something that the container lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub what: String,
    /// What does not work without it.
    pub without: String,
    /// The flags of `docker run` that add it.
    pub flags: Vec<String>,
}

/// Everything that the container lacks, the most important first. [`Lacks::default`] lacks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// What is missing.
    pub all: Vec<Lack>,
    /// The agent is in a network of its own.
    pub network: bool,
    /// The host's processes are not visible at `/proc`.
    pub processes: bool,
    /// The agent can neither make nor check the rules of the firewall.
    pub rules: bool,
    /// No control groups can be made for tasks.
    pub limits: bool,
}

impl Lacks {
    /// All of it in one text for people; `None` if nothing is missing.
    pub fn text(&self) -> Option<String> {
        let numbered =
            self.all.iter().zip(1..).map(|(lack, number)| format!("({number}) {}: {}", lack.what, lack.without));
        Some(numbered.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    }

    /// The flags to add to `docker run`, each once.
    pub fn flags(&self) -> String {
        let mut flags: Vec<&str> = Vec::new();
        for flag in self.all.iter().flat_map(|lack| &lack.flags) {
            if !flags.contains(&flag.as_str()) {
                flags.push(flag);
            }
        }
        flags.join(" ")
    }
}

/// The mount of the host's control groups.
const GROUPS: &str = "--volume=/sys/fs/cgroup:/sys/fs/cgroup";
/// The mounts with which the programs of the host run in the image, which has none.
const PROGRAMS: [&str; 2] = ["--volume=/usr:/usr:ro", "--volume=/etc/alternatives:/etc/alternatives:ro"];
/// Docker makes the settings of the kernel read-only for a container, and AppArmor forbids their change.
const SETTINGS: [&str; 2] = ["--security-opt=systempaths=unconfined", "--security-opt=apparmor=unconfined"];

/// What the container lacks for this work.
pub fn lacks(facts: &Facts, wanted: Wanted) -> Lacks {
    let rules = rules(facts, wanted);
    let limits = limits(facts, wanted);
    let (lacks_rules, lacks_limits) = (may_not_keep_rules(facts), limits.is_some());
    let all = [
        socket(facts),
        network(facts),
        users(facts),
        data(facts),
        rules,
        task_networks(facts, wanted),
        limits,
        statistics(facts, wanted),
        logs(facts),
        faults(facts, wanted),
        gpus(facts, wanted),
        fetcher(facts, wanted),
        precedence(facts),
    ];
    Lacks {
        all: all.into_iter().flatten().collect(),
        network: facts.has_own_network,
        processes: facts.has_own_processes,
        rules: lacks_rules,
        limits: lacks_limits,
    }
}

fn lack(what: impl Into<String>, without: impl Into<String>, flags: &[impl AsRef<str>]) -> Option<Lack> {
    let flags = flags.iter().map(|flag| flag.as_ref().to_owned()).collect();
    Some(Lack { what: what.into(), without: without.into(), flags })
}

/// The flag for a directory that has the same path on the host and in the container.
fn same_directory(path: &str) -> String {
    let directory = path.rsplit_once('/').map_or(path, |(directory, _)| directory);
    format!("--volume={directory}:{directory}")
}

fn socket(facts: &Facts) -> Option<Lack> {
    match &facts.socket {
        Socket::Elsewhere | Socket::InDirectory => None,
        Socket::Missing(path) => {
            lack(format!("Docker's socket {path}"), "the agent waits for Docker", &[same_directory(path)])
        }
        Socket::Alone(path) => lack(
            format!("the directory of Docker's socket (only {path} is mounted)"),
            "Docker does not answer any more after a restart of dockerd, and an agent on the host is not noticed",
            &[same_directory(path)],
        ),
    }
}

fn network(facts: &Facts) -> Option<Lack> {
    let without = "tasks get no credentials, port 51678 is that of the container and serves all who get there, and EC2's metadata service may not \
                   answer";
    if facts.has_own_network { lack("the host's network", without, &["--network=host"]) } else { None }
}

fn users(facts: &Facts) -> Option<Lack> {
    let without = "root in this container has no rights on the host";
    if facts.has_own_users { lack("the host's users", without, &["--userns=host"]) } else { None }
}

fn data(facts: &Facts) -> Option<Lack> {
    let files = "log routers (FireLens) get no configuration, their tasks no logs, and containers no metadata files";
    let (place, path) = &facts.data;
    let flags = [format!("--volume={}:{path}", facts.data_on_host)];
    match place {
        Place::Mounted => None,
        Place::Inside => lack(
            format!(
                "the host's directory for the state (ECS_DATADIR is in the container itself; {} of the host must be mounted there)",
                facts.data_on_host
            ),
            format!("a new container registers as a new instance and does not know its tasks, {files}"),
            &flags,
        ),
        Place::Wrong(cause) => lack(cause.clone(), files, &flags),
    }
}

fn may_not_keep_rules(facts: &Facts) -> bool {
    facts.missing_rights.contains(&"NET_ADMIN")
        || facts.missing_programs.contains(&"iptables")
        || (facts.has_fixed_settings && !facts.is_host_set_up)
}

fn rules(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    if !wanted.rules || facts.is_host_set_up || !may_not_keep_rules(facts) {
        return None;
    }
    let mut parts: Vec<String> = facts.missing_rights.iter().map(|right| format!("CAP_{right}")).collect();
    let mut flags: Vec<String> = facts.missing_rights.iter().map(|right| format!("--cap-add={right}")).collect();
    if facts.missing_programs.contains(&"iptables") {
        parts.push("iptables".to_owned());
        flags.extend(PROGRAMS.map(str::to_owned));
    }
    if facts.has_fixed_settings {
        parts.push("a writable /proc/sys".to_owned());
        flags.extend(SETTINGS.map(str::to_owned));
    }
    let without = "the agent neither makes nor checks the firewall rules by which containers get their credentials and metadata at \
                   169.254.170.2 (or run `ecs-agent host-setup` as root on the host, then restart this container)";
    lack(parts.join(", "), without, &flags)
}

/// Beyond the host's network.
fn task_networks(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    let rights = &facts.missing_network_rights;
    let lacks_processes = facts.has_own_processes && !facts.has_processes_of_host;
    if !wanted.networks || (rights.is_empty() && !lacks_processes) {
        return None;
    }
    let mut parts: Vec<String> = rights.iter().map(|right| format!("CAP_{right}")).collect();
    let mut flags: Vec<String> = rights.iter().map(|right| format!("--cap-add={right}")).collect();
    if lacks_processes {
        parts.push("the host's processes".to_owned());
        flags.push("--pid=host".to_owned());
    }
    let without = "no tasks in network mode awsvpc are placed here (ECS_ENABLE_TASK_ENI)";
    lack(parts.join(", "), without, &flags)
}

fn limits(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    if !wanted.limits || facts.groups == Groups::Writable {
        return None;
    }
    let without = "tasks run without CPU and memory limits of their own (ECS_ENABLE_TASK_CPU_MEM_LIMIT)";
    lack("the host's control groups, writable", without, &[GROUPS])
}

fn statistics(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    let mut parts = Vec::new();
    let mut flags = Vec::new();
    if facts.has_own_processes {
        parts.push("processes");
        flags.push("--pid=host");
    }
    if facts.has_own_groups {
        parts.push("view of the control groups");
        flags.push("--cgroupns=host");
    }
    if facts.groups == Groups::Own {
        flags.push(GROUPS);
        if parts.is_empty() {
            parts.push("control groups");
        }
    }
    if !wanted.statistics || flags.is_empty() {
        return None;
    }
    let without = "Docker is asked for the statistics of each container once a second, which costs CPU time";
    lack(format!("the host's {}", parts.join(" and ")), without, &flags)
}

fn logs(facts: &Facts) -> Option<Lack> {
    if facts.lost_logs.is_empty() {
        return None;
    }
    let flags: Vec<String> = facts.lost_logs.iter().map(|path| format!("--volume=/var/log/ecs:{path}")).collect();
    let what = format!("a directory of the host for the log files in {}", facts.lost_logs.join(" and "));
    lack(what, "they are gone with the container", &flags)
}

/// What faults need beyond the rules.
fn faults(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    if !wanted.faults || may_not_keep_rules(facts) || facts.missing_programs.is_empty() {
        return None;
    }
    lack(facts.missing_programs.join(", "), "tasks cannot start network faults", &PROGRAMS)
}

fn gpus(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    let flags = ["--volume=/var/lib/ecs/gpu:/var/lib/ecs/gpu:ro"];
    if wanted.gpus && facts.lacks_gpus { lack("the list of GPUs", "no GPU is offered to ECS", &flags) } else { None }
}

fn fetcher(facts: &Facts, wanted: Wanted) -> Option<Lack> {
    let directory = facts.lacks_fetcher.as_ref().filter(|_| wanted.gmsa)?;
    let flags = [format!("--volume={directory}:{directory}")];
    lack("the socket of the credentials fetcher", "no credential specs (gMSA) are offered to ECS", &flags)
}

fn precedence(facts: &Facts) -> Option<Lack> {
    let without = "containers wait longer for credentials while many tasks start";
    if facts.lacks_precedence { lack("a niceness of -15", without, &["--ulimit=nice=35"]) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted =
        Wanted { rules: true, limits: true, statistics: true, faults: true, gpus: true, gmsa: true, networks: true };
    const NOTHING: Wanted = Wanted {
        rules: false,
        limits: false,
        statistics: false,
        faults: false,
        gpus: false,
        gmsa: false,
        networks: false,
    };

    fn data() -> Facts {
        let data = (Place::Mounted, "/data".to_owned());
        Facts { data, data_on_host: "/var/lib/ecs/data".to_owned(), ..Facts::default() }
    }

    /// The container of `docker run IMAGE`, without a flag.
    fn bare() -> Facts {
        Facts {
            socket: Socket::Missing("/var/run/docker.sock".to_owned()),
            has_own_network: true,
            has_own_users: false,
            has_own_processes: true,
            has_processes_of_host: false,
            has_own_groups: true,
            groups: Groups::Own,
            data: (Place::Inside, "/data".to_owned()),
            data_on_host: "/var/lib/ecs/data".to_owned(),
            lost_logs: vec!["/log".to_owned()],
            missing_rights: vec!["NET_ADMIN"],
            missing_network_rights: vec!["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"],
            missing_programs: vec!["iptables", "tc", "nsenter"],
            has_fixed_settings: true,
            is_host_set_up: false,
            lacks_precedence: true,
            lacks_gpus: true,
            lacks_fetcher: Some("/var/credentials-fetcher/socket".to_owned()),
        }
    }

    #[test]
    fn a_container_with_everything_lacks_nothing() {
        let lacks = lacks(&data(), ALL);
        assert_eq!((lacks.text(), lacks.flags().as_str()), (None, ""));
        assert_eq!(lacks, Lacks::default());
    }

    #[test]
    fn everything_that_a_bare_container_lacks_is_listed() {
        let lacks = lacks(&bare(), ALL);
        let flags = "--volume=/var/run:/var/run --network=host --volume=/var/lib/ecs/data:/data --cap-add=NET_ADMIN \
                     --volume=/usr:/usr:ro --volume=/etc/alternatives:/etc/alternatives:ro --security-opt=systempaths=unconfined \
                     --security-opt=apparmor=unconfined --cap-add=SYS_ADMIN --cap-add=SYS_PTRACE --pid=host \
                     --volume=/sys/fs/cgroup:/sys/fs/cgroup --cgroupns=host --volume=/var/log/ecs:/log --volume=/var/lib/ecs/gpu:/var/lib/ecs/gpu:ro \
                     --volume=/var/credentials-fetcher/socket:/var/credentials-fetcher/socket --ulimit=nice=35";
        assert_eq!(lacks.flags(), flags);
        assert!(lacks.rules && lacks.limits);
        assert!(lacks.all.iter().all(|lack| !lack.flags.is_empty() && !lack.without.is_empty()), "{lacks:?}");
    }

    /// A fact, the work, the words that must be in the text, and the flags.
    type Row<'a> = (Facts, Wanted, &'a str, &'a str);

    const PROGRAM_VOLUMES: &str = "--volume=/usr:/usr:ro --volume=/etc/alternatives:/etc/alternatives:ro";

    fn assert_rows(rows: &[Row<'_>]) {
        for (facts, wanted, words, flags) in rows {
            let lacks = lacks(facts, *wanted);
            assert_eq!(lacks.flags(), *flags, "{facts:?}");
            let text = lacks.text().unwrap_or_default();
            assert!(text.contains(words) && text.is_empty() == words.is_empty(), "{text}");
        }
    }

    #[test]
    fn each_fact_has_its_own_words_and_flags() {
        let programs = PROGRAM_VOLUMES;
        let socket = || "/run/podman/podman.sock".to_owned();
        let no_rules = Facts { missing_rights: vec!["NET_ADMIN"], missing_programs: vec!["iptables"], ..data() };
        let fixed = Facts { has_fixed_settings: true, ..data() };
        let table: &[Row<'_>] = &[
            (Facts { socket: Socket::Elsewhere, ..data() }, ALL, "", ""),
            (
                Facts { socket: Socket::Alone("/var/run/docker.sock".to_owned()), ..data() },
                NOTHING,
                "restart of dockerd",
                "--volume=/var/run:/var/run",
            ),
            (
                Facts { socket: Socket::Missing(socket()), ..data() },
                NOTHING,
                "waits",
                "--volume=/run/podman:/run/podman",
            ),
            (Facts { has_own_network: true, ..data() }, NOTHING, "no credentials", "--network=host"),
            (Facts { has_own_users: true, ..data() }, NOTHING, "no rights", "--userns=host"),
            (
                Facts { data: (Place::Inside, "/d".to_owned()), ..data() },
                ALL,
                "new instance",
                "--volume=/var/lib/ecs/data:/d",
            ),
            (
                Facts { data: (Place::Wrong("it is elsewhere".to_owned()), "/d".to_owned()), ..data() },
                ALL,
                "it is elsewhere: log routers",
                "--volume=/var/lib/ecs/data:/d",
            ),
            (no_rules.clone(), NOTHING, "", ""),
            (Facts { is_host_set_up: true, ..no_rules.clone() }, ALL, "", ""),
            (no_rules, ALL, "CAP_NET_ADMIN, iptables: the agent neither", &format!("--cap-add=NET_ADMIN {programs}")),
            (Facts { is_host_set_up: true, ..fixed.clone() }, ALL, "", ""),
            (
                fixed,
                ALL,
                "a writable /proc/sys: the agent neither",
                "--security-opt=systempaths=unconfined --security-opt=apparmor=unconfined",
            ),
        ];
        assert_rows(table);
    }

    #[test]
    fn features_have_their_own_words_and_flags() {
        let programs = PROGRAM_VOLUMES;
        let table: &[Row<'_>] = &[
            (Facts { missing_programs: vec!["tc"], ..data() }, ALL, "tc: tasks cannot start network faults", programs),
            (Facts { missing_programs: vec!["tc"], ..data() }, NOTHING, "", ""),
            (Facts { groups: Groups::ReadOnly, ..data() }, ALL, "without CPU and memory limits", GROUPS),
            (
                Facts { groups: Groups::Own, ..data() },
                Wanted { limits: false, ..ALL },
                "the host's control groups: Docker",
                GROUPS,
            ),
            (Facts { groups: Groups::Own, ..data() }, NOTHING, "", ""),
            (Facts { has_own_processes: true, ..data() }, ALL, "the host's processes: Docker is asked", "--pid=host"),
            (
                Facts { missing_network_rights: vec!["SYS_PTRACE"], has_own_processes: true, ..data() },
                Wanted { networks: true, ..NOTHING },
                "CAP_SYS_PTRACE, the host's processes: no tasks in network mode awsvpc",
                "--cap-add=SYS_PTRACE --pid=host",
            ),
            (
                Facts { has_own_processes: true, has_processes_of_host: true, ..data() },
                Wanted { networks: true, ..NOTHING },
                "",
                "",
            ),
            (Facts { missing_network_rights: vec!["SYS_ADMIN"], ..data() }, NOTHING, "", ""),
            (Facts { has_own_groups: true, ..data() }, ALL, "Docker is asked", "--cgroupns=host"),
            (
                Facts { lost_logs: vec!["/log".to_owned(), "/audit".to_owned()], ..data() },
                NOTHING,
                "log files in /log and /audit: they are gone",
                "--volume=/var/log/ecs:/log --volume=/var/log/ecs:/audit",
            ),
            (Facts { lacks_gpus: true, lacks_fetcher: Some("/x".to_owned()), ..data() }, NOTHING, "", ""),
            (Facts { lacks_precedence: true, ..data() }, NOTHING, "wait longer", "--ulimit=nice=35"),
        ];
        assert_rows(table);
    }

    #[test]
    fn the_agent_leaves_alone_what_it_cannot_do() {
        let unable = [
            Facts { missing_rights: vec!["NET_ADMIN"], is_host_set_up: true, ..data() },
            Facts { missing_programs: vec!["iptables"], is_host_set_up: true, ..data() },
            Facts { has_fixed_settings: true, ..data() },
        ];
        for facts in unable {
            assert!(lacks(&facts, ALL).rules, "{facts:?}");
        }
        // The setting is made already, so that it is read-only does not matter.
        assert!(!lacks(&Facts { has_fixed_settings: true, is_host_set_up: true, ..data() }, ALL).rules);
        assert!(!lacks(&Facts { missing_rights: vec!["NET_RAW"], ..data() }, ALL).rules);
        assert!(lacks(&Facts { groups: Groups::ReadOnly, ..data() }, ALL).limits);
        assert!(!lacks(&Facts { groups: Groups::ReadOnly, ..data() }, NOTHING).limits);
        assert!(lacks(&Facts { has_own_network: true, ..data() }, ALL).network && !lacks(&data(), ALL).network);
    }
}
