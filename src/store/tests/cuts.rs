//! Tests of power cuts: after every write, and with writes that reach the disk incompletely or out of order.
//!
//! A backend of redb records its writes and flushes. After a power cut, the disk has every write before the last flush, and any
//! part of the writes since. Each such disk must open, and contain the state of a commit: the last one that returned, or one
//! that had begun after it. `STORE_CUTS` is the number of disks that are tried in addition to one for each write.

use super::*;
use ecs_core::model::{TaskArn, Timestamp};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

/// One operation on the disk.
#[derive(Clone, Debug)]
enum Done {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
    /// The commit with this number returned; from now on it must not be lost.
    Returned(i64),
}

#[derive(Clone, Debug, Default)]
struct Recording {
    bytes: Arc<Mutex<Vec<u8>>>,
    done: Arc<Mutex<Vec<Done>>>,
}

impl Recording {
    fn note(&self, done: Done) {
        apply(&mut self.bytes.lock().unwrap(), &done);
        self.done.lock().unwrap().push(done);
    }
}

fn apply(disk: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Write(at, bytes) => {
            let end = *at as usize + bytes.len();
            disk.resize(disk.len().max(end), 0); // a write that reached the disk before the growth of the file
            disk[*at as usize..end].copy_from_slice(bytes);
        }
        Done::Length(length) => disk.resize(*length as usize, 0),
        Done::Flush | Done::Returned(_) => {}
    }
}

impl redb::StorageBackend for Recording {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let bytes = self.bytes.lock().unwrap();
        let part = bytes.get(at as usize..at as usize + out.len());
        out.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.note(Done::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.note(Done::Flush);
        Ok(())
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.note(Done::Write(at, data.to_vec()));
        Ok(())
    }
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The state after the n-th commit: tasks are added, changed and removed, and every document contains the number.
fn state_after(commit: i64) -> State {
    let mut state = State::default();
    state.host.seq = commit;
    for task in (0..commit).filter(|task| commit - task < 12) {
        let arn = TaskArn::from(format!("arn:{task}"));
        let reason = "why ".repeat(1 + (task as usize * 37 + commit as usize) % 300);
        let stopped = TaskState::stopped(arn.clone(), Some(reason), task as u64, Timestamp(commit as u64));
        state.tasks.insert(arn, Box::new(stopped));
    }
    state
}

/// All operations on a disk during this number of commits.
fn recorded(commits: i64) -> Vec<Done> {
    let disk = Recording::default();
    let mut store = open_backend(disk.clone()).unwrap();
    for commit in 1..=commits {
        let (before, state) = (state_after(commit - 1), state_after(commit));
        let keys = before.tasks.keys().chain(state.tasks.keys()).cloned().map(Key::Task).chain([Key::Host]);
        store.commit(&state, &keys.collect::<Vec<_>>()).unwrap();
        disk.note(Done::Returned(commit));
    }
    disk.done.lock().unwrap().clone()
}

fn open_backend(backend: impl redb::StorageBackend) -> Result<Store, FileError> {
    let database = guarded(|| Ok(file::builder().create_with_backend(backend)?))?;
    let opened = Some(Opened { database, file_id: (0, 0) });
    let (manifest_number, copy) = (0, instance::Copy::default());
    Ok(Store { directory: None, opened, identity: None, owners: owners::new(), manifest_number, copy })
}

/// Opens a disk after a cut. Checks that all its documents are of one commit, and returns the number of this commit.
fn commit_on(disk: Vec<u8>, what: &dyn Fn() -> String) -> i64 {
    let backend = Recording { bytes: Arc::new(Mutex::new(disk)), done: Arc::default() };
    let store = open_backend(backend).unwrap_or_else(|error| panic!("{}: {error:?}", what()));
    let reading = read(&store.opened.as_ref().unwrap().database);
    let Reading { loaded, damage, .. } = reading.unwrap_or_else(|error| panic!("{}: {error:?}", what()));
    assert!(damage.is_empty(), "{}: {damage:?}", what());
    let expected = state_after(loaded.host.seq);
    assert!(loaded.tasks.iter().eq(expected.tasks.values().map(|task| &**task)), "{}: a mixture of commits", what());
    loaded.host.seq
}

/// A disk that only some of the writes since the last flush have reached, in any order, and one of them in part.
fn incomplete(flushed: &[u8], pending: &[Done], rng: &mut Rng) -> Vec<u8> {
    let mut disk = flushed.to_vec();
    let mut order: Vec<&Done> = pending.iter().filter(|_| rng.below(2) == 0).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at + 1));
    }
    let broken = rng.below(order.len().max(1));
    for (number, done) in order.into_iter().enumerate() {
        match done {
            Done::Write(at, bytes) if number == broken && bytes.len() > 1 => {
                // A disk writes sectors; the last one may be incomplete.
                let kept = rng.below(bytes.len());
                apply(&mut disk, &Done::Write(*at, bytes[..kept].to_vec()));
            }
            done => apply(&mut disk, done),
        }
    }
    disk
}

#[test]
fn a_power_cut_at_any_instant_loses_no_commit() {
    let operations = recorded(30);
    let tries = super::times("STORE_CUTS", 2_000);
    let mut rng = Rng(1);
    let (mut now, mut flushed, mut since) = (Vec::new(), Vec::new(), 0);
    let (mut returned, mut cuts) = (0, 0);
    let per_instant = tries.div_ceil(operations.len());
    for (at, done) in operations.iter().enumerate() {
        apply(&mut now, done);
        match done {
            Done::Flush => (flushed, since) = (now.clone(), at + 1),
            Done::Returned(commit) => returned = *commit,
            Done::Write(..) | Done::Length(_) => {}
        }
        if returned == 0 && !matches!(done, Done::Returned(_)) {
            continue; // the file is being created: no state can be lost, and it is created again
        }
        let mut check = |disk: Vec<u8>, how: &str| {
            let found = commit_on(disk, &|| format!("cut {how} after {at} of {} ({done:.40?})", operations.len()));
            assert!((returned..=returned + 1).contains(&found), "{how} after {at}: returned {returned}, found {found}");
            cuts += 1;
        };
        check(now.clone(), "cleanly");
        for _ in 0..per_instant {
            check(incomplete(&flushed, &operations[since..=at], &mut rng), "with incomplete writes");
        }
    }
    assert!(cuts > tries / 2 && returned == 30, "{cuts} cuts, {returned} commits");
}

/// A disk that lacks the last commit must be recognised as such, or the test above proves nothing.
#[test]
fn a_disk_without_the_last_commit_is_recognised() {
    let operations = recorded(5);
    let flushes = |done: &&Done| matches!(done, Done::Flush);
    let last_flush = operations.iter().rposition(|done| flushes(&done)).unwrap();
    let returned = operations.iter().filter(|done| matches!(done, Done::Returned(_))).count() as i64;
    let mut disk = Vec::new();
    let begun = operations.iter().position(|done| matches!(done, Done::Returned(4))).unwrap();
    assert!(begun < last_flush);
    operations[..=begun].iter().for_each(|done| apply(&mut disk, done));
    assert!(commit_on(disk, &|| "without the last commit".to_owned()) < returned);
}
