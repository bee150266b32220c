use super::*;
use proptest::prelude::*;
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
        self.write(&format!("proc/{PID}/stat"), "4711 (sleep) S 1 4711 4711");
        self.write(&format!("proc/{PID}/net/dev"), "h\nh\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n    lo: 9\n");
    }

    fn sampler(&self, max_files: usize) -> Sampler {
        Sampler::with_proc(self.0.join("proc"), max_files, Instant::now())
    }
}

fn target(has_networks: bool) -> Target {
    Target { id: ID.into(), process: Process { pid: PID, started_at: "then".into() }, has_networks }
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

/// The container ends, and its number is given to a process of somebody else, before Docker says so.
/// Of a container that has not run for some readings, only what others can change is read.
#[test]
fn a_quiet_container_is_read_in_part() {
    for (host, is_v1) in [(Host::v1(), true), (Host::v2(), false)] {
        let file = |v1: &str, v2: &str| match is_v1 {
            true => format!("cg/{}", v1.replace('@', &format!("docker/{ID}"))),
            false => format!("cg/system.slice/docker-{ID}.scope/{v2}"),
        };
        let pids = file("pids/@/pids.current", "pids.current");
        let mut sampler = host.sampler(100);
        for count in 5..9 {
            host.write(&pids, &format!("{count}\n"));
            assert_eq!(read_usage(&mut sampler).pids.current, count, "it may have run just before");
        }
        let before = read_usage(&mut sampler);
        host.write(&pids, "9\n");
        host.write(
            &file("blkio/@/blkio.throttle.io_service_bytes", "io.stat"),
            match is_v1 {
                true => "8:0 Read 77\nTotal 77\n",
                false => "8:0 rbytes=77\n",
            },
        );
        host.write(&format!("proc/{PID}/net/dev"), "h\nh\n  eth0: 99 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n");
        let now = read_usage(&mut sampler);
        assert_eq!((now.block_io.bytes("read"), now.networks[0].traffic.rx_bytes), (77, 99));
        assert_eq!((&now.cpu, &now.memory, now.pids), (&before.cpu, &before.memory, before.pids));
        host.write(&file("memory/@/memory.usage_in_bytes", "memory.current"), "16384\n");
        let now = read_usage(&mut sampler);
        assert_eq!((now.memory.usage, now.pids.current), (16_384, 9));
    }
}

#[test]
fn another_process_with_the_same_number_is_not_read() {
    let host = Host::v2();
    let mut sampler = host.sampler(100);
    read_usage(&mut sampler);
    fs::remove_dir_all(host.0.join("proc/4711")).unwrap();
    host.process("0::/system.slice/ssh.service\n");
    for _ in 0..2 * MAX_TRIES {
        assert_eq!(
            sample(&mut sampler, &target(true)),
            Outcome::Missing,
            "it was read, so it is not called unreadable"
        );
    }
    let another_run = Target { process: Process { started_at: "later".into(), pid: PID }, ..target(true) };
    assert_eq!(sample(&mut sampler, &another_run), Outcome::Missing);
}

#[test]
fn a_container_that_has_ended_is_missing() {
    let host = Host::v2();
    let mut sampler = host.sampler(0);
    read_usage(&mut sampler);
    fs::remove_dir_all(host.0.join("cg/system.slice")).unwrap();
    for _ in 0..2 * MAX_TRIES {
        assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing);
    }
    sampler.keep_only(&[]);
    assert!(sampler.is_idle());
}

/// Until its parent takes note, a process that has ended is there, in the root group (version 1) or in one that is removed.
#[test]
fn a_container_that_ended_before_it_was_read_is_missing() {
    for groups in ["5:pids:/\n3:cpu,cpuacct:/\n0::/docker/@\n", "0::/docker/@ (deleted)\n"] {
        let host = Host::v1();
        host.process(&groups.replace('@', ID));
        host.write(&format!("proc/{PID}/stat"), "4711 (sleep) Z 1 4711 4711");
        let mut sampler = host.sampler(100);
        assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing, "{groups}");
        let State::Closed(tries) = &sampler.readers[&ID.into()].state else { panic!("it is tried again") };
        assert_eq!(tries.failed, 1);
    }
}

#[test]
fn a_process_that_is_never_seen_is_given_up() {
    let host = Host::v2();
    fs::remove_dir_all(host.0.join("proc/4711")).unwrap();
    let mut sampler = host.sampler(100);
    for _ in 1..MAX_TRIES {
        assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing);
    }
    let unreadable = Outcome::Unreadable("its first process is not visible here".to_owned());
    for _ in 0..2 {
        assert_eq!(sample(&mut sampler, &target(true)), unreadable);
    }
    let next =
        |started_at: &str| Target { process: Process { pid: PID, started_at: started_at.into() }, ..target(true) };
    assert_eq!(sample(&mut sampler, &next("later")), unreadable, "nothing can be seen here");
    // It is a new container with the same number.
    host.process(&format!("0::/system.slice/docker-{ID}.scope\n"));
    assert!(matches!(sample(&mut sampler, &next("at last")), Outcome::Read(_)));
    // Where one container was seen, another one that is not there has ended.
    fs::remove_dir_all(host.0.join("proc/4711")).unwrap();
    for _ in 1..MAX_TRIES_IF_CLEAR {
        assert_eq!(sample(&mut sampler, &next("too late")), Outcome::Missing);
    }
    assert_eq!(sample(&mut sampler, &next("too late")), unreadable);
}

#[test]
fn a_host_without_the_groups_is_unreadable() {
    let host = Host::v2();
    host.write("proc/self/mountinfo", "1 1 0:1 / /nowhere rw - cgroup2 cgroup2 rw\n");
    let mut sampler = host.sampler(100);
    for _ in 1..MAX_TRIES {
        assert_eq!(sample(&mut sampler, &target(true)), Outcome::Missing, "it may be ending");
    }
    let outcome = sample(&mut sampler, &target(true));
    assert_eq!(outcome, Outcome::Unreadable("its control groups are not visible here".to_owned()));
}

/// A directory in the place of a file gives an error that says nothing about the container, as too many open files do.
#[test]
fn a_passing_error_does_not_change_the_source() {
    let host = Host::v2();
    let place = format!("proc/{PID}/net/dev");
    let file = host.0.join(&place);
    for was_read in [false, true] {
        let mut sampler = host.sampler(100);
        if was_read {
            read_usage(&mut sampler);
        }
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        for _ in 0..2 * MAX_TRIES {
            assert_eq!(sample(&mut sampler, &target(true)), Outcome::Failed("Is a directory".to_owned()));
        }
        fs::remove_dir(&file).unwrap();
        host.write(&place, &text);
        read_usage(&mut sampler);
    }
}

/// A container on the host of the test below.
#[derive(Clone, Debug)]
struct Other {
    id: String,
    pid: u32,
    run: u32,
    used: u64,
}

impl Other {
    fn target(&self) -> Target {
        let process = Process { pid: self.pid, started_at: self.run.to_string().into() };
        Target { id: self.id.as_str().into(), process, has_networks: false }
    }

    fn group(&self) -> String {
        format!("docker/{}", self.id)
    }

    fn start(&self, host: &Host) {
        host.write(&format!("cg/{}/cpu.stat", self.group()), &format!("usage_usec {}\n", self.used));
        host.write(&format!("proc/{}/cgroup", self.pid), &format!("0::/{}\n", self.group()));
        host.write(&format!("proc/{}/stat", self.pid), "1 (x) S 1");
    }

    fn end(&self, host: &Host) {
        let _ = fs::remove_dir_all(host.0.join(format!("proc/{}", self.pid)));
        let _ = fs::remove_dir_all(host.0.join(format!("cg/{}", self.group())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Containers that start and end with few process ids, in any order: what is read of a container is its own, and one that runs is
    /// read at once.
    #[test]
    fn a_reading_is_that_of_its_own_container(
        // With a few, a file of a removed group may be open; here it has its old content, while the kernel gives an error.
        max_files in prop::sample::select(vec![0, 1_000]),
        steps in prop::collection::vec((0..5_usize, 0..3_u32, 0..3_u8), 1..60),
    ) {
        let host = Host::new(&[("cg", "cgroup2 cgroup2 rw")]);
        let mut sampler = host.sampler(max_files);
        let id = |at: usize| format!("{at:064x}");
        let mut all: Vec<_> = (0..5).map(|at| (Other { id: id(at), pid: 0, run: 0, used: 0 }, false)).collect();
        for (step, (at, pid, is_late)) in steps.into_iter().enumerate() {
            let (container, runs) = &mut all[at];
            if *runs {
                container.end(&host);
                *runs = false;
            }
            // The number goes to another container as soon as its process has ended.
            for (other, runs) in all.iter_mut().filter(|(other, runs)| *runs && other.pid == 100 + pid) {
                other.end(&host);
                *runs = false;
            }
            let (container, runs) = &mut all[at];
            let used = 1_000 * (at as u64 + 1) + step as u64;
            // A late view: the agent still thinks of the run before.
            let before = container.clone();
            *container = Other { pid: 100 + pid, run: container.run + 1, used, ..before.clone() };
            (*runs, ()) = (true, container.start(&host));
            let targets: Vec<_> = all.iter().filter(|(other, _)| other.run > 0).map(|(other, _)| match is_late {
                0 if other.id == before.id => before.target(),
                _ => other.target(),
            }).collect();
            sampler.keep_only(&targets);
            for (target, outcome) in targets.iter().zip(sampler.sample(&targets)) {
                let (other, runs) = all.iter().find(|(other, _)| other.id == target.id.as_str()).unwrap();
                let is_this_run = *runs && other.target() == *target;
                match outcome {
                    Outcome::Read(reading) => {
                        let is_own = reading.usage.cpu.total == 1_000 * other.used;
                        prop_assert!(*runs && is_own, "{other:?}: {}", reading.usage.cpu.total);
                    }
                    Outcome::Missing | Outcome::Unreadable(_) => prop_assert!(!is_this_run, "{other:?} runs"),
                    Outcome::Failed(why) => prop_assert!(false, "{why}"),
                }
            }
        }
    }
}

/// This process, as if it were the first one of a container: the real files of this machine.
#[test]
fn the_counters_of_this_machine_can_be_read() {
    let mut buffer = Vec::new();
    let text = read_once("/proc/self/cgroup".as_ref(), &mut buffer).unwrap();
    let mounts = File::open("/proc/self/mountinfo").unwrap();
    let mounts = find::mounts(&lines_with(mounts, find::MOUNT).unwrap());
    assert!(!mounts.is_empty() && !text.is_empty());
    assert!(parse::host_cpu(&read_once("/proc/stat".as_ref(), &mut buffer).unwrap()).1 > 0);
    assert!(parse::host_memory(&read_once("/proc/meminfo".as_ref(), &mut buffer).unwrap()).unwrap() > 1 << 20);
    let process = File::open("/proc/self").unwrap();
    networks(&process, &mut buffer).unwrap();
}
