//! The record that `host-setup` leaves in `/run/ecs-agent/host-setup.json`, for the agent and for people.
//!
//! Owns the file, and the lock by which two runs of `host-setup` follow each other. The file does not survive a boot, and neither
//! do the rules. Invariants: it is replaced by renaming, so a reader sees a whole one; it holds no secret; what is read of it is
//! bounded and clean, and only from a file of root or of this user.

use super::firewall::Settings;
use super::lanes::files;
use crate::input::json;
use crate::lane::read_file;
use ecs_core::model::text::{cleaned, cut};
use ecs_core::model::{Bridges, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The directory of the file. An agent in a container sees it with `--volume=/var/run:/var/run`.
const DIRECTORY: &str = "/var/run/ecs-agent";
const FILE: &str = "host-setup.json";
/// The name of a file that is being written.
const UNFINISHED: &str = ".host-setup.json.new";
/// A record is fresh for this long, in seconds. `host-setup` runs every minute, and one run may take as long as a lock of `iptables`.
const FRESH_S: u64 = 240;
/// Upper limit of the file, in bytes. It holds at most 64 names of bridges.
const MAX_BYTES: u64 = 64 * 1024;
/// Upper limit of a short text in the file, in bytes.
const MAX_SHORT: usize = 64;
/// Upper limit of a list in the file.
const MAX_ITEMS: usize = 64;
const MAX_REMARKS: usize = 8;
/// How long a run waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What `host-setup` has done since the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Record {
    /// When it last ran, as RFC 3339.
    pub at: String,
    /// The same in seconds since the boot, which a change of the clock does not affect.
    pub uptime_seconds: u64,
    /// The settings of the rules; `None`: the rules are left to others.
    pub rules: Option<Rules>,
    /// How often something was missing and was put back.
    pub put_back: u64,
    /// When something was last put back, as RFC 3339; empty: never.
    pub put_back_at: String,
    /// What was missing then.
    pub missing: Vec<String>,
    /// Why the last run did not make the rules, or a part of them that is needed; empty: it did.
    pub error: String,
    /// What else the last run could not make, and why.
    pub remarks: Vec<String>,
    /// The GPUs that were found on this host; `None`: none were looked for, or the driver did not list them.
    pub gpus: Option<usize>,
}

/// The settings of the rules, as far as they depend on the host and the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Rules {
    /// Packets from other hosts to 127.0.0.0/8 are dropped.
    pub localhost_filter: bool,
    /// The introspection port is open to everybody.
    pub offhost_introspection: bool,
    /// Containers on Docker's bridges do not reach the instance metadata service.
    pub block_metadata: bool,
    /// Docker's default bridge; empty: not known.
    pub default_bridge: String,
    /// Docker's bridges with names of their own.
    pub named_bridges: BTreeSet<String>,
}

impl From<&Settings> for Rules {
    fn from(settings: &Settings) -> Self {
        Self {
            localhost_filter: settings.localhost_filter,
            offhost_introspection: settings.offhost_introspection,
            block_metadata: settings.block_metadata,
            default_bridge: settings.bridges.default.clone().unwrap_or_default(),
            named_bridges: settings.bridges.named.clone(),
        }
    }
}

impl Rules {
    /// Docker's bridges, as they were known.
    pub fn bridges(&self) -> Bridges {
        let default = Some(self.default_bridge.clone()).filter(|name| !name.is_empty());
        Bridges { default, named: self.named_bridges.clone() }
    }
}

impl Record {
    /// Bounded and clean, since others could have written it.
    fn cleaned(mut self) -> Self {
        for text in [&mut self.at, &mut self.put_back_at] {
            *text = cut(text, MAX_SHORT);
        }
        self.error = cleaned(&self.error);
        self.remarks = self.remarks.iter().take(MAX_REMARKS).map(|text| cleaned(text)).collect();
        self.missing = self.missing.iter().take(MAX_ITEMS).map(|name| cut(name, MAX_SHORT)).collect();
        if let Some(rules) = &mut self.rules {
            rules.default_bridge = cut(&rules.default_bridge, MAX_SHORT);
            rules.named_bridges = rules.named_bridges.iter().take(MAX_ITEMS).map(|name| cut(name, MAX_SHORT)).collect();
        }
        self
    }
}

/// What a reader finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `host-setup` keeps the rules.
    Fresh(Box<Record>),
    /// It ran, but not for this many seconds.
    Stale(u64),
    /// It has not run since the boot.
    Missing,
    /// The file cannot be used, for this reason.
    Unusable(String),
}

/// Where the record is.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Default for Place {
    fn default() -> Self {
        Self(DIRECTORY.into())
    }
}

impl Place {
    /// Another directory than the usual one.
    pub fn in_directory(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// What the file says. Waits for no disk that hangs.
    pub async fn found(&self) -> Found {
        let place = self.clone();
        let read = files().run(FILE, move || place.read(uptime_s())).await;
        read.unwrap_or_else(|error| Found::Unusable(error.to_string()))
    }

    fn read(&self, uptime_s: io::Result<u64>) -> Found {
        let path = self.0.join(FILE);
        let (record, now) = match (self.record(), uptime_s) {
            (Ok(record), Ok(now)) => (record, now),
            (Err(error), _) if error.kind() == ErrorKind::NotFound => return Found::Missing,
            (Err(error), _) | (_, Err(error)) => return Found::Unusable(format!("{}: {error}", path.display())),
        };
        match now.checked_sub(record.uptime_seconds) {
            Some(age) if age <= FRESH_S => Found::Fresh(Box::new(record)),
            Some(age) => Found::Stale(age),
            None => Found::Unusable(format!("{}: it is of another boot", path.display())),
        }
    }

    /// The record, however old it is.
    ///
    /// # Errors
    /// There is none (kind `NotFound`), or it cannot be used.
    pub fn record(&self) -> io::Result<Record> {
        let path = self.0.join(FILE);
        let owner = std::fs::metadata(&path)?.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            let text = format!("it belongs to the user {owner}, and not to root");
            return Err(io::Error::new(ErrorKind::PermissionDenied, text));
        }
        let invalid = |error: &dyn std::fmt::Display| io::Error::new(ErrorKind::InvalidData, error.to_string());
        let value: serde_json::Value =
            serde_json::from_slice(&read_file(&path, MAX_BYTES)?).map_err(|error| invalid(&error))?;
        json::decode(&value).map(Record::cleaned).map_err(|error| invalid(&error))
    }

    /// Waits until no other run holds the directory, and holds it. It is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or locked, or another run does not end.
    pub async fn lock(&self) -> io::Result<Lock> {
        match DirBuilder::new().mode(0o755).create(&self.0) {
            // The mask of this process may have removed what others need.
            Ok(()) => std::fs::set_permissions(&self.0, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let directory = File::open(&self.0)?;
        let locked = async {
            loop {
                match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                    Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(LOCK_WAIT, locked).await {
            Ok(result) => result?,
            Err(_late) => {
                let text = format!("another host-setup has not ended for {} s", LOCK_WAIT.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
        }
        Ok(Lock(directory))
    }

    /// Replaces the record. The caller holds the lock. The time is that of this moment.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, mut record: Record, _lock: &Lock) -> io::Result<()> {
        (record.at, record.uptime_seconds) = (now(), uptime_s()?);
        let unfinished = self.0.join(UNFINISHED);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let text = serde_json::to_string(&record.cleaned()).map_err(io::Error::other)?;
        file.write_all((text + "\n").as_bytes())?;
        std::fs::rename(&unfinished, self.0.join(FILE))
    }

    /// Removes the record. That there is none is no error.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Held by one run of `host-setup` at a time. Dropping it, or the end of the process, releases it.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a child that was forked a moment ago still has it open until it starts its program.
    fn drop(&mut self) {
        let _closed_anyway = self.0.unlock();
    }
}

/// This moment, as RFC 3339.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or_default()).rfc3339()
}

/// The seconds since the boot, with the time in which the machine slept.
fn uptime_s() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let whole = text.split('.').next().and_then(|number| number.parse().ok());
    whole.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "/proc/uptime has no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("ecs-record-{}", uuid::Uuid::new_v4().simple())))
        }

        fn place(&self) -> Place {
            Place::in_directory(&self.0)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_record_is_fresh_for_some_minutes() {
        let scratch = Scratch::new();
        let place = scratch.place();
        assert_eq!(place.found().await, Found::Missing);
        let lock = place.lock().await.unwrap();
        let settings = Settings { block_metadata: true, ..Settings::default() };
        let record = Record { rules: Some(Rules::from(&settings)), put_back: 3, gpus: Some(2), ..Record::default() };
        place.write(record.clone(), &lock).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&scratch.0), mode(&scratch.0.join(FILE))), (0o755, 0o644));
        let Found::Fresh(read) = place.found().await else { panic!("it is fresh") };
        assert!(read.at.ends_with('Z') && read.uptime_seconds > 0, "{read:?}");
        assert_eq!(*read, Record { at: read.at.clone(), uptime_seconds: read.uptime_seconds, ..record });
        let written = read.uptime_seconds;
        assert!(matches!(place.read(Ok(written + FRESH_S)), Found::Fresh(_)));
        assert_eq!(place.read(Ok(written + FRESH_S + 1)), Found::Stale(FRESH_S + 1));
        assert!(matches!(place.read(Ok(written - 1)), Found::Unusable(text) if text.ends_with("of another boot")));
        place.remove().unwrap();
        place.remove().unwrap();
        assert_eq!(place.found().await, Found::Missing);
    }

    #[tokio::test]
    async fn a_broken_record_is_unusable_and_is_replaced() {
        let scratch = Scratch::new();
        let place = scratch.place();
        let lock = place.lock().await.unwrap();
        let long = format!(r#"{{"Error": "{}"}}"#, "x".repeat(70_000));
        for text in ["", "[", "7", r#"{"PutBack": "x"}"#, r#"{"PutBack": -1}"#, &long] {
            std::fs::write(scratch.0.join(FILE), text).unwrap();
            assert!(matches!(place.found().await, Found::Unusable(_)), "{text}");
        }
        std::fs::write(scratch.0.join(FILE), r#"{"Error": "a\nb\u001b[31m", "Missing": ["x\ty"], "More": 1}"#).unwrap();
        let record = place.record().unwrap();
        assert!(!record.error.contains(['\n', '\u{1b}']) && record.missing == ["x y"], "{record:?}");
        place.write(Record::default(), &lock).unwrap();
        assert!(matches!(place.found().await, Found::Fresh(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_run_waits_for_the_first() {
        let scratch = Scratch::new();
        let first = scratch.place().lock().await.unwrap();
        let error = scratch.place().lock().await.unwrap_err();
        assert_eq!(error.to_string(), "another host-setup has not ended for 60 s");
        // As in a child that was forked before the first run ended and has not started its program yet.
        let _copy = first.0.try_clone().unwrap();
        drop(first);
        scratch.place().lock().await.unwrap();
    }
}
