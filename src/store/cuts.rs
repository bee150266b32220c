//! The power is cut: at every write, between every two, and with writes that reach the disk torn or out of order.
//!
//! A recording backend notes what redb writes and when it flushes. Every prefix of that record, with any part of what was written
//! since the last flush, is a disk that a power cut may leave. Each of them must open, and hold a commit: the last one that had
//! returned, or a later one that had begun. `STORE_CUTS` = how many disks are tried beyond one for each write.

use super::*;
use crate::model::{TaskArn, Timestamp};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

/// One thing done to the disk.
#[derive(Clone, Debug)]
enum Done {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
    /// A commit returned; from now on this must not be lost.
    Promised(i64),
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
            disk.resize(disk.len().max(end), 0); // a write that overtook the growth of the file
            disk[*at as usize..end].copy_from_slice(bytes);
        }
        Done::Length(length) => disk.resize(*length as usize, 0),
        Done::Flush | Done::Promised(_) => {}
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

/// The state after the n-th commit: some tasks come, change and go, and the number is in every document.
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

/// Everything that is done to a disk while that many commits are made on it.
fn recorded(commits: i64) -> Vec<Done> {
    let disk = Recording::default();
    let mut store = open_backend(disk.clone()).unwrap();
    for commit in 1..=commits {
        let (before, state) = (state_after(commit - 1), state_after(commit));
        let keys = before.tasks.keys().chain(state.tasks.keys()).cloned().map(Key::Task).chain([Key::Host]);
        store.commit(&state, &keys.collect::<Vec<_>>()).unwrap();
        disk.note(Done::Promised(commit));
    }
    disk.done.lock().unwrap().clone()
}

fn open_backend(backend: impl redb::StorageBackend) -> Result<Store, FileError> {
    let database = guarded(|| Ok(file::builder().create_with_backend(backend)?))?;
    let opened = Some(Opened { database, place: (0, 0) });
    let (manifest_number, copy) = (0, instance::Copy::default());
    Ok(Store { directory: None, opened, identity: None, owners: owners::new(), manifest_number, copy })
}

/// Opens what the cut has left, and returns the number of the commit it holds; everything in it must be of that commit.
fn survives(disk: Vec<u8>, what: &dyn Fn() -> String) -> i64 {
    let backend = Recording { bytes: Arc::new(Mutex::new(disk)), done: Arc::default() };
    let store = open_backend(backend).unwrap_or_else(|error| panic!("{}: {error:?}", what()));
    let reading = read(&store.opened.as_ref().unwrap().database);
    let Reading { loaded, damage, .. } = reading.unwrap_or_else(|error| panic!("{}: {error:?}", what()));
    assert!(damage.is_empty(), "{}: {damage:?}", what());
    let expected = state_after(loaded.host.seq);
    assert!(loaded.tasks.iter().eq(expected.tasks.values().map(|task| &**task)), "{}: a mixture of commits", what());
    loaded.host.seq
}

/// What is on the disk if, of the writes since the last flush, only some got there, and one of them in part.
fn torn(flushed: &[u8], pending: &[Done], rng: &mut Rng) -> Vec<u8> {
    let mut disk = flushed.to_vec();
    let mut order: Vec<&Done> = pending.iter().filter(|_| rng.below(2) == 0).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at + 1));
    }
    let broken = rng.below(order.len().max(1));
    for (number, done) in order.into_iter().enumerate() {
        match done {
            Done::Write(at, bytes) if number == broken && bytes.len() > 1 => {
                // A disk writes sectors; the last one may be half done.
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
    let story = recorded(30);
    let tries = super::tests::times("STORE_CUTS", 2_000);
    let mut rng = Rng(1);
    let (mut now, mut flushed, mut since) = (Vec::new(), Vec::new(), 0);
    let (mut promised, mut cuts) = (0, 0);
    let per_instant = tries.div_ceil(story.len());
    for (at, done) in story.iter().enumerate() {
        apply(&mut now, done);
        match done {
            Done::Flush => (flushed, since) = (now.clone(), at + 1),
            Done::Promised(commit) => promised = *commit,
            Done::Write(..) | Done::Length(_) => {}
        }
        if promised == 0 && !matches!(done, Done::Promised(_)) {
            continue; // making the file: no state is lost by it, and it is made again
        }
        let mut check = |disk: Vec<u8>, how: &str| {
            let found = survives(disk, &|| format!("cut {how} after {at} of {} ({done:.40?})", story.len()));
            assert!((promised..=promised + 1).contains(&found), "{how} after {at}: promised {promised}, found {found}");
            cuts += 1;
        };
        check(now.clone(), "cleanly");
        for _ in 0..per_instant {
            check(torn(&flushed, &story[since..=at], &mut rng), "torn");
        }
    }
    assert!(cuts > tries / 2 && promised == 30, "{cuts} cuts, {promised} commits");
}

/// A store that commits without flushing loses commits: the harness must see that.
#[test]
fn the_harness_notices_a_disk_that_does_not_flush() {
    let story = recorded(5);
    let flushes = |done: &&Done| matches!(done, Done::Flush);
    let last_flush_but = story.iter().rposition(|done| flushes(&done)).unwrap();
    let promised = story.iter().filter(|done| matches!(done, Done::Promised(_))).count() as i64;
    let mut disk = Vec::new();
    let begun = story.iter().position(|done| matches!(done, Done::Promised(4))).unwrap();
    assert!(begun < last_flush_but);
    story[..=begun].iter().for_each(|done| apply(&mut disk, done));
    assert!(survives(disk, &|| "without the last commit".to_owned()) < promised);
}
