//! The form of earlier versions.

use super::*;

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
        let (_store, loaded) = open(&directory.0).unwrap();
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
