use super::file::{ASIDE, FILE};
use super::*;
use crate::model::{ContainerStatus, TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A directory for one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-agent-store-{name}-{}", uuid::Uuid::new_v4()));
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The number of rounds of a long loop: the value of this environment variable, or the default.
pub(super) fn times(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The result of opening an empty directory.
fn nothing() -> Loaded {
    Loaded { host: HostState { lost: true, ..HostState::default() }, ..Loaded::default() }
}

/// The result of opening a directory with a lost state, if the file beside it has the registration of [`saved`].
fn only_registered() -> Loaded {
    Loaded { host: HostState { seq: 7, ..nothing().host }, identity: Some(registration()), ..nothing() }
}

fn registration() -> Identity {
    Identity { cluster: "c".into(), container_instance_arn: "arn:i".into(), ..Identity::default() }
}

/// The files that were set aside in this directory.
fn aside(directory: &Directory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_str().unwrap().contains(ASIDE)).collect();
    found.sort();
    found
}

/// A directory with a closed store of this number of tasks, and its state.
fn saved(name: &str, tasks: usize) -> (Directory, State) {
    let directory = Directory::new(name);
    let (mut store, _) = Store::open(&directory.0).unwrap();
    let arns: Vec<String> = (0..tasks).map(|task| format!("arn:{task}")).collect();
    let (state, keys) = state_with(&arns.iter().map(String::as_str).collect::<Vec<_>>());
    store.commit(&state, &keys).unwrap();
    store.save_identity(&registration()).unwrap();
    (directory, state)
}

fn state_with(arns: &[&str]) -> (State, BTreeSet<Key>) {
    let mut state = State::default();
    let mut keys = BTreeSet::from([Key::Host]);
    for (place, arn) in arns.iter().enumerate() {
        let arn = TaskArn::from(*arn);
        keys.insert(Key::Task(arn.clone()));
        let task = TaskState::stopped(arn.clone(), Some("why".into()), place as u64, Timestamp(5));
        state.tasks.insert(arn, Box::new(task));
    }
    state.host.seq = 7;
    (state, keys)
}

#[test]
fn a_committed_state_is_loaded_again() {
    let directory = Directory::new("roundtrip");
    let (mut store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded, nothing(), "a first start and a lost state are the same");
    let (mut state, keys) = state_with(&["arn:a", "arn:b"]);
    store.commit(&state, &keys).unwrap();
    let identity = Identity { cluster: "c".into(), container_instance_arn: "arn:i".into(), ..Identity::default() };
    store.save_identity(&identity).unwrap();
    drop(store);

    let (mut store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded.host, state.host);
    assert_eq!(loaded.identity, Some(identity));
    assert!(loaded.tasks.iter().eq(state.tasks.values().map(|task| &**task)));

    state.tasks.remove(&TaskArn::from("arn:a"));
    store.commit(&state, &[Key::Task(TaskArn::from("arn:a"))]).unwrap();
    drop(store);
    let (mut store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded.tasks.len(), 1, "a task that is gone from the state is deleted");

    store.clear().unwrap();
    drop(store);
    assert_eq!(Store::open(&directory.0).unwrap().1, Loaded::default(), "a cleared state is empty, but not lost");
}

#[test]
fn only_the_owner_may_read_the_state() {
    let directory = Directory::new("modes");
    let _store = Store::open(&directory.0).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory.0), 0o700);
    assert_eq!(mode(&directory.0.join(FILE)), 0o600);
}

#[test]
fn an_existing_directory_keeps_its_mode() {
    for mode in [0o755, 0o711, 0o750, 0o1777, 0o2775] {
        let directory = Directory::new("others");
        std::fs::create_dir_all(&directory.0).unwrap();
        std::fs::set_permissions(&directory.0, Permissions::from_mode(mode)).unwrap();
        let mode_of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for _ in 0..2 {
            let _store = Store::open(&directory.0).unwrap();
            assert_eq!(mode_of(&directory.0), mode);
            let modes: Vec<u32> =
                std::fs::read_dir(&directory.0).unwrap().map(|entry| mode_of(&entry.unwrap().path())).collect();
            // The state file, and the file with the identity beside it.
            assert_eq!(modes, [0o600, 0o600], "only the owner may access the files");
        }
    }
}

#[test]
fn no_link_in_the_directory_is_followed() {
    let (directory, state) = saved("links", 3);
    let (other, file) = (Directory::new("elsewhere"), directory.0.join(FILE));
    std::fs::create_dir_all(&other.0).unwrap();
    let (good, text, nowhere) = (other.0.join("state"), other.0.join("shadow"), other.0.join("none"));
    std::fs::rename(&file, &good).unwrap();
    std::fs::write(&text, "root").unwrap();
    for path in [&good, &text] {
        std::fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    }
    let before = std::fs::read(&good).unwrap();
    for (count, target) in [&good, &text, &nowhere].into_iter().enumerate() {
        std::os::unix::fs::symlink(target, &file).unwrap();
        let (mut store, loaded) = Store::open(&directory.0).unwrap();
        assert_eq!((loaded.tasks.len(), aside(&directory).len()), (0, count + 1), "the link was set aside");
        store.commit(&state, &BTreeSet::from([Key::Host])).unwrap();
        // A link that takes the place of the file while the agent runs.
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(target, &file).unwrap();
        assert!(!store.is_usable(), "it is another file now");
        drop(store);
        std::fs::remove_file(&file).unwrap();
    }
    assert_eq!((std::fs::read(&good).unwrap(), std::fs::read(&text).unwrap()), (before, b"root".to_vec()));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&good), mode(&text), nowhere.exists()), (0o640, 0o640, false), "the targets are unchanged");
}

/// Whatever has the name of the identity's file, or of its next version: the agent writes nothing through it and never waits
/// for it.
#[test]
fn no_planted_identity_file_is_followed_or_kept() {
    let fifo = |path: &Path, _: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    /// Creates something at the first path, which may lead to the second.
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 5] = [
        ("a link", |path, target| std::os::unix::fs::symlink(target, path).unwrap()),
        ("a link to nowhere", |path, target| std::os::unix::fs::symlink(target.with_extension("none"), path).unwrap()),
        ("a second name", |path, target| std::fs::hard_link(target, path).unwrap()),
        ("a queue", fifo),
        ("a file open to all", |path, _| {
            std::fs::write(path, "planted").unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for name in ["ecs-agent.owner", "ecs-agent.owner.new"] {
        for (what, plant) in plants {
            let ((directory, state), other) = (saved("planted", 1), Directory::new("target"));
            std::fs::create_dir_all(&other.0).unwrap();
            let (target, path) = (other.0.join("precious"), directory.0.join(name));
            // The identity of another agent, which must not be read through a link.
            std::fs::write(&target, r#"{"own":"planted"}"#).unwrap();
            let mut identity = Store::open(&directory.0).unwrap().0.owners().clone();
            std::fs::remove_file(directory.0.join("ecs-agent.owner")).unwrap();
            plant(&path, &target);
            let (done, answer) = std::sync::mpsc::channel();
            let path_of_store = directory.0.clone();
            std::thread::spawn(move || {
                let (mut store, _) = Store::open(&path_of_store).unwrap();
                std::fs::remove_file(path_of_store.join(FILE)).unwrap();
                store.commit(&state, &BTreeSet::from([Key::Host])).unwrap();
                let _ = done.send(store.owners().clone());
            });
            let limit = std::time::Duration::from_secs(20);
            let owners = answer.recv_timeout(limit).unwrap_or_else(|_| panic!("{name}, {what}: the store waits"));
            if name == "ecs-agent.owner" && what == "a second name" {
                identity.earlier.insert("planted".into()); // a regular file with a valid identity
            }
            assert_eq!(owners, identity, "{name}, {what}");
            assert_eq!(std::fs::read_to_string(&target).unwrap(), r#"{"own":"planted"}"#, "{name}, {what}");
            let made = std::fs::symlink_metadata(directory.0.join("ecs-agent.owner")).unwrap();
            assert!(made.is_file() && made.nlink() == 1, "{name}, {what}");
            assert_eq!(made.permissions().mode() & 0o777, 0o600, "{name}, {what}");
            assert!(!other.0.join("precious.none").exists() && !directory.0.join("ecs-agent.owner.new").exists());
        }
    }
}

#[test]
fn a_copy_is_not_written_through_a_link() {
    let (directory, _) = saved("copy", 1);
    let other = Directory::new("target");
    std::fs::create_dir_all(&other.0).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for second in now..now + 3 {
        let name = directory.0.join(format!("{FILE}{ASIDE}{second}"));
        std::os::unix::fs::symlink(other.0.join("made"), name).unwrap();
    }
    let copy = file::copy_aside(&directory.0).unwrap();
    assert!(copy.symlink_metadata().unwrap().is_file() && !other.0.join("made").exists());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let directory = Directory::new("two");
    let _first = Store::open(&directory.0).unwrap();
    assert!(matches!(Store::open(&directory.0), Err(StoreError::InUse { .. })));
    assert_eq!(aside(&directory), [] as [PathBuf; 0], "a file in use is not broken");
}

/// Containers have the identity as a label, so it must remain the same if one file is lost.
#[test]
fn the_identity_outlives_the_loss_of_either_file() {
    let path = |directory: &Directory, name: &str| directory.0.join(name);
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("nothing", |_| ()),
        ("the state file is gone", |path| std::fs::remove_file(path.join(FILE)).unwrap()),
        ("the state file is broken", |path| std::fs::write(path.join(FILE), "broken").unwrap()),
        ("the other file is gone", |path| std::fs::remove_file(path.join("ecs-agent.owner")).unwrap()),
        ("the other file is broken", |path| std::fs::write(path.join("ecs-agent.owner"), "{").unwrap()),
        ("the other file is a directory", |path| {
            std::fs::remove_file(path.join("ecs-agent.owner")).unwrap();
            std::fs::create_dir(path.join("ecs-agent.owner")).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let (directory, _) = saved("owner", 1);
        let own = Store::open(&directory.0).unwrap().0.owners().own.clone();
        harm(&directory.0);
        for _ in 0..2 {
            assert_eq!(Store::open(&directory.0).unwrap().0.owners().own, own, "{what}");
        }
    }
    let (directory, _) = saved("owner", 1);
    let (store, _) = Store::open(&directory.0).unwrap();
    let mode = std::fs::metadata(path(&directory, "ecs-agent.owner")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let own = store.owners().own.clone();
    drop(store);
    std::fs::remove_dir_all(&directory.0).unwrap();
    assert_ne!(Store::open(&directory.0).unwrap().0.owners().own, own, "without both files there is a new identity");
}

/// Without its registration, the instance would register as a second one.
#[test]
fn the_registration_outlives_the_loss_of_either_file() {
    const BESIDE: &str = "ecs-agent.instance";
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("nothing", |_| ()),
        ("the state file is removed", |path| std::fs::remove_file(path.join(FILE)).unwrap()),
        ("the state file is broken", |path| std::fs::write(path.join(FILE), "broken").unwrap()),
        ("the other file is removed", |path| std::fs::remove_file(path.join(BESIDE)).unwrap()),
        ("the other file is broken", |path| std::fs::write(path.join(BESIDE), "{").unwrap()),
        ("the other file has empty members", |path| {
            std::fs::write(path.join(BESIDE), r#"{"cluster":"","container_instance_arn":""}"#).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let directory = Directory::new("registration");
        let (state, keys) = state_with(&["arn:a"]);
        let (mut store, _) = Store::open(&directory.0).unwrap();
        store.commit(&state, &keys).unwrap();
        let identity = Identity {
            cluster: "c".into(),
            container_instance_arn: "arn:i".into(),
            ec2_instance_id: "i-1".into(),
            ..Identity::default()
        };
        store.save_identity(&identity).unwrap();
        drop(store);
        harm(&directory.0);
        for _ in 0..2 {
            let loaded = Store::open(&directory.0).unwrap().1;
            assert_eq!((loaded.identity.as_ref(), loaded.host.seq), (Some(&identity), 7), "{what}");
        }
        let mode = std::fs::metadata(directory.0.join(BESIDE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{what}");
    }
}

#[test]
fn a_removed_registration_does_not_come_back() {
    let forget: [fn(&mut Store); 2] = [|store| store.clear().unwrap(), Store::forget_registration];
    for remove in forget {
        let (directory, _) = saved("registration-dropped", 1);
        std::fs::remove_file(directory.0.join(FILE)).unwrap();
        let (mut store, loaded) = Store::open(&directory.0).unwrap();
        assert_eq!(loaded.identity.unwrap().cluster, "c", "from the file beside the state");
        remove(&mut store);
        drop(store);
        assert_eq!(Store::open(&directory.0).unwrap().1.identity, None);
    }
}

#[test]
fn the_manifest_number_reaches_the_file_beside_the_state() {
    let (directory, mut state) = saved("registration-number", 1);
    let (mut store, _) = Store::open(&directory.0).unwrap();
    state.host.seq = 12;
    store.commit(&state, &[Key::Host]).unwrap();
    drop(store);
    drop(Store::open(&directory.0).unwrap());
    std::fs::remove_file(directory.0.join(FILE)).unwrap();
    assert_eq!(Store::open(&directory.0).unwrap().1.host.seq, 12);
}

#[test]
fn a_state_file_without_an_identity_gets_one() {
    let (directory, _) = saved("owner-upgrade", 2);
    std::fs::remove_file(directory.0.join("ecs-agent.owner")).unwrap();
    {
        let opened = file::open(&directory.0).unwrap();
        let write = opened.database.begin_write().unwrap();
        write.open_table(META).unwrap().remove("owners").unwrap();
        write.commit().unwrap();
    }
    let (store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!((loaded.tasks.len(), loaded.host.lost), (2, false), "nothing is lost");
    let own = store.owners().own.clone();
    drop(store);
    assert_eq!(Store::open(&directory.0).unwrap().0.owners().own, own);
}

#[test]
fn a_cleared_state_gets_a_new_identity() {
    let (directory, _) = saved("owner-dropped", 1);
    let (mut store, _) = Store::open(&directory.0).unwrap();
    let own = store.owners().own.clone();
    store.clear().unwrap();
    let now = store.owners().clone();
    assert_ne!(now.own, own);
    drop(store);
    assert_eq!(*Store::open(&directory.0).unwrap().0.owners(), now, "the old one does not come back");
    assert_ne!(Store::in_memory().unwrap().owners().own, Store::in_memory().unwrap().owners().own);
}

#[test]
fn identities_that_were_taken_over_are_kept() {
    let (directory, state) = saved("owner-more", 1);
    let (mut store, _) = Store::open(&directory.0).unwrap();
    let mut owners = store.owners().clone();
    owners.earlier.insert("before".into());
    store.save_owners(owners.clone()).unwrap();
    std::fs::remove_dir_all(&directory.0).unwrap();
    store.commit(&state, &[Key::Host]).unwrap();
    drop(store);
    for lost in ["", FILE, "ecs-agent.owner"] {
        let _gone = std::fs::remove_file(directory.0.join(lost));
        assert_eq!(*Store::open(&directory.0).unwrap().0.owners(), owners, "{lost}");
    }
}

#[test]
fn anything_but_a_state_file_is_set_aside_unchanged() {
    type Put = fn(&Path);
    let table: [(&str, Put); 5] = [
        ("random bytes", |path| std::fs::write(path, vec![0x5a; 8192]).unwrap()),
        ("a few bytes", |path| std::fs::write(path, "redb").unwrap()),
        ("text", |path| std::fs::write(path, b"this is no database\n".repeat(500)).unwrap()),
        ("a directory", |path| std::fs::create_dir(path).unwrap()),
        ("a device", |path| std::os::unix::fs::symlink("/dev/null", path).unwrap()),
    ];
    for (what, put) in table {
        let directory = Directory::new("garbage");
        std::fs::create_dir_all(&directory.0).unwrap();
        let path = directory.0.join(FILE);
        put(&path);
        let before = std::fs::read(&path).ok();
        let (store, loaded) = Store::open(&directory.0).unwrap();
        assert_eq!(loaded, nothing(), "{what}");
        assert!(path.metadata().unwrap().is_file() && store.is_usable(), "{what}");
        let [kept] = &aside(&directory)[..] else { panic!("{what}: not kept") };
        assert_eq!(std::fs::read(kept).ok(), before, "{what}");
    }
}

#[test]
fn an_empty_file_is_a_first_start() {
    let directory = Directory::new("empty");
    std::fs::create_dir_all(&directory.0).unwrap();
    std::fs::write(directory.0.join(FILE), "").unwrap();
    assert_eq!(Store::open(&directory.0).unwrap().1, nothing());
    assert_eq!(aside(&directory).len(), 0);
}

#[test]
fn only_some_broken_files_are_kept_and_no_directory_is_deleted() {
    let directory = Directory::new("many");
    std::fs::create_dir_all(&directory.0).unwrap();
    let path = directory.0.join(FILE);
    std::fs::create_dir(&path).unwrap();
    drop(Store::open(&directory.0).unwrap());
    for _ in 0..9 {
        std::fs::write(&path, "broken").unwrap();
        drop(Store::open(&directory.0).unwrap());
    }
    let kept = aside(&directory);
    assert_eq!((kept.len(), kept.iter().filter(|path| path.is_dir()).count()), (5, 1), "{kept:?}");
}

#[test]
fn a_damaged_document_does_not_affect_the_others() {
    type Damage = fn(&mut Table<'_>, &mut Table<'_>);
    let table: [(&str, Damage, usize); 5] = [
        ("task arn:1", |_, tasks| drop(tasks.insert("arn:1", b"{\"spec\":\"password=hunter2\"}".as_slice())), 2),
        (
            "a task under another name",
            |_, tasks| {
                let bytes = tasks.get("arn:1").unwrap().unwrap().value().to_owned();
                tasks.insert("arn:x", bytes.as_slice()).unwrap();
            },
            3,
        ),
        ("identity", |meta, _| drop(meta.insert("identity", b"\xff\xfe".as_slice())), 3),
        ("host", |meta, _| drop(meta.insert("host", b"[".as_slice())), 3),
        ("schema", |meta, _| drop(meta.insert("schema", b"\"one\"".as_slice())), 3),
    ];
    for (what, damage, tasks) in table {
        let (directory, state) = saved("document", 3);
        let (mut store, _) = Store::open(&directory.0).unwrap();
        let opened = store.opened.take().unwrap();
        let change = opened.database.begin_write().unwrap();
        damage(&mut change.open_table(META).unwrap(), &mut change.open_table(TASKS).unwrap());
        change.commit().unwrap();
        drop(opened);
        let (store, loaded) = Store::open(&directory.0).unwrap();
        assert_eq!(
            (loaded.tasks.len(), loaded.identity.as_ref(), loaded.host.lost),
            (tasks, Some(&registration()), true), // if it is damaged, it is read from the file beside the state
            "{what}"
        );
        assert!(loaded.tasks.iter().all(|task| *state.tasks[&task.spec.arn] == *task), "{what}");
        assert_eq!(aside(&directory).len(), 1, "{what}");
        drop(store);
        let again = Store::open(&directory.0).unwrap().1;
        assert_eq!((again, aside(&directory).len()), (loaded, 1), "{what}: set aside once, and nothing more is lost");
    }
}

#[test]
fn an_error_of_a_document_does_not_quote_it() {
    let error = schema::read::<TaskState>("task arn:a", b"{\"spec\":\"password=hunter2\"}", 1).unwrap_err();
    assert!(error.contains("task arn:a") && !error.contains("hunter2"), "{error}");
}

#[test]
fn an_older_schema_is_read_and_a_newer_one_is_refused() {
    let with_schema = |version: &str| {
        let (directory, _) = saved("schema", 2);
        let mut store = Store::open(&directory.0).unwrap().0;
        let change = store.opened.as_ref().unwrap().database.begin_write().unwrap();
        change.open_table(META).unwrap().insert("schema", version.as_bytes()).unwrap();
        change.open_table(META).unwrap().insert("writer", br#"{"agent_version":"9.8.7"}"#.as_slice()).unwrap();
        {
            // A form that this build can read, but does not write.
            let mut tasks = change.open_table(TASKS).unwrap();
            let rows = tasks.iter().unwrap().map(|row| row.unwrap());
            let rows: Vec<_> = rows.map(|(name, text)| (name.value().to_owned(), text.value().to_owned())).collect();
            for (name, text) in rows {
                tasks.insert(name.as_str(), [b" ", text.as_slice()].concat().as_slice()).unwrap();
            }
        }
        change.commit().unwrap();
        store.close();
        (Store::open(&directory.0), directory)
    };
    let (opened, directory) = with_schema("3");
    let Err(error @ StoreError::Newer { found: 3, known: 2, .. }) = opened else { panic!("{opened:?}") };
    let own = crate::version::OWN;
    assert_eq!(
        error.to_string(),
        format!(
            "the state was written by ecs-agent 9.8.7 in a form that this version, {own}, cannot read (schema 3; it reads up to 2); \
             start ecs-agent 9.8.7 again"
        ),
        "the version that wrote it is named"
    );
    assert_eq!(aside(&directory).len(), 0, "the file is intact");
    let (opened, directory) = with_schema("0");
    let (store, loaded) = opened.unwrap();
    assert_eq!((loaded.tasks.len(), loaded.identity.is_some(), loaded.host.lost), (2, true, false));
    assert_eq!(aside(&directory).len(), 0);
    let read = store.opened.as_ref().unwrap().database.begin_read().unwrap();
    assert_eq!(read.open_table(META).unwrap().get("schema").unwrap().unwrap().value(), b"2");
    for row in read.open_table(TASKS).unwrap().iter().unwrap() {
        assert_eq!(row.unwrap().1.value()[0], b'{', "documents of the current version have its form");
    }
}

/// A truncated file is set aside, unless the missing bytes are unused.
#[test]
fn a_truncated_file_is_set_aside() {
    let (directory, _) = saved("cut", 40);
    let path = directory.0.join(FILE);
    let (whole, expected) = (std::fs::read(&path).unwrap(), Store::open(&directory.0).unwrap().1);
    let steps = whole.len() / 20;
    for length in (1..whole.len()).step_by(steps).chain([511, 512, 4095, 4096, 4097, whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let loaded = Store::open(&directory.0).unwrap().1;
        assert!(loaded == only_registered() || loaded == expected, "{length} of {} bytes: {loaded:?}", whole.len());
    }
}

/// One altered byte is noticed, or does not change the state. `STORE_FLIPS` is the number of bytes that are tried.
#[test]
fn an_altered_byte_anywhere_is_noticed_or_does_not_matter() {
    let (directory, _) = saved("flip", 40);
    let path = directory.0.join(FILE);
    let (whole, expected) = (std::fs::read(&path).unwrap(), Store::open(&directory.0).unwrap().1);
    let flips = times("STORE_FLIPS", 150);
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0 || *at < 4096).collect();
    let mut noticed = 0;
    for round in 0..flips {
        let at = used[(round * 2_654_435_761) % used.len()];
        let mut altered = whole.clone();
        altered[at] ^= 1 << (round % 8);
        std::fs::write(&path, &altered).unwrap();
        let loaded = Store::open(&directory.0).unwrap_or_else(|error| panic!("byte {at}: {error:?}")).1;
        assert!(loaded == only_registered() || loaded == expected, "byte {at}: {loaded:?}");
        noticed += usize::from(loaded == only_registered());
    }
    assert!(noticed > flips / 4, "only {noticed} of {flips} were noticed");
}

#[test]
fn a_file_removed_while_the_agent_runs_is_created_again() {
    type Remove = fn(&Path);
    let table: [(&str, Remove); 4] = [
        ("deleted", |directory| std::fs::remove_file(directory.join(FILE)).unwrap()),
        ("moved", |directory| std::fs::rename(directory.join(FILE), directory.join("elsewhere")).unwrap()),
        ("replaced", |directory| {
            std::fs::remove_file(directory.join(FILE)).unwrap();
            std::fs::write(directory.join(FILE), "something else").unwrap();
        }),
        ("with its directory", |directory| std::fs::remove_dir_all(directory).unwrap()),
    ];
    for (what, remove) in table {
        let (directory, mut state) = saved("taken", 3);
        let (mut store, loaded) = Store::open(&directory.0).unwrap();
        assert!(store.is_usable());
        remove(&directory.0);
        assert!(!store.is_usable(), "{what}");
        state.host.seq = 8;
        store.commit(&state, &[Key::Host]).unwrap();
        drop(store);
        let (_, again) = Store::open(&directory.0).unwrap();
        assert_eq!((again.host.seq, again.tasks, again.identity), (8, loaded.tasks, loaded.identity), "{what}");
    }
}

#[test]
fn a_path_that_cannot_be_a_data_directory_is_refused() {
    let directory = Directory::new("file");
    std::fs::write(&directory.0, "a file").unwrap();
    for path in [directory.0.clone(), directory.0.join("below"), PathBuf::from("/proc/no-such-thing")] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_full(), "{error:?}");
    }
    assert_eq!(std::fs::read(&directory.0).unwrap(), b"a file");
    std::fs::remove_file(&directory.0).unwrap();
    let deep = Directory(directory.0.join("missing").join("deep"));
    assert!(Store::open(&deep.0).is_ok(), "a missing directory is created");
}

/// A small file system for one test. `None`, with a message, if this process may not mount one.
fn mounted(name: &str, options: &str) -> Option<Mounted> {
    let directory = Directory::new(name);
    std::fs::create_dir_all(&directory.0).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&directory.0).output();
    if mount.is_ok_and(|output| output.status.success()) {
        return Some(Mounted(directory));
    }
    eprintln!("SKIPPED {name}: this process may not mount a tmpfs");
    None
}

struct Mounted(Directory);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_until_there_is_space() {
    let Some(disk) = mounted("full", "size=4m") else { return };
    let (directory, ballast) = (disk.0.0.join("data"), disk.0.0.join("ballast"));
    let fill = || {
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    };
    fill();
    let error = Store::open(&directory).unwrap_err();
    assert!(error.is_full(), "at the first start: {error:?}");
    std::fs::remove_file(&ballast).unwrap();

    let (mut store, _) = Store::open(&directory).unwrap();
    fill();
    // Commits until the disk is full. Every successful commit must be on disk at the end.
    let (mut state, _) = state_with(&[]);
    let mut add = |number: u64| {
        let arn = TaskArn::from(format!("arn:{number}"));
        let task = TaskState::stopped(arn.clone(), Some("x".repeat(20_000)), number, Timestamp(5));
        state.tasks.insert(arn.clone(), Box::new(task));
        (state.clone(), [Key::Host, Key::Task(arn)])
    };
    let mut written = 0;
    let (last, failed) = loop {
        let (state, keys) = add(written);
        match store.commit(&state, &keys) {
            Ok(()) => written += 1,
            Err(error) => break (state, error),
        }
        assert!(written < 1_000, "the disk does not get full");
    };
    assert!(failed.is_full(), "{failed:?}");
    let again = store.commit(&last, &[Key::Host]).unwrap_err();
    assert!(again.is_full(), "still: {again:?}");
    drop(store);
    let error = Store::open(&directory).map(|(_, loaded)| loaded.tasks.len());
    assert!(
        matches!(&error, Err(error) if error.is_full()) || matches!(error, Ok(count) if count as u64 == written),
        "{error:?}"
    );

    let (mut store, loaded) = {
        std::fs::remove_file(&ballast).unwrap();
        Store::open(&directory).unwrap()
    };
    assert_eq!(loaded.tasks.len() as u64, written, "exactly the successful commits");
    fill();
    let (mut failing, mut state) = (0, last);
    state.host.seq = 9;
    while failing < 50
        && store.commit(&state, state.tasks.keys().cloned().map(Key::Task).collect::<Vec<_>>().iter()).is_ok()
    {
        failing += 1;
    }
    std::fs::remove_file(&ballast).unwrap();
    store.commit(&state, &[Key::Host]).unwrap();
    drop(store);
    let loaded = Store::open(&directory).unwrap().1;
    assert_eq!((loaded.host.seq, loaded.tasks.len()), (9, state.tasks.len()), "everything is on disk after a retry");
    let mut left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ecs-agent.owner", FILE], "nothing was set aside");
}

#[test]
fn a_read_only_file_system_is_refused_and_left_unchanged() {
    let Some(disk) = mounted("readonly", "size=16m") else { return };
    let directory = disk.0.0.join("data");
    drop(Store::open(&directory).unwrap());
    let before = std::fs::read(directory.join(FILE)).unwrap();
    let status = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0.0).status().unwrap();
    assert!(status.success());
    let error = Store::open(&directory).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_full(), "{error:?}");
    assert_eq!(std::fs::read(directory.join(FILE)).unwrap(), before);
}

/// A build that wrote version 1 has written `tests/state/schema-1.redb`: a task that runs, with a resource, and a stopped task
/// that the agent had never known.
#[test]
fn a_file_of_version_1_is_read_and_rewritten() {
    let directory = Directory::new("schema-1");
    std::fs::create_dir_all(&directory.0).unwrap();
    let file = directory.0.join(FILE);
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/state/schema-1.redb"), &file).unwrap();
    let mut first = None;
    for _ in 0..2 {
        let (_store, loaded) = Store::open(&directory.0).unwrap();
        assert_eq!((loaded.host.seq, loaded.host.lost), (42, false));
        assert_eq!(loaded.identity.as_ref().unwrap().cluster, "judge");
        let known = loaded.tasks.iter().find(|task| !task.containers.is_empty()).expect("the task that runs");
        let names: Vec<_> = known.pairs().map(|(spec, state)| (spec.name.as_str(), state.known)).collect();
        assert_eq!(names, [("main", ContainerStatus::Running), ("side", ContainerStatus::Running)]);
        assert_eq!(known.containers[1].state.runtime_id.as_ref().unwrap().as_str(), format!("{:064x}", 2));
        assert_eq!(
            (known.spec.family.as_str(), known.spec.cpu_micros, known.known),
            ("web", 250_000, TaskStatus::Running)
        );
        assert_eq!(known.resources[0].spec.name, "volume-data");
        assert_eq!(known.tickets().next().unwrap().leases, ["lease-1"]);
        let stopped = loaded.tasks.iter().find(|task| task.containers.is_empty()).expect("the other one");
        assert_eq!((stopped.known, stopped.never_known.len()), (TaskStatus::Stopped, 1));
        // In the second round, the documents have the new form.
        assert_eq!(*first.get_or_insert(loaded.tasks.clone()), loaded.tasks);
    }
    assert_eq!(aside(&directory), Vec::<PathBuf>::new(), "the file is intact");
}
