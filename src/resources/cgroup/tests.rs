use super::*;
use std::fs;

fn cgroups(driver: CgroupDriver, root: &Path, pids: Option<u32>) -> Cgroups {
    Cgroups::new(Settings { root: root.to_owned(), driver, cpu_period: Span::millis(100), pids })
}

/// A directory that goes with the test.
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
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const SPEC: CgroupSpec = CgroupSpec { cpu_micros: 500_000, shares: 130, memory: 256 };

#[test]
fn limits_in_the_kernels_terms() {
    let made = |spec: CgroupSpec, period: u64| {
        let mut cgroups = cgroups(CgroupDriver::Cgroupfs, Path::new("/none"), None);
        cgroups.settings.cpu_period = Span::millis(period);
        cgroups.limits(&spec)
    };
    let quota = |quota, period| Cpu::Quota { quota, period };
    assert_eq!(made(SPEC, 100), Limits { cpu: quota(50_000, 100_000), memory: Some(256 << 20), pids: None });
    assert_eq!(made(SPEC, 8).cpu, quota(4_000, 8_000));
    assert_eq!(made(CgroupSpec { cpu_micros: 1, ..SPEC }, 100).cpu, quota(1_000, 100_000), "the kernel's least");
    let most = made(CgroupSpec { cpu_micros: u64::MAX, shares: 0, memory: u64::MAX }, 100);
    assert_eq!((most.cpu, most.memory), (quota(u64::MAX / 10, 100_000), Some(u64::MAX)));
    let none = made(CgroupSpec { cpu_micros: 0, shares: 0, memory: 0 }, 100);
    assert_eq!(none, Limits { cpu: Cpu::Shares(2), memory: None, pids: None });
}

#[test]
fn shares_become_weights() {
    for (shares, weight_is) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000)] {
        assert_eq!(weight(shares), weight_is);
    }
}

#[test]
fn systemd_is_told_all_limits_in_the_words_of_its_version() {
    let task = TaskArn::from("t/abc");
    let told = |cpu, is_unified| {
        let limits = Limits { cpu, memory: Some(5), pids: Some(7) };
        let told = properties(&task, limits, is_unified);
        assert!(told.contains(&("DefaultDependencies", Property::Flag(false))));
        let numbers = told.into_iter().filter_map(|(name, value)| match value {
            Property::Number(number) => Some((name, number)),
            Property::Text(_) | Property::Flag(_) => None,
        });
        numbers.collect::<Vec<_>>()
    };
    let quota = Cpu::Quota { quota: 50_000, period: 100_000 };
    let cpu = [("CPUQuotaPerSecUSec", 500_000), ("CPUQuotaPeriodUSec", 100_000)];
    assert_eq!(told(quota, true), [&cpu[..], &[("MemoryMax", 5), ("TasksMax", 7)]].concat());
    assert_eq!(told(quota, false), [&cpu[..], &[("MemoryLimit", 5), ("TasksMax", 7)]].concat());
    assert_eq!(told(Cpu::Shares(1024), true)[0], ("CPUWeight", 39));
    assert_eq!(told(Cpu::Shares(1024), false)[0], ("CPUShares", 1024));
}

#[tokio::test]
async fn version_2_as_directories() {
    let group = ["ecs/abc/cpu.max", "ecs/abc/memory.max", "ecs/abc/pids.max", "ecs/abc/cgroup.subtree_control"];
    let mut files = vec![("cgroup.controllers", "cpuset cpu io memory pids\n"), ("cgroup.subtree_control", "")];
    files.extend([("ecs/cgroup.controllers", "cpu memory"), ("ecs/cgroup.subtree_control", "")]);
    files.extend(group.map(|path| (path, "")));
    files.push(("ecs/abc/cgroup.controllers", "memory"));
    let tree = Tree::new("v2", &files);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, Some(99));
    assert!(cgroups.is_unified());
    cgroups.open().await.unwrap();
    cgroups.create(&"t/abc".into(), &SPEC).await.unwrap();
    let texts = group.map(|path| tree.text(path));
    assert_eq!(texts, ["50000 100000", "268435456", "99", "+memory"]);
}

#[tokio::test]
async fn a_host_without_a_controller_cannot_limit_tasks() {
    let unified = Tree::new("no-memory", &[("cgroup.controllers", "cpu pids")]);
    let first = Tree::new("no-cpu", &[("memory/cgroup.procs", "")]);
    for (tree, missing) in [(&unified, "memory"), (&first, "cpu")] {
        let opened = cgroups(CgroupDriver::Cgroupfs, &tree.0, None).open().await;
        assert_eq!(opened.unwrap_err().to_string(), format!("the {missing} controller is not available"));
    }
}

#[tokio::test]
async fn a_limit_the_kernel_does_not_have_fails_the_task() {
    let tree = Tree::new("no-file", &[("cgroup.controllers", "cpu memory"), ("ecs/abc/memory.max", "")]);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None);
    let OpError::Failed(failure) = cgroups.create(&"t/abc".into(), &SPEC).await.unwrap_err() else { panic!() };
    assert_eq!(failure.to_string(), "CgroupError: Agent could not create task's platform resources");
}

#[tokio::test]
async fn a_group_below_goes_too_and_one_that_is_gone_is_success() {
    let tree = Tree::new("remove", &[("cgroup.controllers", "")]);
    fs::create_dir_all(tree.0.join("ecs/abc/left-by-the-engine")).unwrap();
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None);
    for _ in 0..2 {
        cgroups.remove(&"t/abc".into()).await.unwrap();
        assert!(!tree.0.join("ecs/abc").exists() && tree.0.join("ecs").exists());
    }
}

#[tokio::test]
async fn an_id_that_is_a_path_names_no_group() {
    let tree = Tree::new("path", &[("cgroup.controllers", "cpu memory"), ("keep/this", "")]);
    let cgroups = cgroups(CgroupDriver::Cgroupfs, &tree.0, None);
    for id in ["..", "", "a.b", "a b"] {
        let task = TaskArn::from(format!("arn:t/{id}").as_str());
        assert!(matches!(cgroups.create(&task, &SPEC).await, Err(OpError::Failed(_))), "{id}");
        assert!(matches!(cgroups.remove(&task).await, Err(OpError::Failed(_))), "{id}");
    }
}
