//! What the agent sees of its host from inside of a container, for [`Facts`].
//!
//! Nothing here needs the container engine to answer, so that an agent can say what it lacks before it waits for Docker. Invariant:
//! nothing is changed. If it is not known whether something is there, the warning does not ask for it.

use super::data_dir::{View, in_container, listening_process, mount, view};
use super::docker_lock::form;
use super::lanes::files;
use super::program::{Call, Programs};
use ecs_core::model::container_form::{Facts, Groups, Place, Socket};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What Podman leaves in each container. Docker's mark `/.dockerenv` proves nothing: it stays in the image of a machine that was made
/// from a container. Docker's mounts do.
const PODMAN: &str = "/run/.containerenv";
/// The number of the host's PID namespace (`PROC_PID_INIT_INO` in the kernel).
const HOST_PROCESSES: u64 = 0xEFFF_FFFC;
/// The limit of the niceness with which a thread may take one of -15: 20 minus the niceness.
const NICE: u64 = 35;
/// The programs for changes of the network, each with an argument with which it only shows its version.
const PROGRAMS: [(&str, &str); 3] = [("iptables", "--version"), ("tc", "-V"), ("nsenter", "--version")];
/// The directories of the host in which these programs, their libraries and their links are.
const PROGRAM_DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/lib", "/etc/alternatives"];
/// Time limit for each program.
const LIMIT: Duration = Duration::from_secs(2);
const GROUPS: &str = "/sys/fs/cgroup";
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";
/// What `host-setup` leaves when it has set up the host, as it is seen with the usual mount of `/var/run`.
const SETUP_RECORD: &str = "/var/run/ecs-agent/host-setup.json";
const GPUS: &str = "/var/lib/ecs/gpu";

/// What the configuration says about the places.
#[derive(Clone, Debug)]
pub struct Places {
    /// The address of the engine.
    pub engine: String,
    /// The agent's data directory.
    pub data: PathBuf,
    /// The host's directory that belongs there.
    pub data_on_host: PathBuf,
    /// The log files.
    pub logs: Vec<PathBuf>,
    /// The socket of the credentials fetcher.
    pub fetcher: PathBuf,
}

/// What the container has of its host; `None`: this process is not in a container, or in that of the engine.
pub async fn facts(places: Places) -> Option<Facts> {
    let is_in_container = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        !form(false, &mounts).is_empty() || Path::new(PODMAN).exists()
    };
    if !files().run("the mounts of this process", is_in_container).await.unwrap_or(false) {
        return None;
    }
    let engine = listening_process(&places.engine).await;
    let inspect =
        move || (!engine.is_some_and(|engine| view(engine) == Some(View::Host))).then(|| inspect(&places, engine));
    let mut facts = files().run("the container of the agent", inspect).await.ok()??;
    facts.missing_programs = missing_programs(&Programs::default()).await;
    Some(facts)
}

/// The programs that do not run, unless all directories of the host's are mounted: then a program is missing on the host.
async fn missing_programs(programs: &Programs) -> Vec<&'static str> {
    let mut missing = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if PROGRAM_DIRECTORIES.iter().all(|path| !is_inside(&mounts, Path::new(path))) {
        return missing;
    }
    for (program, argument) in PROGRAMS {
        let call = Call { program, arguments: &[argument], input: "", limit: LIMIT };
        if !programs.run(&call).await.is_ok_and(|outcome| outcome.is_success()) {
            missing.push(program);
        }
    }
    missing
}

fn inspect(places: &Places, engine: Option<i32>) -> Facts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (mounts, groups) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    let processes = fs::metadata("/proc/self/ns/pid").map_or(HOST_PROCESSES, |namespace| namespace.ino());
    let rights = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    let lacks_right = |(right, _): &(CapabilitySet, &str)| !rights.contains(*right);
    let (route_localnet, fixed) = (read(ROUTE_LOCALNET), is_read_only(ROUTE_LOCALNET));
    let has_priority =
        rights.contains(CapabilitySet::SYS_NICE) || getrlimit(Resource::Nice).current.is_none_or(|limit| limit >= NICE);
    let is_local = places.engine.starts_with("unix://");
    Facts {
        socket: socket(&mounts, &places.engine),
        has_own_network: has_own_network(&interfaces()),
        has_own_users: has_own_users(&read("/proc/self/uid_map")),
        has_own_processes: engine.map_or(processes != HOST_PROCESSES, |engine| engine == 0),
        has_processes_of_host: Path::new("/host/proc/1").exists(),
        has_own_groups: is_root_of_groups(&groups),
        groups: seen_groups(&mounts),
        data: (data(&mounts, places, is_local), places.data.display().to_string()),
        data_on_host: places.data_on_host.display().to_string(),
        lost_logs: lost_logs(&mounts, &places.logs),
        missing_rights: [(CapabilitySet::NET_ADMIN, "NET_ADMIN"), (CapabilitySet::NET_RAW, "NET_RAW")]
            .into_iter()
            .filter(lacks_right)
            .map(|(_, name)| name)
            .collect(),
        missing_network_rights: [
            (CapabilitySet::NET_ADMIN, "NET_ADMIN"),
            (CapabilitySet::SYS_ADMIN, "SYS_ADMIN"),
            (CapabilitySet::SYS_PTRACE, "SYS_PTRACE"),
        ]
        .into_iter()
        .filter(lacks_right)
        .map(|(_, name)| name)
        .collect(),
        missing_programs: Vec::new(),
        has_fixed_settings: fixed,
        is_host_set_up: route_localnet.trim() == "1" || Path::new(SETUP_RECORD).exists(),
        lacks_precedence: !has_priority,
        lacks_gpus: is_inside(&mounts, Path::new(GPUS)),
        lacks_fetcher: places
            .fetcher
            .parent()
            .filter(|directory| is_inside(&mounts, directory))
            .map(|directory| directory.display().to_string()),
    }
}

/// Whether the path is in the container's own file system. The directories of a path that does not exist decide.
fn is_inside(mounts: &str, path: &Path) -> bool {
    let existing = path.ancestors().find_map(|path| fs::canonicalize(path).ok());
    mount_point(mounts, existing.as_deref().unwrap_or(path)).is_some_and(|point| point == Path::new("/"))
}

/// The mount in which the path is.
fn mount_point(mounts: &str, path: &Path) -> Option<PathBuf> {
    let points = mounts.lines().filter_map(mount).map(|(point, _)| point);
    points.filter(|point| path.starts_with(point)).max_by_key(|point| point.components().count())
}

fn is_read_only(path: &str) -> bool {
    access(path, Access::WRITE_OK)
        .is_err_and(|error| std::io::Error::from(error).kind() == ErrorKind::ReadOnlyFilesystem)
}

fn socket(mounts: &str, engine: &str) -> Socket {
    let Some(path) = engine.strip_prefix("unix://") else { return Socket::Elsewhere };
    let Ok(real) = fs::canonicalize(path) else { return Socket::Missing(path.to_owned()) };
    match mount_point(mounts, &real) {
        Some(point) if point == real => Socket::Alone(path.to_owned()),
        _ => Socket::InDirectory,
    }
}

fn data(mounts: &str, places: &Places, is_local: bool) -> Place {
    if is_inside(mounts, &places.data) {
        return Place::Inside;
    }
    // Only an engine of this host looks into its files.
    let found = fs::canonicalize(&places.data).ok().filter(|_| is_local);
    found.and_then(|data| in_container(mounts, &data, &places.data_on_host)).map_or(Place::Mounted, Place::Wrong)
}

fn lost_logs(mounts: &str, logs: &[PathBuf]) -> Vec<String> {
    let directories = logs.iter().filter_map(|file| file.parent()).filter(|directory| is_inside(mounts, directory));
    let mut lost: Vec<String> = directories.map(|directory| directory.display().to_string()).collect();
    lost.sort();
    lost.dedup();
    lost
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    /// The loopback interface.
    Loopback,
    /// An end of a pair whose other end is in another network namespace, as in a container.
    Pair,
    /// Anything else: a card, a bridge, a tunnel.
    Other,
}

/// The interfaces of this network namespace.
fn interfaces() -> Vec<Interface> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let kind = |path: PathBuf| {
        let number = |file: &str| fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
        match (number("type"), number("ifindex"), number("iflink")) {
            (Some(772), _, _) => Interface::Loopback, // ARPHRD_LOOPBACK
            (_, Some(own), Some(other)) if own != other => Interface::Pair,
            _ => Interface::Other,
        }
    };
    entries.map(|entry| kind(entry.path())).collect()
}

/// A host has a card, or a bridge of the engine; a container only ends of pairs.
fn has_own_network(interfaces: &[Interface]) -> bool {
    !interfaces.is_empty() && !interfaces.contains(&Interface::Other)
}

/// According to `/proc/self/uid_map`: the host's users are mapped to themselves, all of them.
fn has_own_users(map: &str) -> bool {
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    !map.is_empty() && fields != ["0", "0", "4294967295"]
}

/// According to `/proc/self/cgroup`, this process is in the root of all groups: only a view of its own can show that of a container.
fn is_root_of_groups(groups: &str) -> bool {
    let mut paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).peekable();
    paths.peek().is_some() && paths.all(|path| path == "/")
}

/// The control groups that are mounted at the usual place. A mount of a group below the root is the container's own.
fn seen_groups(mounts: &str) -> Groups {
    let mut found = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some((point, root)), true) = (mount(line), after.starts_with("cgroup")) else { continue };
        if !point.starts_with(GROUPS) {
            continue;
        }
        let is_writable =
            before.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "rw"));
        let seen = match (root == Path::new("/"), is_writable) {
            (false, _) => Groups::Own,
            (true, false) => Groups::ReadOnly,
            (true, true) => Groups::Writable,
        };
        // The one that allows the least decides: limits need all controllers.
        found = match (found, seen) {
            (None | Some(Groups::Writable), seen) => Some(seen),
            (Some(Groups::ReadOnly), Groups::Own) => Some(Groups::Own),
            (found, _) => found,
        };
    }
    found.unwrap_or(Groups::Own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_of_a_container_has_no_card_and_no_bridge() {
        use Interface::{Loopback, Other, Pair};
        for (interfaces, is_own) in [
            (vec![Loopback, Pair], true),
            (vec![Loopback], true),
            (vec![Loopback, Other], false),
            (vec![Loopback, Pair, Other, Pair], false), // a host whose own card is an end of a pair, with docker0
            (vec![], false),                            // it cannot be found out
        ] {
            assert_eq!(has_own_network(&interfaces), is_own, "{interfaces:?}");
        }
    }

    #[test]
    fn other_users_and_views_of_groups_are_recognised() {
        assert!(!has_own_users("         0          0 4294967295\n"));
        assert!(has_own_users("         0     100000      65536\n"));
        assert!(!has_own_users(""));
        for (groups, is_root) in [
            ("0::/\n", true),
            ("12:memory:/\n1:name=systemd:/\n0::/\n", true),
            ("0::/system.slice/docker-0123.scope\n", false),
            ("12:memory:/docker/0123\n0::/\n", false),
            ("", false),
        ] {
            assert_eq!(is_root_of_groups(groups), is_root, "{groups}");
        }
    }

    #[test]
    fn control_groups_are_the_host_s_or_the_container_s() {
        let line = |root: &str, point: &str, options: &str, kind: &str| {
            format!("600 599 0:30 {root} {point} {options},nosuid,noexec shared:9 - {kind} cgroup rw,memory\n")
        };
        let top = "599 517 0:29 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw\n";
        let memory = "/sys/fs/cgroup/memory";
        for (mounts, wanted) in [
            (String::new(), Groups::Own),
            (format!("{top}{}", line("/docker/0123", memory, "ro", "cgroup")), Groups::Own),
            (format!("{top}{}", line("/", memory, "ro", "cgroup")), Groups::ReadOnly),
            (format!("{top}{}", line("/", memory, "rw", "cgroup")), Groups::Writable),
            (line("/", memory, "rw", "cgroup") + &line("/", "/sys/fs/cgroup/cpu", "ro", "cgroup"), Groups::ReadOnly),
            (line("/", GROUPS, "rw", "cgroup2"), Groups::Writable),
            (line("/", GROUPS, "ro", "cgroup2"), Groups::ReadOnly),
            (line("/", "/elsewhere", "rw", "cgroup2"), Groups::Own),
        ] {
            assert_eq!(seen_groups(&mounts), wanted, "{mounts}");
        }
    }

    #[test]
    fn a_mounted_socket_differs_from_a_mounted_directory() {
        let top = fs::canonicalize(std::env::temp_dir()).unwrap();
        let directory = top.join(format!("ecs-container-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("docker.sock");
        let (address, shown) = (format!("unix://{}", path.display()), path.display().to_string());
        let root = "517 404 0:48 / / rw - overlay overlay rw\n";
        let bind = |point: &Path| format!("{root}530 517 0:25 /x {} rw - tmpfs tmpfs rw\n", point.display());
        assert_eq!(socket(root, &address), Socket::Missing(shown.clone()));
        let _listens = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(socket(&bind(&path), &address), Socket::Alone(shown));
        assert_eq!(socket(&bind(&directory), &address), Socket::InDirectory);
        assert_eq!(socket(root, "tcp://127.0.0.1:2375"), Socket::Elsewhere);

        assert!(is_inside(root, &directory) && is_inside(root, &directory.join("missing/deeper")));
        assert!(!is_inside(&bind(&directory), &directory.join("missing/deeper")));
        let logs = [directory.join("b/x.log"), directory.join("a/y.log"), directory.join("a/z.log")];
        let lost = lost_logs(root, &logs);
        assert_eq!(lost, ["a", "b"].map(|name| directory.join(name).display().to_string()));
        assert_eq!(lost_logs(&bind(&directory), &logs), Vec::<String>::new());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn outside_of_containers_there_is_nothing_to_say() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if !form(false, &mounts).is_empty() || Path::new(PODMAN).exists() {
            return;
        }
        let places = Places {
            engine: "unix:///var/run/docker.sock".to_owned(),
            data: "/data".into(),
            data_on_host: "/var/lib/ecs/data".into(),
            logs: Vec::new(),
            fetcher: "/x".into(),
        };
        assert_eq!(facts(places).await, None);
    }
}
