//! Disks that are full or read-only.

use super::*;

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

/// A commit after a failed one, which opens the file again.
fn commit(store: &mut Store, state: &State) -> Result<(), StoreError> {
    soon("the lock of the state file", || match store.commit(state, &[Key::Host]) {
        Err(StoreError::InUse { .. }) => None,
        done => Some(done),
    })
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
    // A program that another test starts at this moment has the file until it runs, and its space is not free before.
    let make_room = || {
        let size = std::fs::metadata(&ballast).unwrap().len();
        std::fs::remove_file(&ballast).unwrap();
        let free = || rustix::fs::statvfs(&disk.0.0).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
        soon("the space of the removed file", || (free() >= size).then_some(()));
    };
    fill();
    let error = open(&directory).unwrap_err();
    assert!(error.is_full(), "at the first start: {error:?}");
    make_room();

    let (mut store, _) = open(&directory).unwrap();
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
    let again = commit(&mut store, &last).unwrap_err();
    assert!(again.is_full(), "still: {again:?}");
    drop(store);
    let error = open(&directory).map(|(_, loaded)| loaded.tasks.len());
    assert!(
        matches!(&error, Err(error) if error.is_full()) || matches!(error, Ok(count) if count as u64 == written),
        "{error:?}"
    );

    let (mut store, loaded) = {
        make_room();
        open(&directory).unwrap()
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
    make_room();
    commit(&mut store, &state).unwrap();
    drop(store);
    let loaded = open(&directory).unwrap().1;
    assert_eq!((loaded.host.seq, loaded.tasks.len()), (9, state.tasks.len()), "everything is on disk after a retry");
    let mut left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ecs-agent.owner", FILE], "nothing was set aside");
}

#[test]
fn a_read_only_file_system_is_refused_and_left_unchanged() {
    let Some(disk) = mounted("readonly", "size=16m") else { return };
    let directory = disk.0.0.join("data");
    drop(open(&directory).unwrap());
    let before = std::fs::read(directory.join(FILE)).unwrap();
    // A program that another test starts at this moment has the file until it runs, so the file system is busy.
    let remounted = || {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(&disk.0.0).stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    soon("the file system to become read-only", || remounted().then_some(()));
    let error = open(&directory).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_full(), "{error:?}");
    assert_eq!(std::fs::read(directory.join(FILE)).unwrap(), before);
}
