//! The log file: opened, written, and replaced by a new one (spec `logging.md` §2).
//!
//! Owns the files at the path of `ECS_LOGFILE` or `ECS_AUDIT_LOGFILE` and beside it. Used only by a thread that does nothing but
//! write, so a disk that does not answer delays nothing else. Invariant: a file that cannot be written costs lines, which are counted, and one line on
//! standard output; it is tried again with every batch of lines. A file that cannot be replaced grows on.

use crate::config::{LogFile, Rollover};
use aws_smithy_types::date_time::Format;
use ecs_core::model::with_causes;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Mode of the file. The log has no secrets, and programs that collect logs are not always root.
const FILE_MODE: u32 = 0o644;
/// Mode of a directory that does not exist yet.
const DIRECTORY_MODE: u32 = 0o755;

/// The current file, which is replaced as the settings say.
#[derive(Debug)]
pub(super) struct RollingFile {
    /// The file as error texts name it, with its variable.
    name: &'static str,
    settings: LogFile,
    current: Option<Current>,
    /// The last attempt failed, and that was logged.
    is_failing: bool,
    clock: fn() -> SystemTime,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
    /// The size from which on it is replaced, with [`Rollover::Size`].
    next_size: u64,
    /// It is a regular file. Devices and pipes are not replaced.
    is_regular: bool,
    /// The hour of its last line, as in the name of an hourly file.
    hour: String,
    /// Device and inode: whether the path still leads to this file.
    identity: (u64, u64),
    /// What was written ends with a line break.
    is_at_line_start: bool,
}

impl RollingFile {
    /// Opens no file yet.
    pub(super) fn new(name: &'static str, settings: LogFile, clock: fn() -> SystemTime) -> Self {
        Self { name, settings, current: None, is_failing: false, clock }
    }

    /// The file for the next lines: opened, and replaced if it is due.
    fn ready(&mut self) -> io::Result<&mut Current> {
        let now = hour((self.clock)());
        let path = &self.settings.path;
        // A program that rotates logs, or a person, may have moved the file.
        let is_there = |current: &mut Current| {
            let found = path.metadata().ok().filter(|found| identity(found) == current.identity);
            // It may also have been emptied.
            current.bytes = found.as_ref().map_or(current.bytes, Metadata::len);
            found.is_some()
        };
        let mut current = match self.current.take() {
            Some(current) if !current.is_at_line_start => current,
            Some(mut current) => {
                if is_there(&mut current) {
                    current
                } else {
                    open(path, self.settings.max_bytes)?
                }
            }
            None => open(path, self.settings.max_bytes)?,
        };
        if current.is_at_line_start && self.settings.is_due(&current, &now) {
            match self.settings.archive(&current.hour) {
                Ok(()) => current = open(path, self.settings.max_bytes)?,
                Err(error) => {
                    // It is tried again when as much has been written once more, or in the next hour.
                    current.next_size = current.bytes.saturating_add(self.settings.max_bytes);
                    let (error, path) = (with_causes(&error), path.display());
                    tracing::warn!(error, %path, "{} cannot be replaced by a new one; it grows on", self.name);
                }
            }
        }
        current.hour = now;
        Ok(self.current.insert(current))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let current = self.ready()?;
        let written = current.file.write(bytes)?;
        current.bytes += written as u64;
        current.is_at_line_start = written > 0 && bytes[..written].ends_with(b"\n");
        Ok(written)
    }
}

impl Write for RollingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.append(bytes);
        match &result {
            Ok(_) => self.is_failing = false,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => {
                self.current = None;
                if !self.is_failing {
                    self.is_failing = true;
                    let (error, path) = (with_causes(error), self.settings.path.display());
                    tracing::error!(error, %path, "{} cannot be written; lines are missing there", self.name);
                }
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile {
    fn is_due(&self, current: &Current, hour: &str) -> bool {
        match self.rollover {
            _ if !current.is_regular => false,
            Rollover::Size => current.bytes >= current.next_size,
            Rollover::Hourly => current.bytes > 0 && current.hour != hour,
            Rollover::None => false,
        }
    }

    /// Gives the current file the name of an earlier one, and removes the oldest of these.
    fn archive(&self, last_hour: &str) -> io::Result<()> {
        let mut earlier = self.earlier()?;
        let suffix = match self.rollover {
            Rollover::Hourly => last_hour.to_owned(),
            Rollover::Size | Rollover::None => {
                let newest = earlier.iter().filter_map(|name| name.parse::<u64>().ok()).max();
                newest.unwrap_or_default().saturating_add(1).to_string()
            }
        };
        if earlier.contains(&suffix) {
            // The clock went back. What was logged in that hour before must not be lost.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::rename(&self.path, self.with_suffix(&suffix))?;
        earlier.push(suffix);
        let too_many = self.keep.map_or(0, |keep| earlier.len().saturating_sub(keep));
        for name in &earlier[..too_many] {
            // What cannot be removed costs room on the disk only. The next time it is tried again.
            let _ = std::fs::remove_file(self.with_suffix(name));
        }
        Ok(())
    }

    /// The suffixes of earlier files of this kind of rollover, the oldest first.
    fn earlier(&self) -> io::Result<Vec<String>> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory(&self.path))? {
            let entry = entry?.file_name();
            let suffix = entry.to_str().and_then(|entry| entry.strip_prefix(&name)?.strip_prefix('.'));
            found.extend(suffix.filter(|suffix| self.is_suffix(suffix)).map(str::to_owned));
        }
        // Numbers are ordered by length first; hours have the same length.
        found.sort_by(|left, right| (left.len(), left).cmp(&(right.len(), right)));
        Ok(found)
    }

    fn is_suffix(&self, text: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self.rollover {
            Rollover::Hourly => {
                let lengths: Vec<usize> = text.split('-').map(str::len).collect();
                lengths == [4, 2, 2, 2] && text.split('-').all(digits)
            }
            Rollover::Size | Rollover::None => digits(text) && !text.starts_with('0'),
        }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }
}

/// Opens the file, and creates it and its directory if they do not exist.
fn open(path: &Path, max_bytes: u64) -> io::Result<Current> {
    if !directory(path).exists() {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory(path))?;
        std::fs::set_permissions(directory(path), Permissions::from_mode(DIRECTORY_MODE))?;
    }
    let mut options = OpenOptions::new();
    // A pipe that nobody reads must not block the opening.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match options.append(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).open(path)?;
            // The service's umask lets nobody else read files, such as the state.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            file
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    let hour = hour(found.modified()?);
    let (bytes, is_regular) = (found.len(), found.is_file());
    Ok(Current {
        file,
        bytes,
        next_size: max_bytes,
        is_regular,
        hour,
        identity: identity(&found),
        is_at_line_start: true,
    })
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The hour of a time in UTC, as in `2026-11-29-15`.
fn hour(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = aws_smithy_types::DateTime::from_secs(i64::try_from(seconds).unwrap_or_default()).fmt(Format::DateTime);
    text.unwrap_or_default().chars().take(13).map(|c| if c == 'T' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests;
