use super::*;
use crate::systemd::SystemdError;
use std::fs;
use std::io;
use std::path::Path;

async fn cgroups(driver: CgroupDriver, root: &Path, pids: Option<u32>) -> Cgroups {
    Cgroups::new(Settings { root: root.to_owned(), driver, cpu_period: Span::millis(100), pids }).await
}

/// A directory that is removed at the end of the test.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("ecs-test-cgroup-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A thread that hung may still write into a group.
        let began = std::time::Instant::now();
        while let Err(error) = fs::remove_dir_all(&self.0) {
            assert!(began.elapsed() < Duration::from_secs(30), "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const SPEC: CgroupSpec = CgroupSpec { cpu_micros: 500_000, shares: 130, memory: 256 };

#[tokio::test]
async fn limits_in_the_kernels_terms() {
    let cgroups = cgroups(CgroupDriver::Cgroupfs, Path::new("/none"), None).await;
    let limits_for = |spec: CgroupSpec, period: u64| {
        let mut cgroups = cgroups.clone();
        cgroups.settings.cpu_period = Span::millis(period);
        cgroups.limits(&spec)
    };
    let quota = |quota, period| Cpu::Quota { quota, period };
    assert_eq!(limits_for(SPEC, 100), Limits { cpu: quota(50_000, 100_000), memory: Some(256 << 20), pids: None });
    assert_eq!(limits_for(SPEC, 8).cpu, quota(4_000, 8_000));
    assert_eq!(limits_for(CgroupSpec { cpu_micros: 1, ..SPEC }, 100).cpu, quota(1_000, 100_000), "the kernel's least");
    let largest = limits_for(CgroupSpec { cpu_micros: u64::MAX, shares: 0, memory: u64::MAX }, 100);
    assert_eq!((largest.cpu, largest.memory), (quota(u64::MAX / 10, 100_000), Some(u64::MAX)));
    let none = limits_for(CgroupSpec { cpu_micros: 0, shares: 0, memory: 0 }, 100);
    assert_eq!(none, Limits { cpu: Cpu::Shares(2), memory: None, pids: None });
}

#[test]
fn shares_become_weights() {
    for (shares, weight_is) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000)] {
        assert_eq!(weight(shares), weight_is);
    }
}

#[test]
fn systemd_gets_all_limits_under_the_names_of_its_version() {
    let task = TaskArn::from("t/abc");
    let shown = |cpu, is_unified| {
        let limits = Limits { cpu, memory: Some(5), pids: Some(7) };
        let shown = properties(&task, limits, is_unified);
        assert!(shown.contains(&("DefaultDependencies", Property::Flag(false))));
        let numbers = shown.into_iter().filter_map(|(name, value)| match value {
            Property::Number(number) => Some((name, number)),
            Property::Text(_) | Property::Flag(_) => None,
        });
        numbers.collect::<Vec<_>>()
    };
    let quota = Cpu::Quota { quota: 50_000, period: 100_000 };
    let cpu = [("CPUQuotaPerSecUSec", 500_000), ("CPUQuotaPeriodUSec", 100_000)];
    assert_eq!(shown(quota, true), [&cpu[..], &[("MemoryMax", 5), ("TasksMax", 7)]].concat());
    assert_eq!(shown(quota, false), [&cpu[..], &[("MemoryLimit", 5), ("TasksMax", 7)]].concat());
    assert_eq!(shown(Cpu::Shares(1024), true)[0], ("CPUWeight", 39));
    assert_eq!(shown(Cpu::Shares(1024), false)[0], ("CPUShares", 1024));
}

#[tokio::test]
async fn version_2_as_directories() {
    let group = ["ecs/abc/cpu.max", "ecs/abc/memory.max", "ecs/abc/pids.max", "ecs/abc/cgroup.subtree_control"];
    let mut files = vec![("cgroup.controllers", "cpuset cpu io memory pids\n"), ("cgroup.subtree_control", "")];
    files.extend([("ecs/cgroup.controllers", "cpu memory"), ("ecs/cgroup.subtree_control", "")]);
    files.extend(group.map(|path| (path, "")));
    files.push(("ecs/abc/cgroup.controllers", "memory"));
    let tree = Tree::new("v2", &files);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, Some(99)).await;
    assert!(cgroups.is_unified());
    cgroups.prepare().await.unwrap();
    cgroups.create(&"t/abc".into(), &SPEC).await.unwrap();
    let texts = group.map(|path| tree.text(path));
    assert_eq!(texts, ["50000 100000", "268435456", "99", "+memory"]);
}

#[tokio::test]
async fn a_host_without_a_controller_cannot_limit_tasks() {
    let unified = Tree::new("no-memory", &[("cgroup.controllers", "cpu pids")]);
    let first = Tree::new("no-cpu", &[("memory/cgroup.procs", "")]);
    let other = Tree::new("no-memory-1", &[("cpu/cgroup.procs", "")]);
    for driver in [CgroupDriver::Cgroupfs, CgroupDriver::Systemd] {
        for (tree, missing) in [(&unified, "memory"), (&first, "cpu"), (&other, "memory")] {
            let opened = cgroups(driver, &tree.0, None).await.prepare().await;
            let wanted = format!("the {missing} controller is not available in {}", tree.0.display());
            assert_eq!(opened.unwrap_err().to_string(), wanted);
        }
    }
}

#[tokio::test]
async fn a_limit_that_the_kernel_lacks_fails_the_task() {
    let tree = Tree::new("no-file", &[("cgroup.controllers", "cpu memory"), ("ecs/abc/memory.max", "")]);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    let OpError::Failed(failure) = cgroups.create(&"t/abc".into(), &SPEC).await.unwrap_err() else { panic!() };
    let start = "CgroupError: Agent could not create task's platform resources: cannot write ";
    let text = failure.to_string();
    assert!(text.starts_with(start) && text.contains("/ecs/abc/cpu.max: No such file or directory"), "{text}");
}

#[tokio::test]
async fn child_groups_are_removed_and_a_missing_group_is_success() {
    let tree = Tree::new("remove", &[("cgroup.controllers", "")]);
    fs::create_dir_all(tree.0.join("ecs/abc/left-by-the-engine")).unwrap();
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    for _ in 0..2 {
        cgroups.remove(&"t/abc".into()).await.unwrap();
        assert!(!tree.0.join("ecs/abc").exists() && tree.0.join("ecs").exists());
    }
}

#[tokio::test]
async fn an_id_that_is_a_path_names_no_group() {
    let tree = Tree::new("path", &[("cgroup.controllers", "cpu memory"), ("keep/this", "")]);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    for id in ["..", "", "a.b", "a b"] {
        let task = TaskArn::from(format!("arn:t/{id}").as_str());
        assert!(matches!(cgroups.create(&task, &SPEC).await, Err(OpError::Failed(_))), "{id}");
        assert!(matches!(cgroups.remove(&task).await, Err(OpError::Failed(_))), "{id}");
    }
}

/// The test runs as root, for whom file permissions do not count.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Puts a file in the place of a group, so that the group cannot be created, not even by root.
fn block(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "").unwrap();
}

#[tokio::test]
async fn an_existing_parent_does_not_show_that_groups_can_be_created() {
    let first = ["cpu/cgroup.procs", "cpu/ecs/tasks", "memory/cgroup.procs", "memory/ecs/tasks"].map(|file| (file, ""));
    let first = Tree::new("left-1", &first);
    block(&first.0.join("memory/ecs").join(files::PROBE));
    let second = [("cgroup.controllers", "cpu memory"), ("cgroup.subtree_control", "cpu memory")];
    let more = [("ecs/cgroup.controllers", "cpu memory"), ("ecs/cgroup.subtree_control", "cpu memory")];
    let second = Tree::new("left-2", &[second, more].concat());
    block(&second.0.join("ecs").join(files::PROBE));
    for (tree, group) in [(&first, "memory/ecs"), (&second, "ecs")] {
        let opened = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await.prepare().await.unwrap_err();
        let wanted = format!("cannot create {}: ", tree.0.join(group).join(files::PROBE).display());
        assert!(with_causes(&opened).starts_with(&wanted), "{}", with_causes(&opened));
    }
}

#[tokio::test]
async fn the_probe_leaves_nothing_behind() {
    let tree = Tree::new("probe", &[("cpu/cgroup.procs", ""), ("memory/cgroup.procs", ""), ("pids/cgroup.procs", "")]);
    for _ in 0..2 {
        cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await.prepare().await.unwrap();
        for hierarchy in ["cpu", "memory", "pids"] {
            assert_eq!(fs::read_dir(tree.0.join(hierarchy).join("ecs")).unwrap().count(), 0, "{hierarchy}");
        }
    }
}

#[tokio::test]
async fn another_users_group_with_these_limits_is_accepted() {
    use std::os::unix::fs::PermissionsExt;
    let held = [
        ("cgroup.controllers", "cpu memory"),
        ("ecs/abc/cgroup.controllers", "cpu memory"),
        ("ecs/abc/cgroup.subtree_control", "cpu memory\n"),
        ("ecs/abc/cpu.max", "50000 100000\n"),
        ("ecs/abc/memory.max", "268435456\n"),
    ];
    let tree = Tree::new("held", &held);
    for (path, _) in held {
        fs::set_permissions(tree.0.join(path), fs::Permissions::from_mode(0o444)).unwrap();
    }
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    cgroups.create(&"t/abc".into(), &SPEC).await.unwrap();
    let other = CgroupSpec { memory: 512, ..SPEC };
    let created = cgroups.create(&"t/abc".into(), &other).await;
    assert_eq!(created.is_err(), !is_root(), "rights do not stop root; another limit is no success for anybody else");
}

#[tokio::test]
async fn systemd_that_refuses_is_noticed_at_the_start() {
    use super::super::systemd::tests::bus;
    let tree = Tree::new("refusing", &[("cgroup.controllers", "cpu memory")]);
    let path = tree.0.join("bus");
    let mut cgroups = cgroups(CgroupDriver::Systemd, &tree.0, None).await;
    cgroups.bus = Some(path.clone());
    let refusal = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (opened, ()) = tokio::join!(cgroups.prepare(), bus(listener, vec![(3, refusal)]));
    let text = with_causes(&opened.unwrap_err());
    let slice = format!("ecstasks-{}.slice", files::PROBE);
    assert_eq!(text, format!("cannot create the slice {slice} through systemd: {refusal}: text"));

    fs::remove_file(&path).unwrap();
    let text = with_causes(&cgroups.prepare().await.unwrap_err());
    assert!(text.contains(&slice) && text.contains("No such file or directory"), "{text}");
}

#[tokio::test]
async fn a_slice_that_does_not_appear_is_noticed_at_the_start() {
    use super::super::systemd::tests::bus;
    let (v1, v2) = (["cpu/cgroup.procs", "memory/cgroup.procs"], ["cgroup.controllers"; 2]);
    for (version, files) in [("1", v1), ("2", v2)] {
        for (appears, goes) in [(true, true), (false, true), (true, false)] {
            let tree = Tree::new(&format!("slice-{version}-{appears}-{goes}"), &files.map(|file| (file, "cpu memory")));
            let mut cgroups = cgroups(CgroupDriver::Systemd, &tree.0, None).await;
            cgroups.bus = Some(tree.0.join("bus"));
            cgroups.probe_limit = Duration::from_millis(if appears && goes { 20_000 } else { 300 });
            let slice = cgroups.slice_path(&format!("ecstasks-{}.slice", files::PROBE));
            let listener = std::os::unix::net::UnixListener::bind(tree.0.join("bus")).unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = || tokio::net::UnixListener::from_std(listener.try_clone().unwrap()).unwrap();
            let systemd = async {
                bus(listener(), vec![(2, "")]).await;
                if appears {
                    fs::create_dir_all(&slice).unwrap();
                }
                bus(listener(), vec![(2, "")]).await;
                if appears && goes {
                    fs::remove_dir(&slice).unwrap();
                }
            };
            let (opened, ()) = tokio::join!(cgroups.prepare(), systemd);
            let wanted = match (appears, goes) {
                (true, true) => Ok(()),
                (false, _) => Err(format!("the slice {} is not there 0 s after systemd was asked", slice.display())),
                (true, false) => Err(format!("the slice {} is not gone 0 s after systemd was asked", slice.display())),
            };
            assert_eq!(opened.map_err(|error| error.to_string()), wanted, "version {version}");
        }
    }
}

fn refused_with(name: &str) -> SystemdError {
    SystemdError::Refused { name: name.to_owned(), text: String::new() }
}

#[test]
fn a_refusal_is_permanent_and_a_timeout_is_temporary() {
    use io::ErrorKind;
    let systemd = |source| CgroupError::Systemd { what: "make", slice: "a.slice".to_owned(), source };
    let unreachable = |kind: ErrorKind| systemd(SystemdError::Unreachable(kind.into()));
    let refused = |name: &str| systemd(refused_with(name));
    let file = |kind: ErrorKind| CgroupError::File { what: "cannot create", path: PathBuf::new(), source: kind.into() };
    let not_done = |wanted| CgroupError::NotDone { path: PathBuf::new(), wanted, limit: PROBE_LIMIT };
    let table = [
        (systemd(SystemdError::TimedOut), true),
        (systemd(SystemdError::Cut(ErrorKind::UnexpectedEof.into())), true),
        (systemd(SystemdError::Unreadable("x")), true),
        (unreachable(ErrorKind::ConnectionRefused), true),
        (unreachable(ErrorKind::NotFound), false),
        (unreachable(ErrorKind::PermissionDenied), false),
        (refused("org.freedesktop.DBus.Error.NoReply"), true),
        (refused("org.freedesktop.DBus.Error.ServiceUnknown"), true),
        (refused("org.freedesktop.DBus.Error.AccessDenied"), false),
        (refused("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"), false),
        (file(ErrorKind::Interrupted), true),
        (file(ErrorKind::OutOfMemory), true),
        (file(ErrorKind::PermissionDenied), false),
        (file(ErrorKind::ReadOnlyFilesystem), false),
        (not_done(GONE), true),
        (not_done("there"), false),
        (CgroupError::NoController { controller: "memory", root: "/sys/fs/cgroup".into() }, false),
    ];
    for (error, wanted) in table {
        assert_eq!(error.is_temporary(), wanted, "{}", with_causes(&error));
    }
}

#[test]
fn only_what_systemd_refuses_ends_a_task() {
    use ecs_core::model::FailureKind::{Permanent, Retryable};
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    for (source, kind) in [
        (SystemdError::Unreachable(broken()), Retryable),
        (SystemdError::Cut(broken()), Retryable),
        (SystemdError::Unreadable("x"), Retryable),
        (SystemdError::TimedOut, Retryable),
        (refused_with("org.freedesktop.DBus.Error.NoReply"), Retryable),
        (refused_with("org.freedesktop.systemd1.ShuttingDown"), Retryable),
        (refused_with("org.freedesktop.DBus.Error.AccessDenied"), Permanent),
    ] {
        let text = source.to_string();
        let error = CgroupError::Systemd { what: "make", slice: "a.slice".to_owned(), source };
        assert_eq!(error.failure("", String::new()).kind, kind, "{text}");
    }
}

#[tokio::test]
async fn many_groups_at_once_wait_and_none_fails() {
    let mut files = vec![("cgroup.controllers".to_owned(), "cpu memory")];
    for task in 0..100 {
        for name in ["cpu.max", "memory.max", "cgroup.subtree_control", "cgroup.controllers"] {
            files.push((format!("ecs/{task}/{name}"), ""));
        }
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let tree = Tree::new("many", &files);
    let mut cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    // One ends after the other, so each takes two thirds of the time after which it would hang, and there are 25 for each thread.
    const STEP: Duration = Duration::from_millis(100);
    let slow = LaneSettings { threads: 4, limit: 6 * STEP, ..FILES };
    cgroups.lane = Arc::new(Lane::new("test", slow));
    let (ends, done): (Vec<_>, Vec<_>) = (0..100).map(|_| std::sync::mpsc::channel::<()>()).unzip();
    let created = std::cell::Cell::new(0);
    let creations = done.into_iter().enumerate().map(|(task, end)| {
        let (cgroups, name, created) = (cgroups.clone(), format!("/ecs/{task}"), &created);
        async move {
            let limits = cgroups.limits(&SPEC);
            let work = move |files: Files<'_>| {
                end.recv().unwrap();
                files.create(&name, limits)
            };
            cgroups.on_lane(&task.to_string(), work).await.unwrap();
            created.set(created.get() + 1);
        }
    });
    // Time passes only here: a loaded machine must not count.
    tokio::time::pause();
    let time = async {
        for (task, end) in ends.into_iter().enumerate() {
            tokio::time::advance(STEP).await;
            end.send(()).unwrap();
            while created.get() <= task {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(futures_util::future::join_all(creations), time);
    assert_eq!(created.get(), 100);
}

#[tokio::test]
async fn a_group_that_hangs_is_tried_again_and_ends_no_task() {
    let tree = Tree::new("hanging", &[("cgroup.controllers", "cpu memory")]);
    let mut cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).await;
    cgroups.lane = Arc::new(Lane::new("test", LaneSettings { threads: 1, spare: 1, limit: Duration::from_millis(50) }));
    // Opening a named pipe for writing hangs until there is a reader.
    fs::create_dir_all(tree.0.join("ecs/abc")).unwrap();
    let queue = tree.0.join("ecs/abc/cpu.max");
    assert!(std::process::Command::new("mkfifo").arg(&queue).status().unwrap().success());
    // Only the limit passes, however slow the machine is.
    tokio::time::pause();
    for wanted in ["does not answer; gave up after 0.05 s", "has not answered for 0 s"] {
        let OpError::Failed(failure) = cgroups.create(&"t/abc".into(), &SPEC).await.unwrap_err() else { panic!() };
        assert_eq!(failure.kind, ecs_core::model::FailureKind::Retryable);
        assert!(
            failure.message.ends_with(wanted) && failure.message.contains("the control group /ecs/abc"),
            "{failure}"
        );
    }
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&queue).unwrap();
}
