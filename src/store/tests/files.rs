//! Who may read the files of the store, and links that others have planted.

use super::*;

#[test]
fn only_the_owner_may_read_the_state() {
    let directory = Directory::new("modes");
    let _store = open(&directory.0).unwrap();
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
            let _store = open(&directory.0).unwrap();
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
        let (mut store, loaded) = open(&directory.0).unwrap();
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
            let mut identity = open(&directory.0).unwrap().0.owners().clone();
            std::fs::remove_file(directory.0.join("ecs-agent.owner")).unwrap();
            plant(&path, &target);
            let (done, answer) = std::sync::mpsc::channel();
            let path_of_store = directory.0.clone();
            std::thread::spawn(move || {
                let (mut store, _) = open(&path_of_store).unwrap();
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
    let _first = open(&directory.0).unwrap();
    assert!(matches!(Store::open(&directory.0), Err(StoreError::InUse { .. })));
    assert_eq!(aside(&directory), [] as [PathBuf; 0], "a file in use is not broken");
}
