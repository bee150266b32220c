//! Reads what containers use, from the kernel's own counters: their control groups, and the interfaces of their network namespaces.
//!
//! Owns the open files. Decides nothing: it reads what it is asked for, and says of which containers it cannot, and whether that may
//! change. All functions block, but only as long as the kernel takes to print its counters. Invariants: a container is found by its
//! first process, which must be in a control group with the container's id (`find`); the directory of that process stays open, so its
//! number cannot come to mean another process; no file keeps a container's network namespace alive; and a run that was read once is
//! never called unreadable.
//!
//! Reading order: this file, `find` (where the groups are), `v1` and `v2` (which file has what), `quiet` (which of them need not be
//! read now), `source` (how a file is read), `parse` (the forms of the files).

mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod parse;
mod quiet;
mod source;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use ecs_core::model::usage::{CgroupVersion, Interface, Moment, Process, Reading};
use ecs_core::model::{RuntimeId, with_causes};
use rustix::fs::{Mode, OFlags, openat};
use source::{Access, Budget, Permit, is_end, lines_with, open as open_file, read, read_once};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use v1::FilesV1;
use v2::FilesV2;

/// A container that was never read is tried this often. Its process may have ended, and then Docker says so soon; or this agent cannot
/// see it.
const MAX_TRIES: u32 = 5;
/// The same where other containers can be seen: the process has most likely ended, and Docker does not answer.
const MAX_TRIES_IF_CLEAR: u32 = 60;
/// The files that the rest of the agent may need, most of them for connections of containers.
const RESERVED_FILES: usize = 768;
/// Upper limit of the files that stay open: enough for 500 containers.
const MAX_FILES: usize = 8192;

/// A container to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Docker's id of the container.
    pub id: RuntimeId,
    /// Its first process.
    pub process: Process,
    /// It has network interfaces of its own.
    pub has_networks: bool,
}

/// The result of reading one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The counters.
    Read(Box<Reading>),
    /// The container has ended, or has not been found yet. It is tried again with the next reading.
    Missing,
    /// The counters cannot be read at the moment, for this reason. It is tried again with the next reading.
    Failed(String),
    /// The counters of this run of the container cannot be read here, for this reason. It is not tried again.
    Unreadable(String),
}

/// Reads the counters of containers.
#[derive(Debug)]
pub struct Sampler {
    proc: PathBuf,
    mounts: Vec<find::Mount>,
    readers: BTreeMap<RuntimeId, Entry>,
    budget: Budget,
    buffer: Vec<u8>,
    /// The memory of the host in bytes; `None` if it is not known.
    host_memory: Option<u64>,
    /// The time of the host's processors in nanoseconds, and their number.
    host_cpu: (u64, u32),
    started: Instant,
    sight: Sight,
}

/// Whether the containers of this host can be seen, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// There was no container yet.
    Unknown,
    /// A container was read: one whose process does not exist has ended.
    Clear,
    /// The first containers could not be read: it is tried only once with a further one.
    Blind,
}

#[derive(Debug)]
struct Entry {
    process: Process,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Box<Reader>),
    /// The files are to be opened.
    Closed(Tries),
    Unreadable(String),
}

/// What is known of a run whose files are not open.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    /// How often it could not be read.
    failed: u32,
    /// It was read earlier.
    was_read: bool,
}

/// The open files of one run of a container.
#[derive(Debug)]
struct Reader {
    files: Files,
    /// The directory of the first process below `/proc`; `None`: it is opened when it is needed.
    process: Option<(File, Permit)>,
}

#[derive(Debug)]
enum Files {
    V1(Box<FilesV1>),
    V2(Box<FilesV2>),
}

/// Why a container was not read.
#[derive(Debug)]
enum Failed {
    /// The container, or its process, does not exist.
    Missing,
    /// It is not visible here. This does not change, unless the container is just ending.
    Hidden(String),
    /// Something is short or broken at the moment, such as descriptors or memory.
    Passing(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            _ if is_end(&error) => Self::Missing,
            ErrorKind::PermissionDenied | ErrorKind::InvalidData | ErrorKind::Unsupported => {
                Self::Hidden(with_causes(&error))
            }
            _ => Self::Passing(with_causes(&error)),
        }
    }
}

impl Sampler {
    /// A sampler without open files. Times of readings are counted from `since`.
    pub fn new(since: Instant) -> Self {
        Self::with_proc("/proc".into(), max_files(), since)
    }

    fn with_proc(proc: PathBuf, max_files: usize, started: Instant) -> Self {
        let mut buffer = Vec::new();
        let text = read_once(&proc.join("meminfo"), &mut buffer).unwrap_or_default();
        Self {
            proc,
            mounts: Vec::new(),
            readers: BTreeMap::new(),
            budget: Budget::new(max_files),
            buffer,
            host_memory: parse::host_memory(&text),
            host_cpu: (0, 0),
            started,
            sight: Sight::Unknown,
        }
    }

    /// Closes the files of all containers that are not among these.
    pub fn keep_only(&mut self, targets: &[Target]) {
        let ids: std::collections::BTreeSet<_> = targets.iter().map(|target| &target.id).collect();
        self.readers.retain(|id, _| ids.contains(id));
    }

    /// No files are open.
    pub fn is_idle(&self) -> bool {
        self.readers.is_empty()
    }

    /// Reads these containers, one after the other.
    pub fn sample(&mut self, targets: &[Target]) -> Vec<Outcome> {
        let host = read_once(&self.proc.join("stat"), &mut self.buffer).unwrap_or_default();
        let host_cpu = parse::host_cpu(&host);
        // A file that cannot be read for a moment changes no number of processors.
        if host_cpu.1 > 0 {
            self.host_cpu = host_cpu;
        }
        targets.iter().map(|target| self.sample_target(target)).collect()
    }

    fn sample_target(&mut self, target: &Target) -> Outcome {
        let known = self.readers.remove(&target.id).filter(|entry| entry.process == target.process);
        let (state, outcome) = match known.map_or(State::Closed(Tries::default()), |entry| entry.state) {
            State::Unreadable(why) => (State::Unreadable(why.clone()), Outcome::Unreadable(why)),
            State::Open(mut reader) => match self.read(target, &mut reader) {
                Ok(read) => (State::Open(reader), Outcome::Read(Box::new(read))),
                // The files are those of this run, so they are not the reason.
                Err(Failed::Passing(why)) => (State::Open(reader), Outcome::Failed(why)),
                Err(failed) => self.failed(failed, Tries { failed: 0, was_read: true }),
            },
            State::Closed(tries) => match self.open_and_read(target) {
                Ok((reader, read)) => {
                    self.sight = Sight::Clear;
                    (State::Open(reader), Outcome::Read(Box::new(read)))
                }
                Err(failed) => self.failed(failed, tries),
            },
        };
        self.readers.insert(target.id.clone(), Entry { process: target.process.clone(), state });
        outcome
    }

    /// What follows for a run whose files are not open. Only what was never read is given up: whatever was read and is hidden now has
    /// ended, and its process's number may be that of another process.
    fn failed(&mut self, failed: Failed, tries: Tries) -> (State, Outcome) {
        let (failures, is_clear) = (tries.failed.saturating_add(1), self.sight == Sight::Clear);
        let (max, why) = match failed {
            Failed::Passing(why) => return (State::Closed(tries), Outcome::Failed(why)),
            Failed::Missing if is_clear => (MAX_TRIES_IF_CLEAR, None),
            Failed::Missing => (MAX_TRIES, None),
            Failed::Hidden(why) => (MAX_TRIES, Some(why)),
        };
        if tries.was_read || (failures < max && self.sight != Sight::Blind) {
            return (State::Closed(Tries { failed: failures, ..tries }), Outcome::Missing);
        }
        let why = why.unwrap_or_else(|| "its first process is not visible here".to_owned());
        if self.sight == Sight::Unknown {
            self.sight = Sight::Blind;
        }
        (State::Unreadable(why.clone()), Outcome::Unreadable(why))
    }

    fn open_and_read(&mut self, target: &Target) -> Result<(Box<Reader>, Reading), Failed> {
        let mut reader = Box::new(self.open(target)?);
        let read = self.read(target, &mut reader)?;
        Ok((reader, read))
    }

    fn open(&mut self, target: &Target) -> Result<Reader, Failed> {
        let (process, groups) = self.find(target)?;
        let files = match groups.version {
            CgroupVersion::V1 => Files::V1(Box::new(FilesV1::new(&groups.directories))),
            CgroupVersion::V2 => {
                let directory = groups.directories.into_iter().map(|(_, path)| path).find(|path| path.is_dir());
                Files::V2(Box::new(FilesV2::new(directory.ok_or(Failed::Missing)?)))
            }
        };
        Ok(Reader { files, process: self.budget.take().map(|permit| (process, permit)) })
    }

    /// The directory of the container's first process below `/proc`, and its groups.
    fn find(&mut self, target: &Target) -> Result<(File, find::Groups), Failed> {
        let process = File::open(self.proc.join(target.process.pid.to_string()))?;
        let text = read(&open_below(&process, "cgroup")?, &mut self.buffer)?.to_owned();
        // The list of mounts is long on some hosts, so it is read again only if the group is not below those that are known.
        let is_there = |groups: &find::Groups| groups.directories.iter().any(|(_, path)| path.is_dir());
        let mut groups = find::groups(&text, target.id.as_str(), &self.mounts).filter(is_there);
        if groups.is_none() {
            let mounts = open_file(&self.proc.join("self/mountinfo"))?;
            self.mounts = find::mounts(&lines_with(mounts, find::MOUNT)?);
            groups = find::groups(&text, target.id.as_str(), &self.mounts).filter(is_there);
        }
        match groups {
            Some(groups) => Ok((process, groups)),
            // A process that has ended is in no group any more, or in one that is removed, until its parent takes note.
            None if parse::has_ended(read(&open_below(&process, "stat")?, &mut self.buffer)?) => Err(Failed::Missing),
            None => Err(Failed::Hidden("its control groups are not visible here".to_owned())),
        }
    }

    fn read(&mut self, target: &Target, reader: &mut Reader) -> Result<Reading, Failed> {
        let (at, read) = (self.started.elapsed(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut access = Access { now: at, budget: &self.budget, buffer: &mut self.buffer };
        let mut usage = match &mut reader.files {
            Files::V1(files) => files.read(&mut access)?,
            Files::V2(files) => files.read(&mut access)?,
        };
        (usage.cpu.system, usage.cpu.online) = self.host_cpu;
        if let Some(all) = self.host_memory {
            usage.memory.limit = usage.memory.limit.min(all);
        }
        let found;
        let process = match &reader.process {
            Some((process, _)) => process,
            None => {
                found = self.find(target)?.0;
                &found
            }
        };
        // Both fail if the process has ended: another run of the container, in the same groups, may have begun.
        if target.has_networks {
            usage.networks = networks(process, &mut self.buffer)?;
        } else {
            open_below(process, "stat")?;
        }
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Reading { id: target.id.clone(), read: Moment(nanos(read)), at: nanos(at), usage })
    }
}

/// How many files may stay open; further ones are opened for each reading.
fn max_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limit.saturating_sub(RESERVED_FILES).min(MAX_FILES)
}

/// Opened for each reading: an open file would keep the network namespace alive after the container has ended.
fn networks(process: &File, buffer: &mut Vec<u8>) -> io::Result<Vec<Interface>> {
    Ok(parse::interfaces(read(&open_below(process, "net/dev")?, buffer)?))
}

/// Opens a file below the directory of a process. After the end of the process there is none, whatever its number means then.
fn open_below(process: &File, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(openat(process, path, flags, Mode::empty())?))
}
