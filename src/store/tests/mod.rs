//! Tests of the whole store, on a real disk.

mod cuts;
mod damage;
mod disk;
mod files;
mod identity;
mod versions;

use super::file::{ASIDE, FILE};
use super::*;
use ecs_core::model::{ContainerStatus, TaskArn, TaskStatus, Timestamp};
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

/// Opens a store that was open until now. A program that another test starts at this moment has the file with its lock until it runs.
fn open(directory: &Path) -> Result<(Store, Loaded), StoreError> {
    soon("the lock of the state file", || match Store::open(directory) {
        Err(StoreError::InUse { .. }) => None,
        opened => Some(opened),
    })
}

/// Polls until there is a value.
fn soon<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
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
    let (mut store, _) = open(&directory.0).unwrap();
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
    let (mut store, loaded) = open(&directory.0).unwrap();
    assert_eq!(loaded, nothing(), "a first start and a lost state are the same");
    let (mut state, keys) = state_with(&["arn:a", "arn:b"]);
    store.commit(&state, &keys).unwrap();
    let identity = Identity { cluster: "c".into(), container_instance_arn: "arn:i".into(), ..Identity::default() };
    store.save_identity(&identity).unwrap();
    drop(store);

    let (mut store, loaded) = open(&directory.0).unwrap();
    assert_eq!(loaded.host, state.host);
    assert_eq!(loaded.identity, Some(identity));
    assert!(loaded.tasks.iter().eq(state.tasks.values().map(|task| &**task)));

    state.tasks.remove(&TaskArn::from("arn:a"));
    store.commit(&state, &[Key::Task(TaskArn::from("arn:a"))]).unwrap();
    drop(store);
    let (mut store, loaded) = open(&directory.0).unwrap();
    assert_eq!(loaded.tasks.len(), 1, "a task that is gone from the state is deleted");

    store.clear().unwrap();
    drop(store);
    assert_eq!(open(&directory.0).unwrap().1, Loaded::default(), "a cleared state is empty, but not lost");
}
