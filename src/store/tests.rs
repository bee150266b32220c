use super::*;
use crate::model::{TaskArn, Timestamp};
use std::collections::BTreeSet;

/// A directory of this test that is removed with it.
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

fn state_with(arns: &[&str]) -> (State, BTreeSet<Key>) {
    let mut state = State::default();
    let mut keys = BTreeSet::from([Key::Host]);
    for (place, arn) in arns.iter().enumerate() {
        let arn = TaskArn::from(*arn);
        keys.insert(Key::Task(arn.clone()));
        let task = TaskState::stopped(arn.clone(), Some("why".into()), place as u64, Timestamp(5));
        state.tasks.insert(arn, task);
    }
    state.host.seq = 7;
    (state, keys)
}

#[test]
fn what_was_committed_is_loaded_again() {
    let directory = Directory::new("roundtrip");
    let (store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded, Loaded::default());
    let (mut state, keys) = state_with(&["arn:a", "arn:b"]);
    store.commit(&state, &keys).unwrap();
    let identity = Identity { cluster: "c".into(), container_instance_arn: "arn:i".into(), ..Identity::default() };
    store.save_identity(&identity).unwrap();
    drop(store);

    let (store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded.host, state.host);
    assert_eq!(loaded.identity, Some(identity));
    assert_eq!(loaded.tasks, state.tasks.values().cloned().collect::<Vec<_>>());

    state.tasks.remove(&TaskArn::from("arn:a"));
    store.commit(&state, &[Key::Task(TaskArn::from("arn:a"))]).unwrap();
    drop(store);
    let (store, loaded) = Store::open(&directory.0).unwrap();
    assert_eq!(loaded.tasks.len(), 1, "a task that is gone from the state is deleted");

    store.clear().unwrap();
    drop(store);
    assert_eq!(Store::open(&directory.0).unwrap().1, Loaded::default());
}

#[test]
fn nobody_else_may_read_it() {
    let directory = Directory::new("modes");
    std::fs::create_dir_all(&directory.0).unwrap();
    std::fs::set_permissions(&directory.0, Permissions::from_mode(0o755)).unwrap();
    let _store = Store::open(&directory.0).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0), 0o700);
    assert_eq!(mode(&directory.0.join(FILE)), 0o600);
}

#[test]
fn a_second_agent_on_the_same_directory_is_told_so() {
    let directory = Directory::new("two");
    let _first = Store::open(&directory.0).unwrap();
    assert!(matches!(Store::open(&directory.0), Err(StoreError::InUse { .. })));
}

#[test]
fn what_is_not_a_state_file_is_refused_and_left_alone() {
    let directory = Directory::new("garbage");
    std::fs::create_dir_all(&directory.0).unwrap();
    let path = directory.0.join(FILE);
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(matches!(Store::open(&directory.0), Err(StoreError::Corrupt { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), vec![0x5a; 8192]);
}

#[test]
fn a_newer_schema_and_a_malformed_document_are_refused_by_name() {
    let directory = Directory::new("newer");
    let (store, _) = Store::open(&directory.0).unwrap();
    let (state, keys) = state_with(&["arn:a"]);
    store.commit(&state, &keys).unwrap();
    store
        .write(|_, tasks| {
            tasks.insert("arn:a", b"{\"spec\":\"password=hunter2\"}".as_slice())?;
            Ok(())
        })
        .unwrap();
    drop(store);
    let error = Store::open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("task arn:a") && !error.contains("hunter2"), "{error}");

    let other = Directory::new("newer2");
    let (store, _) = Store::open(&other.0).unwrap();
    store.commit(&state, &keys).unwrap();
    let write = store.database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", b"2".as_slice()).unwrap();
    write.commit().unwrap();
    drop(store);
    assert!(matches!(Store::open(&other.0), Err(StoreError::Newer { found: 2, known: 1 })));
}
