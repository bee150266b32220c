//! Checks that the agent's data directory is the one from which Docker mounts.
//!
//! The files of log routers, and the metadata files of containers, are written below `ECS_DATADIR` and mounted from
//! `ECS_HOST_DATA_DIR`/`data`. Both must be the same directory, under the agent's and the engine's name. If they are not, Docker
//! mounts empty directories, and nothing else explains why a router has no configuration and its tasks have no logs. Invariant:
//! there is no warning unless the directories certainly differ.

use super::lanes::files;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Upper limit for a connection to a socket of this host.
const CONNECT: Duration = Duration::from_secs(2);

/// The agent's view of the file system, compared with the container engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The host's view, perhaps reduced by the sandbox of a service.
    Host,
    /// The view from inside a container.
    Container,
}

/// Warns if the Docker at `endpoint` does not find the files that the agent writes.
pub async fn check(endpoint: &str, data_dir: &Path, host_data_dir: &Path) {
    let Some(engine) = listening_process(endpoint).await else { return };
    let (data, expected, shown) = (data_dir.to_owned(), host_data_dir.join("data"), data_dir.display().to_string());
    // Both paths come from the operator, so accessing them may block.
    let compare = move || match view(engine)? {
        View::Host => on_host(&data, &expected),
        View::Container => {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            fs::canonicalize(&data).ok().and_then(|data| in_container(&mounts, &data, &expected))
        }
    };
    if let Ok(Some(cause)) = files().run(&shown, compare).await {
        tracing::warn!(
            ECS_DATADIR = %data_dir.display(), ECS_HOST_DATA_DIR = %host_data_dir.display(),
            "log routers (FireLens) get no configuration, their tasks no logs, and containers no metadata files: {cause}"
        );
    }
}

/// Identifies the agent's data directory independently of its path in this mount namespace: the number of the file system, and
/// the directory's path in that file system. The service and the container form get the same text for the same directory of the
/// host; two containers, each with its own `/data`, get different texts.
pub fn place(data_dir: &Path) -> String {
    let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    ecs_core::model::text::cleaned(&place_in(&mounts, &data_dir))
}

fn place_in(mounts: &str, data_dir: &Path) -> String {
    let device = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    let mounts = mounts.lines().filter_map(|line| Some((mount(line)?, device(line)?)));
    let containing = mounts.filter(|((point, _), _)| data_dir.starts_with(point));
    match containing.max_by_key(|((point, _), _)| point.components().count()) {
        Some(((point, root), device)) => {
            let below = data_dir.strip_prefix(&point).unwrap_or(data_dir);
            let path = if below == Path::new("") { root } else { root.join(below) };
            format!("{device} {}", path.display())
        }
        None => data_dir.display().to_string(),
    }
}

/// Id of the process that listens at the engine's socket; 0 if that process is outside of this one's PID namespace; `None` if it
/// cannot be determined.
pub(super) async fn listening_process(endpoint: &str) -> Option<i32> {
    let socket = UnixStream::connect(endpoint.strip_prefix("unix://")?);
    timeout(CONNECT, socket).await.ok()?.ok()?.peer_cred().ok()?.pid()
}

/// This process's view, given the engine's process; `None` if it cannot be determined.
pub(super) fn view(engine: i32) -> Option<View> {
    if engine == 0 {
        return Some(View::Container);
    }
    let mount_namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let namespaces = mount_namespace(&engine.to_string()).zip(mount_namespace("self"));
    let is_same = namespaces.map(|(theirs, ours)| theirs == ours);
    if is_same == Some(true) || is_service(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()) {
        return Some(View::Host);
    }
    // The view differs from the engine's, but the engine's process is visible: a container in the host's PID namespace. Without
    // CAP_SYS_PTRACE the views cannot be compared.
    is_same.map(|_| View::Container)
}

/// This process is a service of the host's systemd, according to its `/proc/self/cgroup`. Its sandbox has a view of its own that
/// is derived from the host's. The service may not compare it with the engine's, but below `/var/lib` both see the same files.
fn is_service(cgroup: &str) -> bool {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths
        .into_iter()
        .any(|path| path.starts_with("/system.slice/") && path.ends_with(".service") && !path.contains("docker"))
}

/// The cause of the warning if the agent has the host's view: there, both paths must lead to the same directory. `None` if they
/// do, or if that cannot be determined.
fn on_host(data_dir: &Path, expected: &Path) -> Option<String> {
    let is_temporary = |path: &Path| ["/tmp", "/var/tmp"].iter().any(|top| path.starts_with(top));
    if (is_temporary(data_dir) || is_temporary(expected))
        && has_private_tmp(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    {
        return None;
    }
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let is_same = identity(data_dir)? == identity(expected).unwrap_or_default();
    (!is_same).then(|| format!("ECS_DATADIR must be ECS_HOST_DATA_DIR/data, {}", expected.display()))
}

/// This service has temporary directories of its own (`PrivateTmp`).
fn has_private_tmp(mounts: &str) -> bool {
    mounts.lines().filter_map(mount).any(|(point, root)| {
        (point == Path::new("/tmp") || point == Path::new("/var/tmp"))
            && root.to_string_lossy().contains("systemd-private-")
    })
}

/// The cause of the warning if the agent is in a container: there, the data directory must be mounted from the host's directory.
/// `None` if it may be. `data_dir` has no symbolic links.
pub(super) fn in_container(mounts: &str, data_dir: &Path, expected: &Path) -> Option<String> {
    let (point, root) = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| data_dir.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())?;
    let wanted = format!("{} of the host must be mounted there", expected.display());
    if point == Path::new("/") {
        return Some(format!("ECS_DATADIR is in the agent's own container; {wanted}"));
    }
    let source = root.join(data_dir.strip_prefix(&point).ok()?);
    // `source` is a path within a file system. The host's path has the mount point before it, and may lack the name of a
    // subvolume.
    let (source, wanted_path) = (below_root(&source), below_root(expected));
    let may_be = wanted_path.ends_with(source) || source.ends_with(wanted_path);
    (!may_be).then(|| format!("ECS_DATADIR is /{} of a file system of the host; {wanted}", source.display()))
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The mount point, and the directory of the file system that is mounted there (`proc_pid_mountinfo(5)`).
pub(super) fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    // The kernel writes a space as \040. A data directory with spaces is not expected; at worst, a warning is missing.
    Some((PathBuf::from(point), PathBuf::from(root)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_container_the_host_s_directory_must_be_mounted() {
        let mounts = |more: &str| {
            format!(
                "517 404 0:48 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/l\n\
                 518 517 0:51 / /proc rw,nosuid - proc proc rw\n{more}"
            )
        };
        let bind = |root: &str, point: &str| format!("530 517 259:1 {root} {point} rw - xfs /dev/nvme0n1p1 rw\n");
        let table = [
            (String::new(), "/data", Some("in the agent's own container; /var/lib/ecs/data of the host")),
            (bind("/var/lib/ecs/data", "/data"), "/data", None),
            (bind("/var/lib/ecs/data", "/data"), "/data/deeper", Some("/var/lib/ecs/data/deeper of a file system")),
            (bind("/var/lib/ecs", "/ecs"), "/ecs/data", None),
            // A disk of its own for /var/lib, for the directory itself; a subvolume.
            (bind("/ecs/data", "/data"), "/data", None),
            (bind("/", "/data"), "/data", None),
            (bind("/@/var/lib/ecs/data", "/data"), "/data", None),
            // A Docker volume.
            (bind("/var/lib/docker/volumes/ecs/_data", "/data"), "/data", Some("/_data of a file system")),
            (bind("/elsewhere", "/") + &bind("/var/lib/ecs/data", "/data"), "/data", None),
        ];
        for (more, data_dir, wanted) in table {
            let wrong = in_container(&mounts(&more), Path::new(data_dir), Path::new("/var/lib/ecs/data"));
            let is_right = match (&wrong, wanted) {
                (Some(text), Some(part)) => text.contains(part),
                (found, wanted) => found.is_none() && wanted.is_none(),
            };
            assert!(is_right, "{more} {data_dir}: {wrong:?}");
        }
        assert_eq!(in_container("", Path::new("/data"), Path::new("/x/data")), None, "no mounts are known");
    }

    #[test]
    fn a_directory_has_the_same_place_under_every_name() {
        let root = "22 1 8:1 / / rw,relatime - ext4 /dev/a rw\n";
        let container = "517 404 0:48 / / rw - overlay overlay rw\n";
        let bind = "530 517 8:1 /var/lib/ecs/data /data rw - ext4 /dev/a rw\n";
        let disk = "40 22 8:17 / /var/lib/ecs rw - xfs /dev/b rw\n";
        let table = [
            (root.to_owned(), "/var/lib/ecs/data", "8:1 /var/lib/ecs/data"),
            (format!("{container}{bind}"), "/data", "8:1 /var/lib/ecs/data"),
            (format!("{container}{bind}"), "/data/deeper", "8:1 /var/lib/ecs/data/deeper"),
            (container.to_owned(), "/data", "0:48 /data"),
            (format!("{root}{disk}"), "/var/lib/ecs/data", "8:17 /data"),
            (format!("{root}{disk}"), "/var/lib/ecs", "8:17 /"),
            // The last one is mounted over the others.
            (format!("{root}{disk}41 40 8:33 / /var/lib/ecs rw - xfs /dev/c rw\n"), "/var/lib/ecs/data", "8:33 /data"),
            (String::new(), "/data", "/data"),
        ];
        for (mounts, data_dir, wanted) in table {
            assert_eq!(place_in(&mounts, Path::new(data_dir)), wanted, "{mounts}");
        }
        let here = std::env::temp_dir();
        assert_eq!(place(&here), place(&here.join(".")));
        assert_ne!(place(&here), place(Path::new("/proc")));
    }

    #[tokio::test]
    async fn a_process_of_this_namespace_has_the_same_view() {
        let path = std::env::temp_dir().join(format!("ecs-data-dir-{}.sock", uuid::Uuid::new_v4().simple()));
        let endpoint = format!("unix://{}", path.display());
        assert_eq!(listening_process(&endpoint).await, None, "no process listens");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let process = listening_process(&endpoint).await.unwrap();
        assert_eq!(process, i32::try_from(std::process::id()).unwrap());
        assert_eq!((view(process), view(0)), (Some(View::Host), Some(View::Container)));
        assert_eq!(listening_process("tcp://127.0.0.1:2375").await, None);
        drop(listener);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_service_of_the_host_differs_from_a_container() {
        for (cgroup, wanted) in [
            ("0::/system.slice/ecs.service\n", true),
            ("12:memory:/system.slice/ecs.service\n1:name=systemd:/system.slice/ecs.service\n", true),
            ("0::/\n", false),
            ("0::/system.slice/docker-0123.scope\n", false),
            ("0::/system.slice/docker.service\n", false),
            ("12:memory:/docker/0123\n1:name=systemd:/docker/0123\n", false),
            ("0::/user.slice/user-0.slice/session-1.scope\n", false),
            ("", false),
        ] {
            assert_eq!(is_service(cgroup), wanted, "{cgroup}");
        }
    }

    #[test]
    fn private_temporary_directories_are_recognised() {
        let private = "85 60 259:1 /tmp/systemd-private-0a-ecs.service-x/tmp /tmp rw shared:1 - ext4 /dev/vda rw\n";
        assert!(has_private_tmp(private));
        assert!(!has_private_tmp("85 60 0:40 / /tmp rw - tmpfs tmpfs rw\n26 1 259:1 / / rw - ext4 /dev/vda rw\n"));
    }

    #[test]
    fn on_the_host_both_paths_must_be_the_same_directory() {
        let top = std::env::temp_dir().join(format!("ecs-data-dir-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(top.join("data")).unwrap();
        fs::create_dir_all(top.join("other")).unwrap();
        std::os::unix::fs::symlink(top.join("data"), top.join("link")).unwrap();
        let wrong = |name: &str, host: &str| on_host(&top.join(name), &top.join(host).join("data"));
        assert_eq!(wrong("data", ""), None);
        assert_eq!(wrong("link", ""), None);
        assert!(wrong("other", "").unwrap().contains("ECS_DATADIR must be ECS_HOST_DATA_DIR/data"));
        assert!(wrong("data", "nowhere").is_some());
        assert_eq!(wrong("nowhere", ""), None, "a missing data directory is reported elsewhere");
        fs::remove_dir_all(&top).unwrap();
    }
}
