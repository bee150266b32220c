use super::*;
use std::fs;
use std::path::Path;

const ID: &str = "63f90b584c39ffaca00f7001ff2365097da7a49f6eeb4958ddaa3716c81f2fa0";
const PID: u32 = 4711;

/// A host made of plain files.
struct Host(PathBuf);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Host {
    /// A host with these hierarchies: their mounts, as `mountinfo` shows them after the mount point.
    fn new(mounts: &[(&str, &str)]) -> Self {
        let host = Self(std::env::temp_dir().join(format!("ecs-host-{}", uuid::Uuid::new_v4().simple())));
        host.write("proc/stat", "cpu  10 0 0 0 0 0 0 5 0 0\ncpu0 1\ncpu1 1\nintr 0\n");
        host.write("proc/meminfo", "MemTotal: 1024 kB\n");
        let line = |(place, rest): &(&str, &str)| format!("1 1 0:1 / {} rw - {rest}\n", host.0.join(place).display());
        host.write("proc/self/mountinfo", &mounts.iter().map(line).collect::<String>());
        host
    }

    fn v1() -> Self {
        let host = Self::new(&[
            ("cg/cpu,cpuacct", "cgroup cgroup rw,cpu,cpuacct"),
            ("cg/memory", "cgroup cgroup rw,memory"),
            ("cg/blkio", "cgroup cgroup rw,blkio"),
            ("cg/pids", "cgroup cgroup rw,pids"),
            ("cg/unified", "cgroup2 cgroup2 rw"),
        ]);
        let path = format!("/docker/{ID}");
        host.process(&format!("5:pids:{path}\n4:memory:{path}\n3:cpu,cpuacct:{path}\n2:blkio:{path}\n0::{path}\n"));
        for (name, text) in [
            ("cpu,cpuacct/@/cpuacct.usage", "174784270\n"),
            ("cpu,cpuacct/@/cpuacct.stat", "user 11\nsystem 6\n"),
            ("cpu,cpuacct/@/cpuacct.usage_percpu", "38075565 136708705\n"),
            ("cpu,cpuacct/@/cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"),
            ("memory/@/memory.stat", "cache 4096\nrss 8192\n"),
            ("memory/@/memory.usage_in_bytes", "12288\n"),
            ("memory/@/memory.max_usage_in_bytes", "20480\n"),
            ("memory/@/memory.failcnt", "7\n"),
            ("memory/@/memory.limit_in_bytes", "9223372036854771712\n"),
            ("blkio/@/blkio.throttle.io_service_bytes", "8:0 Read 1\n8:0 Total 1\nTotal 1\n"),
            ("blkio/@/blkio.throttle.io_serviced", "Total 0\n"),
            ("pids/@/pids.current", "2\n"),
            ("pids/@/pids.max", "max\n"),
        ] {
            host.write(&format!("cg/{}", name.replace('@', &path[1..])), text);
        }
        host
    }

    fn v2() -> Self {
        let host = Self::new(&[("cg", "cgroup2 cgroup2 rw")]);
        let path = format!("system.slice/docker-{ID}.scope");
        host.process(&format!("0::/{path}/init.scope\n"));
        for (name, text) in [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"),
            ("memory.stat", "anon 4096\ninactive_file 100\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "4096000\n"),
            ("memory.events", "low 0\noom 3\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"),
            ("pids.current", "1\n"),
            ("pids.max", "max\n"),
        ] {
            host.write(&format!("cg/{path}/{name}"), text);
        }
        host
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.0.join(name), text);
    }

    fn process(&self, groups: &str) {
        self.write(&format!("proc/{PID}/cgroup"), groups);
        self.write(&format!("proc/{PID}/net/dev"), "h\nh\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n    lo: 9\n");
    }

    fn sampler(&self, max_files: usize) -> Sampler {
        Sampler::with_proc(self.0.join("proc"), max_files, Instant::now())
    }
}

fn target(has_networks: bool) -> Target {
    Target { id: ID.into(), process: Process { pid: PID, started_at: "then".to_owned() }, has_networks }
}

fn sample(sampler: &mut Sampler, target: &Target) -> Outcome {
    let mut outcomes = sampler.sample(std::slice::from_ref(target));
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

fn read_usage(sampler: &mut Sampler) -> ecs_core::model::usage::Usage {
    match sample(sampler, &target(true)) {
        Outcome::Read(reading) => reading.usage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_counters_of_version_1_are_read() {
    let host = Host::v1();
    let usage = read_usage(&mut host.sampler(100));
    assert_eq!((usage.cpu.total, usage.cpu.user, usage.cpu.kernel), (174_784_270, 110_000_000, 60_000_000));
    assert_eq!((usage.cpu.per_cpu.len(), usage.cpu.system, usage.cpu.online), (2, 100_000_000, 2));
    assert_eq!(usage.cpu.throttling.throttled_time, 3);
    let memory = &usage.memory;
    assert_eq!((memory.usage, memory.max_usage, memory.failures), (12_288, 20_480, 7));
    assert_eq!((memory.limit, memory.without_cache()), (1024 * 1024, 8_192), "no limit is the memory of the host");
    assert_eq!((usage.block_io.bytes("read"), usage.block_io.serviced.as_deref()), (1, Some(&[][..])));
    assert_eq!((usage.pids.current, usage.pids.limit), (2, 0));
    assert_eq!((usage.networks.len(), usage.networks[0].traffic.tx_dropped), (1, 8));
}

#[test]
fn the_scheduler_takes_precedence_if_it_is_in_use() {
    let host = Host::v1();
    let file = format!("cg/blkio/docker/{ID}/blkio.io_service_bytes_recursive");
    let mut sampler = host.sampler(100);
    host.write(&file, "Total 0\n");
    assert_eq!(read_usage(&mut sampler).block_io.bytes("read"), 1);
    host.write(&file, "8:0 Read 5\nTotal 5\n");
    assert_eq!(read_usage(&mut sampler).block_io.bytes("read"), 5);
}

#[test]
fn all_counters_of_version_2_are_read() {
    let host = Host::v2();
    let usage = read_usage(&mut host.sampler(100));
    assert_eq!((usage.cpu.total, usage.cpu.user, usage.cpu.kernel), (5_000, 3_000, 2_000));
    assert!(usage.cpu.per_cpu.is_empty());
    let memory = &usage.memory;
    assert_eq!((memory.usage, memory.failures, memory.limit, memory.without_cache()), (8_192, 3, 1024 * 1024, 8_092));
    assert_eq!((usage.block_io.bytes("read"), usage.block_io.bytes("write")), (10, 20));
    assert_eq!((usage.block_io.serviced, usage.pids.limit), (None, u64::MAX));
}

#[test]
fn counters_are_read_anew_with_and_without_open_files() {
    for max_files in [0, 3, 100] {
        let host = Host::v2();
        let mut sampler = host.sampler(max_files);
        for total in [1, 20, 3_000] {
            host.write(&format!("cg/system.slice/docker-{ID}.scope/cpu.stat"), &format!("usage_usec {total}\n"));
            let usage = read_usage(&mut sampler);
            assert_eq!((usage.cpu.total, usage.networks.len()), (total * 1_000, 1), "{max_files} files");
        }
        let Outcome::Read(reading) = sample(&mut sampler, &target(false)) else { panic!("it can be read") };
        assert_eq!(reading.usage.networks, [], "none of its own");
    }
}

#[test]
fn another_process_with_the_same_number_is_not_read() {
    let host = Host::v2();
    let mut sampler = host.sampler(100);
    read_usage(&mut sampler);
    // The container ends, and its number is given to a process of somebody else, before Docker says so.
    fs::remove_dir_all(host.0.join("proc/4711")).unwrap();
    host.process("0::/system.slice/ssh.service\n");
    assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing, "the open directory is that of the old process");
    let another_run = Target { process: Process { started_at: "later".to_owned(), pid: PID }, ..target(true) };
    assert!(matches!(sample(&mut sampler, &another_run), Outcome::Unreadable(_)));
}

#[test]
fn a_container_that_has_ended_is_missing() {
    let host = Host::v2();
    let mut sampler = host.sampler(0);
    read_usage(&mut sampler);
    fs::remove_dir_all(host.0.join("cg/system.slice")).unwrap();
    assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing);
    sampler.keep_only(&[]);
    assert!(sampler.is_idle());
}

#[test]
fn a_process_that_is_never_seen_is_given_up() {
    let host = Host::v2();
    fs::remove_dir_all(host.0.join("proc/4711")).unwrap();
    let mut sampler = host.sampler(100);
    for _ in 1..MAX_MISSING {
        assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing);
    }
    let unreadable = Outcome::Unreadable("its first process is not visible here".to_owned());
    for _ in 0..2 {
        assert_eq!(sample(&mut sampler, &target(true)), unreadable);
    }
    // It is a new container with the same number.
    host.process(&format!("0::/system.slice/docker-{ID}.scope\n"));
    let next = Target { process: Process { pid: PID, started_at: "later".to_owned() }, ..target(true) };
    assert!(matches!(sample(&mut sampler, &next), Outcome::Read(_)));
}

#[test]
fn a_host_without_the_groups_is_unreadable_at_once() {
    let host = Host::v2();
    host.write("proc/self/mountinfo", "1 1 0:1 / /nowhere rw - cgroup2 cgroup2 rw\n");
    let outcome = sample(&mut host.sampler(100), &target(true));
    assert_eq!(outcome, Outcome::Unreadable("its control groups are not visible here".to_owned()));
}

/// This process, as if it were the first one of a container: the real files of this machine.
#[test]
fn the_counters_of_this_machine_can_be_read() {
    let mut buffer = Vec::new();
    let text = read_once("/proc/self/cgroup".as_ref(), &mut buffer).unwrap();
    let mounts = find::mounts(&read_once("/proc/self/mountinfo".as_ref(), &mut buffer).unwrap());
    assert!(!mounts.is_empty() && !text.is_empty());
    assert!(parse::host_cpu(&read_once("/proc/stat".as_ref(), &mut buffer).unwrap()).1 > 0);
    assert!(parse::host_memory(&read_once("/proc/meminfo".as_ref(), &mut buffer).unwrap()).unwrap() > 1 << 20);
    let process = File::open("/proc/self").unwrap();
    networks(&process, &mut buffer).unwrap();
}
