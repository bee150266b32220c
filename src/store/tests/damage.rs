//! Files that are broken, truncated, altered or removed.

use super::*;

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
        let (store, loaded) = open(&directory.0).unwrap();
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
    assert_eq!(open(&directory.0).unwrap().1, nothing());
    assert_eq!(aside(&directory).len(), 0);
}

#[test]
fn only_some_broken_files_are_kept_and_no_directory_is_deleted() {
    let directory = Directory::new("many");
    std::fs::create_dir_all(&directory.0).unwrap();
    let path = directory.0.join(FILE);
    std::fs::create_dir(&path).unwrap();
    drop(open(&directory.0).unwrap());
    for _ in 0..9 {
        std::fs::write(&path, "broken").unwrap();
        drop(open(&directory.0).unwrap());
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
        let (mut store, _) = open(&directory.0).unwrap();
        let opened = store.opened.take().unwrap();
        let change = opened.database.begin_write().unwrap();
        damage(&mut change.open_table(META).unwrap(), &mut change.open_table(TASKS).unwrap());
        change.commit().unwrap();
        drop(opened);
        let (store, loaded) = open(&directory.0).unwrap();
        assert_eq!(
            (loaded.tasks.len(), loaded.identity.as_ref(), loaded.host.lost),
            (tasks, Some(&registration()), true), // if it is damaged, it is read from the file beside the state
            "{what}"
        );
        assert!(loaded.tasks.iter().all(|task| *state.tasks[&task.spec.arn] == *task), "{what}");
        assert_eq!(aside(&directory).len(), 1, "{what}");
        drop(store);
        let again = open(&directory.0).unwrap().1;
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
        let mut store = open(&directory.0).unwrap().0;
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
        (open(&directory.0), directory)
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
    let (whole, expected) = (std::fs::read(&path).unwrap(), open(&directory.0).unwrap().1);
    let steps = whole.len() / 20;
    for length in (1..whole.len()).step_by(steps).chain([511, 512, 4095, 4096, 4097, whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let loaded = open(&directory.0).unwrap().1;
        assert!(loaded == only_registered() || loaded == expected, "{length} of {} bytes: {loaded:?}", whole.len());
    }
}

/// One altered byte is noticed, or does not change the state. `STORE_FLIPS` is the number of bytes that are tried.
#[test]
fn an_altered_byte_anywhere_is_noticed_or_does_not_matter() {
    let (directory, _) = saved("flip", 40);
    let path = directory.0.join(FILE);
    let (whole, expected) = (std::fs::read(&path).unwrap(), open(&directory.0).unwrap().1);
    let flips = times("STORE_FLIPS", 150);
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0 || *at < 4096).collect();
    let mut noticed = 0;
    for round in 0..flips {
        let at = used[(round * 2_654_435_761) % used.len()];
        let mut altered = whole.clone();
        altered[at] ^= 1 << (round % 8);
        std::fs::write(&path, &altered).unwrap();
        let loaded = open(&directory.0).unwrap_or_else(|error| panic!("byte {at}: {error:?}")).1;
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
        let (mut store, loaded) = open(&directory.0).unwrap();
        assert!(store.is_usable());
        remove(&directory.0);
        assert!(!store.is_usable(), "{what}");
        state.host.seq = 8;
        store.commit(&state, &[Key::Host]).unwrap();
        drop(store);
        let (_, again) = open(&directory.0).unwrap();
        assert_eq!((again.host.seq, again.tasks, again.identity), (8, loaded.tasks, loaded.identity), "{what}");
    }
}

#[test]
fn a_path_that_cannot_be_a_data_directory_is_refused() {
    let directory = Directory::new("file");
    std::fs::write(&directory.0, "a file").unwrap();
    for path in [directory.0.clone(), directory.0.join("below"), PathBuf::from("/proc/no-such-thing")] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_full(), "{error:?}");
        let names_file =
            ecs_core::model::with_causes(&error).ends_with(&format!("{} is a file", directory.0.display()));
        assert_eq!(names_file, path.starts_with(&directory.0), "{error:?}");
    }
    assert_eq!(std::fs::read(&directory.0).unwrap(), b"a file");
    std::fs::remove_file(&directory.0).unwrap();
    let deep = Directory(directory.0.join("missing").join("deep"));
    assert!(open(&deep.0).is_ok(), "a missing directory is created");
}
