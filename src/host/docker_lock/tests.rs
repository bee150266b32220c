use super::*;
use std::os::unix::fs::symlink;

/// Directories for one test, removed when this is dropped.
struct Host(PathBuf);

impl Host {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ecs-docker-lock-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(path.join("shm")).unwrap();
        Self(path)
    }

    fn places(&self) -> Places {
        Places { shared: self.0.join("run"), open: self.0.join("shm") }
    }

    /// The places of an agent that may not write to the shared directory.
    fn without_shared(&self) -> Places {
        Places { shared: self.0.join("missing/run"), open: self.0.join("shm") }
    }

    fn take(&self, engine: &str, namespace: u64) -> Result<DockerLock, Held> {
        taken(self.places(), me(), engine, namespace, &holder("a"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn taken(places: Places, trust: Trust, engine: &str, namespace: u64, holder: &Holder) -> Result<DockerLock, Held> {
    let lock = DockerLock::new(places, trust, engine, namespace);
    lock.take_in(Place::Shared, holder)?;
    lock.take_in(Place::Open, holder)?;
    Ok(lock)
}

fn others(lock: &DockerLock, own: &BTreeSet<OwnerId>) -> Result<Running, Held> {
    let (mut running, open) = (lock.others_in(Place::Shared, own)?, lock.others_in(Place::Open, own)?);
    running.identities.extend(open.identities);
    running.is_partial |= open.is_partial;
    Ok(running)
}

fn me() -> Trust {
    Trust { user: rustix::process::geteuid().as_raw(), socket_user: None, socket_group: None }
}

fn holder(id: &str) -> Holder {
    Holder {
        pid: 4711,
        form: "in container 0123".to_owned(),
        data_dir: "/data".to_owned(),
        cluster: "prod".to_owned(),
        identities: BTreeSet::from([id.into()]),
    }
}

fn holder_text(lock: Result<DockerLock, Held>) -> String {
    match lock {
        Err(Held::Engine(holder)) => holder.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_error_of_the_second_agent_describes_the_first() {
    let host = Host::new();
    let first = host.take("ABCD:EF01", 1).unwrap();
    let text = host.take("ABCD:EF01", 1).unwrap_err().to_string();
    for part in ["process 4711", "in container 0123", "ECS_DATADIR /data", "cluster prod", "stop it first"] {
        assert!(text.contains(part), "{text}");
    }
    // As in a child that was forked before the first lock ended and has not started its program yet.
    let _copies: Vec<File> = lock(&first.held).iter().map(|file| file.try_clone().unwrap()).collect();
    drop(first);
    host.take("ABCD:EF01", 1).expect("a file that stays behind is no lock");
}

#[test]
fn other_engines_and_namespaces_have_other_locks() {
    let host = Host::new();
    let _locks = [("A", 1), ("B", 1), ("A", 2), ("", 1), ("../../A", 3)].map(|(engine, namespace)| {
        host.take(engine, namespace).unwrap_or_else(|held| panic!("{engine} {namespace}: {held}"))
    });
    let files = std::fs::read_dir(host.0.join("run")).unwrap().count();
    assert_eq!(files, 5, "all in one directory, whatever an engine calls itself");
}

#[test]
fn agents_conflict_if_only_one_may_use_the_shared_directory() {
    for first_is_shared in [true, false] {
        let host = Host::new();
        let (first, second) = match first_is_shared {
            true => (host.places(), host.without_shared()),
            false => (host.without_shared(), host.places()),
        };
        let take = |places: &Places| taken(places.clone(), me(), "A", 1, &holder("a"));
        let lock = take(&first).unwrap();
        assert_eq!(lock.held.lock().unwrap().len(), 1);
        if first_is_shared {
            // The second one sees the shared directory and may not make anything in it.
            let sees = Places { shared: first.shared.clone(), open: second.open };
            assert!(holder_text(take(&sees)).contains("4711"));
        } else {
            assert!(holder_text(take(&second)).contains("4711"));
        }
    }
}

#[test]
fn an_agent_s_own_directory_is_reused() {
    let host = Host::new();
    for _ in 0..3 {
        taken(host.without_shared(), me(), "A", 1, &holder("a")).unwrap();
    }
    assert_eq!(std::fs::read_dir(host.0.join("shm")).unwrap().count(), 1);
}

/// Everything that another local user could put there: links, files that are open to all, a FIFO, a directory.
#[test]
fn files_of_other_users_are_neither_locks_nor_overwritten() {
    let host = Host::new();
    let precious = host.0.join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    let planted = |name: &str| {
        let directory = host.0.join("shm").join(name);
        std::fs::create_dir(&directory).unwrap();
        directory.join("A.1.lock")
    };
    symlink(&precious, planted("ecs-agent-link")).unwrap();
    std::fs::hard_link(&precious, planted("ecs-agent-hard")).unwrap();
    let open_to_all = planted("ecs-agent-open");
    std::fs::write(&open_to_all, "mine").unwrap();
    std::fs::set_permissions(&open_to_all, Permissions::from_mode(0o666)).unwrap();
    let held = File::open(&open_to_all).unwrap();
    held.lock().unwrap();
    let fifo = planted("ecs-agent-fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::fs::create_dir(planted("ecs-agent-directory")).unwrap();
    symlink(&host.0, host.0.join("shm/ecs-agent-0-link")).unwrap();
    std::fs::write(host.0.join("shm/ecs-agent-file"), "").unwrap();
    let lock = host.take("A", 1).expect("the agent is not kept from starting");
    assert_eq!(lock.held.lock().unwrap().len(), 1, "only its own is held");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(std::fs::read_to_string(&open_to_all).unwrap(), "mine");
}

#[test]
fn a_shared_directory_that_others_may_write_to_is_not_used() {
    let plant: [fn(&Path); 3] = [
        |run| {
            std::fs::create_dir(run).unwrap();
            std::fs::set_permissions(run, Permissions::from_mode(0o777)).unwrap();
        },
        |run| symlink("/tmp", run).unwrap(),
        |run| std::fs::write(run, "a file").unwrap(),
    ];
    for plant in plant {
        let host = Host::new();
        plant(&host.0.join("run"));
        let lock = host.take("A", 1).unwrap();
        assert_eq!(lock.held.lock().unwrap().len(), 1, "in a directory of its own");
        assert!(host.take("A", 1).is_err(), "and it is a lock");
    }
    let nowhere = Places { shared: "/proc/nowhere".into(), open: "/proc/nowhere".into() };
    let lock = taken(nowhere, me(), "A", 1, &holder("a")).expect("an agent without a lock is better than none");
    assert!(lock.held.lock().unwrap().is_empty());
}

#[test]
fn users_of_the_engine_can_see_its_lock() {
    if rustix::process::geteuid().as_raw() != 0 {
        return; // only root may give files away
    }
    let host = Host::new();
    let trust = Trust { socket_group: Some(4242), ..me() };
    let _lock = taken(host.places(), trust, "A", 1, &holder("a")).unwrap();
    let file = std::fs::metadata(host.0.join("run/A.1.lock")).unwrap();
    assert_eq!((file.gid(), file.mode() & 0o7777), (4242, 0o660));
    assert!(Trust { user: 1000, ..trust }.trusts(&file));
    std::os::unix::fs::chown(host.0.join("run/A.1.lock"), Some(1001), Some(1001)).unwrap();
    let file = std::fs::metadata(host.0.join("run/A.1.lock")).unwrap();
    for (trust, is_trusted) in [
        (Trust { user: 0, ..trust }, false),
        (Trust { user: 1001, ..trust }, true),
        (Trust { socket_user: Some(1001), ..trust }, true),
        (Trust { socket_group: Some(1001), ..trust }, true),
    ] {
        assert_eq!(trust.trusts(&file), is_trusted, "{trust:?}");
    }
}

#[test]
fn an_agent_in_another_namespace_is_found_by_its_identities() {
    let host = Host::new();
    let lock = host.take("A", 1).unwrap();
    let other = taken(host.places(), me(), "A", 2, &holder("b")).unwrap();
    let elsewhere = taken(host.without_shared(), me(), "A", 3, &holder("c")).unwrap();
    let _engine = taken(host.places(), me(), "AB", 2, &holder("d")).unwrap();
    let ids = |names: &[&str]| names.iter().map(|name| OwnerId::from(*name)).collect::<BTreeSet<_>>();
    assert_eq!(others(&lock, &ids(&["a"])).unwrap(), Running { identities: ids(&["b", "c"]), is_partial: false });
    let text = others(&lock, &ids(&["x", "b"])).unwrap_err().to_string();
    assert!(text.contains("identity of this data directory") && text.contains("4711"), "{text}");
    drop((other, elsewhere));
    assert_eq!(others(&lock, &ids(&["b"])).unwrap(), Running::default());
    let left: Vec<_> = std::fs::read_dir(host.0.join("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "files of ended agents are removed: {left:?}");
}

#[test]
fn a_lock_file_with_any_content_is_a_lock() {
    let long = serde_json::to_string(&Holder { data_dir: "x".repeat(300_000), ..holder("a") }).unwrap();
    let table = [
        ("", "did not describe itself"),
        ("{", "did not describe itself"),
        ("[1]", "did not describe itself"),
        (&long, "did not describe itself"),
        (r#"{"pid":7,"cluster":"a\nlevel=error"}"#, "cluster a level=error"),
        (r#"{"pid":7,"later":{"x":1}}"#, "process 7"),
    ];
    for (content, wanted) in table {
        let host = Host::new();
        let _lock = host.take("A", 1).unwrap();
        std::fs::write(host.0.join("run/A.1.lock"), content).unwrap();
        let text = holder_text(host.take("A", 1));
        assert!(text.contains(wanted), "{content}: {text}");
    }
}

#[test]
fn a_holder_with_many_identities_can_be_read() {
    let host = Host::new();
    let lock = host.take("A", 1).unwrap();
    let identities: BTreeSet<OwnerId> = (0..900).map(|n| OwnerId::from(format!("{n:064}").as_str())).collect();
    let long =
        Holder { data_dir: format!("/{}\n", "\"".repeat(100_000)), identities: identities.clone(), ..holder("a") };
    lock.describe(&long);
    assert!(holder_text(host.take("A", 1)).contains("process 4711"));
    let other = host.take("A", 2).unwrap();
    let last = identities.last().cloned().into_iter().collect();
    assert!(matches!(others(&other, &last), Err(Held::Identity(_))), "the last identity counts as well");
}

#[test]
fn directories_of_other_users_are_skipped() {
    if rustix::process::geteuid().as_raw() != 0 {
        return; // only root may give directories away
    }
    let host = Host::new();
    let directory = |name: &str, user: u32, group: u32, mode: u32| {
        let path = host.0.join("shm").join(name);
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let wanted = BTreeSet::from([
        directory("ecs-agent-root", 0, 0, 0o755),
        directory("ecs-agent-member", 1001, 4242, 0o755),
        directory("ecs-agent-socket", 1002, 1002, 0o755),
    ]);
    directory("ecs-agent-open", 0, 0, 0o777);
    for number in 0..=MAX_DIRECTORIES {
        directory(&format!("ecs-agent-x{number}"), 1003, 1003, 0o755);
    }
    let trust = Trust { socket_user: Some(1002), socket_group: Some(4242), ..me() };
    let lock = DockerLock::new(host.places(), trust, "A", 1);
    let (found, is_partial) = lock.directories_in(Place::Open);
    assert_eq!((found.into_iter().collect::<BTreeSet<_>>(), is_partial), (wanted, false));
    // More trusted directories than are searched: then the running agents are known only in part.
    for number in 0..=MAX_DIRECTORIES {
        directory(&format!("ecs-agent-y{number}"), 0, 0, 0o755);
    }
    assert!(others(&lock, &BTreeSet::new()).unwrap().is_partial);
}

#[test]
fn an_agent_s_directory_is_given_to_the_socket_s_group() {
    if rustix::process::geteuid().as_raw() != 0 {
        return; // only root may choose any group
    }
    let host = Host::new();
    let trust = Trust { socket_group: Some(4242), ..me() };
    let _lock = taken(host.without_shared(), trust, "A", 1, &holder("a")).unwrap();
    let made = std::fs::read_dir(host.0.join("shm")).unwrap().next().unwrap().unwrap();
    assert_eq!(made.metadata().unwrap().gid(), 4242);
}

#[test]
fn agents_conflict_even_if_the_open_directory_is_unusable() {
    let host = Host::new();
    let _first = host.take("A", 1).unwrap();
    std::fs::write(host.0.join("file"), "").unwrap();
    let places = Places { shared: host.places().shared, open: host.0.join("file") };
    let second = DockerLock::new(places, me(), "A", 1);
    assert!(holder_text(second.take_in(Place::Shared, &holder("b")).map(|_| second)).contains("4711"));
}

#[test]
fn identities_are_partial_while_an_agent_or_place_is_unread() {
    let host = Host::new();
    let lock = host.take("A", 1).unwrap();
    assert_eq!(others(&lock, &BTreeSet::new()).unwrap(), Running::default());
    let starts = taken(host.places(), me(), "A", 2, &Holder { identities: BTreeSet::new(), ..holder("b") }).unwrap();
    assert!(others(&lock, &BTreeSet::new()).unwrap().is_partial, "the agent has not read its data yet");
    starts.describe(&holder("b"));
    let known = Running { identities: BTreeSet::from(["b".into()]), is_partial: false };
    assert_eq!(others(&lock, &BTreeSet::new()).unwrap(), known);
    std::fs::remove_dir_all(host.0.join("shm")).unwrap();
    assert_eq!(others(&lock, &BTreeSet::new()).unwrap(), known, "the open directory is missing");
    std::fs::write(host.0.join("shm"), "").unwrap();
    assert!(others(&lock, &BTreeSet::new()).unwrap().is_partial, "the open directory cannot be listed");
}

/// systemd before 235 removes the file when the unit stops; logind removes a user's files in `/dev/shm`.
#[test]
fn a_removed_lock_file_is_created_again() {
    let gone: [fn(&Path); 3] = [
        |directory| std::fs::remove_dir_all(directory).unwrap(),
        |directory| std::fs::remove_file(directory.join("A.1.lock")).unwrap(),
        |directory| {
            std::fs::remove_file(directory.join("A.1.lock")).unwrap();
            std::fs::write(directory.join("A.1.lock"), "").unwrap();
            std::fs::set_permissions(directory.join("A.1.lock"), Permissions::from_mode(0o600)).unwrap();
        },
    ];
    for remove in gone {
        for is_shared in [true, false] {
            let host = Host::new();
            let places = if is_shared { host.places() } else { host.without_shared() };
            let lock = taken(places.clone(), me(), "A", 1, &holder("a")).unwrap();
            for _ in 0..2 {
                let path = lock.own.lock().unwrap().clone().unwrap();
                remove(path.parent().unwrap());
                assert_eq!(lock.renew(&holder("a")).unwrap(), Renewed::Recreated);
                assert!(holder_text(taken(places.clone(), me(), "A", 1, &holder("b"))).contains("4711"));
            }
            assert_eq!(lock.renew(&holder("a")).unwrap(), Renewed::Unchanged);
        }
    }
}

#[test]
fn renewing_names_the_agent_that_took_the_lock() {
    let host = Host::new();
    let first = host.take("A", 1).unwrap();
    std::fs::remove_dir_all(host.0.join("run")).unwrap();
    let second = taken(host.places(), me(), "A", 1, &Holder { pid: 4712, ..holder("b") }).unwrap();
    for _ in 0..2 {
        assert!(first.renew(&holder("a")).unwrap_err().to_string().contains("process 4712"));
    }
    drop(second);
    assert_eq!(first.renew(&holder("a")).unwrap(), Renewed::Recreated);
    assert!(holder_text(host.take("A", 1)).contains("4711"));
}

#[test]
fn an_agent_describes_how_it_runs() {
    let id = "0123456789abcdef".repeat(4);
    let docker =
        format!("530 517 259:1 /var/lib/docker/containers/{id}/resolv.conf /etc/resolv.conf rw - xfs /dev/a rw\n");
    let plain = "517 404 0:48 / / rw - overlay overlay rw\n";
    assert_eq!(form(true, plain), "the system service (-service)");
    assert_eq!(form(false, "22 1 8:1 /containers/short/x /etc/hosts rw - ext4 /dev/a rw\n"), "");
    // The memory that a container shares is mounted on the host.
    let shared = format!("99 27 0:72 / /var/lib/docker/containers/{id}/mounts/shm rw - tmpfs shm rw\n");
    let volume = format!("98 27 8:1 /var/lib/docker/containers/{id}/x /backup rw - ext4 /dev/a rw\n");
    assert_eq!(form(false, &format!("{plain}{shared}{volume}")), "");
    assert_eq!(form(true, &shared), "the system service (-service)");
    assert_eq!(form(false, &format!("{plain}{docker}")), "in container 0123456789ab");
}

#[test]
fn creating_a_lock_file_is_tried_again() {
    let host = Host::new();
    let lock = host.take("A", 1).unwrap();
    // The directory went, and nothing can be made in its place: as in the sandbox of a unit, where `/run` is read-only.
    for directory in ["run", "shm"] {
        std::fs::remove_dir_all(host.0.join(directory)).unwrap();
        std::fs::write(host.0.join(directory), "").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(lock.renew(&holder("a")).unwrap(), Renewed::Missing);
    }
    std::fs::remove_file(host.0.join("run")).unwrap();
    assert_eq!(lock.renew(&holder("a")).unwrap(), Renewed::Recreated);
    assert!(holder_text(host.take("A", 1)).contains("4711"));
}
