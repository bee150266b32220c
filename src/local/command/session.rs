//! Sessions on this machine: runs of `serve` and `up`. This module owns their directories. Each has an id, with which the ids of
//! its tasks begin, and a lock that is held while it runs. Invariant: only a directory of this user, without a holder of its
//! lock, is taken for that of a session that has ended.

use ecs_core::model::Secret;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The beginning of every session's id. The containers of sessions are recognised by it.
const MARK: &str = "10ca1";
/// Number of hexadecimal digits of an id.
pub(super) const ID_LENGTH: usize = 10;
/// The beginning of a directory's name.
const PREFIX: &str = "ecs-local-";
/// The lock, which contains the kind of the session.
const LOCK: &str = "lock";
/// The session's own agent: its process id, its start time, and the boot and the namespace of both.
const AGENT: &str = "agent";
/// The volumes that stay after the guard has removed the rest: their names, one a line.
const VOLUMES: &str = "volumes";
/// The address of the session's server and its token, one a line, for `top`. Only this user can read it, as the environment of the
/// session's agent, which also has the token.
const ADDRESS: &str = "address";
/// Exists while the session's guard removes what the session left.
const ENDING: &str = "ending";

/// The kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only serves: the agents are the user's.
    Serve,
    /// It has an agent and a task of its own, which end with it.
    Up,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Up => "up",
        }
    }
}

/// A session whose lock this process holds: its own, or one that has ended.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    pub(super) kind: Kind,
    _lock: File,
}

impl Session {
    /// Begins a session. Its directory is for this user only.
    pub(super) fn begin(kind: Kind) -> Result<Self, String> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let id = format!("{MARK}{}", &random[..ID_LENGTH - MARK.len()]);
        // The name is short: the path of a log router's socket below it must fit into 107 bytes, the limit for socket names.
        let directory = std::env::temp_dir().join(format!("{PREFIX}{id}"));
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        // The lock is held before it has its name: another session never sees it free.
        let unnamed = directory.join("lock.new");
        let mut lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed).map_err(failed)?;
        lock.write_all(kind.as_str().as_bytes()).and_then(|()| lock.lock()).map_err(failed)?;
        std::fs::rename(&unnamed, directory.join(LOCK)).map_err(failed)?;
        Ok(Self { id, directory, kind, _lock: lock })
    }

    /// Takes over the directory of a session that has ended; `None` if it still runs, or is no session of this user.
    pub(super) fn take_over(directory: &Path) -> Option<Self> {
        let id = id_in(directory).filter(|_| is_own(directory))?;
        let lock = OpenOptions::new().read(true).write(true).open(directory.join(LOCK)).ok()?;
        lock.try_lock().ok()?;
        // It may have been removed between the opening and the locking.
        let text = std::fs::read_to_string(directory.join(LOCK)).ok()?;
        let kind = if text == Kind::Up.as_str() { Kind::Up } else { Kind::Serve };
        Some(Self { id, directory: directory.to_owned(), kind, _lock: lock })
    }

    /// Notes the session's agent, so that it can be ended when this process cannot do it any more.
    pub(super) fn note_agent(&self, pid: u32) -> Result<(), String> {
        let (started, system) = (start_time(pid).unwrap_or_default(), system());
        let path = self.directory.join(AGENT);
        std::fs::write(&path, format!("{pid} {started} {system}"))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Notes where the session's server listens, so that `top` finds it.
    pub(super) fn note_address(&self, url: &str, token: &Secret) -> Result<(), String> {
        let path = self.directory.join(ADDRESS);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let text = Zeroizing::new(format!("{url}\n{}\n", token.expose()));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| format!("`ecs-local top` will not find this session: {}: {error}", path.display()))
    }

    /// Forgets the address: the directory stays, but the server has ended.
    pub(super) fn forget_address(&self) {
        // What stays is the token of a server that is gone.
        let _removed = std::fs::remove_file(self.directory.join(ADDRESS));
    }

    /// The process id of the session's agent, if it still runs.
    pub(super) fn agent(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.directory.join(AGENT)).ok()?;
        let mut fields = text.splitn(3, ' ');
        let (pid, started, noted) = (fields.next()?, fields.next()?, fields.next()?);
        let pid: u32 = pid.parse().ok()?;
        // By now, another process may have the number, and in a container other processes have it.
        if noted != system() || started.is_empty() || start_time(pid).as_deref() != Some(started) {
            return None;
        }
        i32::try_from(pid).ok()
    }

    /// Notes that the guard cleans up, so that a new session waits for it.
    pub(super) fn note_ending(&self) {
        // Without the note, a new session does not wait.
        let _written = std::fs::write(self.directory.join(ENDING), "");
    }

    /// Notes, for the next session, the volumes that stay.
    pub(super) fn note_volumes(&self, names: &BTreeSet<String>) -> Result<(), String> {
        let (path, text) = (self.directory.join(VOLUMES), names.iter().map(|name| format!("{name}\n")));
        std::fs::write(&path, text.collect::<String>()).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The volumes that stay after the guard has removed the rest; empty: the guard has noted none.
    pub(super) fn volumes(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.directory.join(VOLUMES)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Removes the directory.
    pub(super) fn remove(self) -> Result<(), String> {
        let removed = std::fs::remove_dir_all(&self.directory);
        removed.map_err(|error| format!("{} stays: {error}", self.directory.display()))
    }
}

/// The path is a directory of this user. Another user may have planted what is in any other.
fn is_own(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// The sessions of this user that have ended and left their directories, locked by this process from now on. Removes the
/// directories of sessions that were killed before they began.
pub(super) fn ended() -> Vec<Session> {
    let directories = directories();
    for directory in directories.iter().filter(|directory| !directory.join(LOCK).exists() && is_old(directory)) {
        // Nothing was started yet that could use it.
        let _removed = std::fs::remove_dir_all(directory);
    }
    directories.iter().filter_map(|directory| Session::take_over(directory)).collect()
}

/// The directory was made more than a minute ago.
fn is_old(directory: &Path) -> bool {
    let made = std::fs::metadata(directory).and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
}

/// A session's guard is cleaning up at this moment.
pub(super) fn is_any_ending() -> bool {
    directories().iter().any(|directory| directory.join(ENDING).exists() && is_held(directory))
}

/// The id of another session of `up` of this user that runs; `None`: there is none.
pub(super) fn running_up() -> Option<String> {
    let is_up = |directory: &&PathBuf| {
        std::fs::read_to_string(directory.join(LOCK)).is_ok_and(|kind| kind == Kind::Up.as_str()) && is_held(directory)
    };
    directories().iter().find(is_up).and_then(|directory| id_in(directory))
}

/// The addresses of the servers of this user's sessions that run, with their tokens. A session that is starting has none yet.
pub(super) fn addresses() -> Vec<(String, Secret)> {
    let address = |directory: &PathBuf| {
        let text = Zeroizing::new(std::fs::read_to_string(directory.join(ADDRESS)).ok()?);
        let (url, token) = text.trim_end_matches('\n').split_once('\n')?;
        Some((url.to_owned(), Secret::from(token)))
    };
    let mut found: Vec<_> = directories().iter().filter(|path| is_held(path)).filter_map(address).collect();
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    found
}

/// The session with this id runs. The session of another user counts as running.
pub(super) fn is_running(id: &str) -> bool {
    let directory = std::env::temp_dir().join(format!("{PREFIX}{id}"));
    directory.is_dir() && is_held(&directory)
}

/// The session of a task: the beginning of the task's id. `None` if it is no task of `ecs-local`.
pub(super) fn session_of(task: &str) -> Option<&str> {
    let id = task.rsplit('/').next()?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.starts_with(MARK);
    is_id.then(|| &id[..ID_LENGTH])
}

fn directories() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| id_in(path).is_some() && is_own(path)).collect()
}

fn id_in(directory: &Path) -> Option<String> {
    let id = directory.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let is_id = id.len() == ID_LENGTH && id.starts_with(MARK) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

/// Another process holds the lock, or this user may not look.
fn is_held(directory: &Path) -> bool {
    match File::open(directory.join(LOCK)) {
        Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// Identifies this boot of the system and this namespace of process ids.
fn system() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// When a process was started, in the kernel's own unit; `None` if there is no such process, or only its remains.
fn start_time(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may contain spaces.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let started = fields.nth(18)?;
    (!is_zombie).then(|| started.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::SystemTime;

    /// Lets one test at a time have sessions: a look for ended ones holds their locks.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn the_task_ids_of_a_session_are_recognised() {
        let task = "arn:aws:ecs:us-west-2:123456789012:task/default/10ca1abcde0123456789abcdef012345";
        assert_eq!(session_of(task), Some("10ca1abcde"));
        for other in
            ["task/c/0123456789abcdef0123456789abcdef", "10ca1abcde", "task/c/10ca1zzzzz0123456789abcdef012345"]
        {
            assert_eq!(session_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_session_that_runs_is_not_taken_over() {
        let _alone = alone();
        let session = Session::begin(Kind::Up).unwrap();
        let (id, directory) = (session.id.clone(), session.directory.clone());
        assert!(is_running(&id));
        assert!(Session::take_over(&directory).is_none());
        session.note_agent(std::process::id()).unwrap();
        assert_eq!(session.agent(), i32::try_from(std::process::id()).ok());
        let noted = std::fs::read_to_string(directory.join(AGENT)).unwrap();
        for (other, why) in [
            (format!("{} 1 {}", std::process::id(), system()), "another process with that number"),
            (noted.replace(&system(), "00000000-0000-0000-0000-000000000000 pid:[1]"), "before the last boot"),
        ] {
            std::fs::write(directory.join(AGENT), other).unwrap();
            assert_eq!(session.agent(), None, "{why}");
        }
        drop(session);
        // A process that another test starts has the lock, too, until it runs its program.
        for _ in 0..100 {
            if !is_running(&id) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!is_running(&id));
        let ended = Session::take_over(&directory).unwrap();
        assert_eq!((ended.id.as_str(), ended.kind), (id.as_str(), Kind::Up));
        ended.remove().unwrap();
        assert!(!directory.exists() && !is_running(&id));
    }

    #[test]
    fn a_directory_from_before_the_session_began_is_removed_later() {
        let _alone = alone();
        let session = Session::begin(Kind::Serve).unwrap();
        let directory = session.directory.with_file_name(format!("{PREFIX}{MARK}11111"));
        DirBuilder::new().mode(0o700).create(&directory).unwrap();
        std::fs::write(directory.join("lock.new"), "up").unwrap();
        drop(ended());
        assert!(directory.exists(), "its session may be about to begin");
        File::open(&directory).unwrap().set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
        drop(ended());
        assert!(!directory.exists());
        session.remove().unwrap();
    }

    #[test]
    fn only_sessions_that_run_have_an_address() {
        use std::os::unix::fs::PermissionsExt;
        let _alone = alone();
        let session = Session::begin(Kind::Serve).unwrap();
        let url = format!("http://127.0.0.1:1/{}", session.id);
        let known = || addresses().into_iter().find(|(found, _)| *found == url);
        assert!(known().is_none());
        session.note_address(&url, &"a token".into()).unwrap();
        assert_eq!(known().map(|(_, token)| token), Some("a token".into()));
        let file = session.directory.join(ADDRESS);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        session.forget_address();
        assert!(known().is_none() && !file.exists());
        session.remove().unwrap();
    }

    #[test]
    fn a_link_is_no_session() {
        let _alone = alone();
        let session = Session::begin(Kind::Serve).unwrap();
        let link = session.directory.with_file_name(format!("{PREFIX}{MARK}00000"));
        std::os::unix::fs::symlink(&session.directory, &link).unwrap();
        assert!(Session::take_over(&link).is_none());
        std::fs::remove_file(&link).unwrap();
        session.remove().unwrap();
    }
}
