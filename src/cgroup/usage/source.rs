//! A file of the kernel that is read again and again.
//!
//! Owns how such a file is read: it stays open, and every reading begins at offset 0, which costs a tenth of opening it again.
//! Invariant: no more files are open than the budget allows; the others are opened for each reading.

use super::parse::number;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Upper limit of what is read from a file, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// How much more is asked for at a time, in bytes.
const CHUNK: usize = 16 * 1024;
/// A file of the kernel with short lines that gives less than this at once has ended: lines are written as a whole into pages of 4096
/// bytes.
const WHOLE: usize = 2048;
/// Upper limit of what is read from a file with lines of any length, in bytes. A host with 1000 containers has about 3 MB of mounts.
const MAX_LONG: u64 = 64 << 20;

/// How many more files may stay open.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new(files: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(files)))
    }

    /// The right to keep a file open; `None` if there are too many.
    pub(super) fn take(&self) -> Option<Permit> {
        let less = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        less.is_ok().then(|| Permit(self.clone()))
    }
}

/// The right to keep a file open; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit(Budget);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A file in a directory of a control group.
#[derive(Debug)]
pub(super) struct Source {
    name: &'static str,
    open: Option<(File, Permit)>,
    /// The kernel has no such file.
    is_missing: bool,
}

impl Source {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, open: None, is_missing: false }
    }

    /// The content; `None` if the kernel does not have this file. `directory` is always the same one.
    ///
    /// # Errors
    /// The file cannot be read. [`is_end`] says whether its container has ended.
    pub(super) fn read<'a>(
        &mut self,
        directory: &Path,
        budget: &Budget,
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<Option<&'a str>> {
        if self.is_missing {
            return Ok(None);
        }
        if let Some((file, _)) = &self.open {
            return read(file, buffer).map(Some);
        }
        let file = match open(&directory.join(self.name)) {
            Ok(file) => file,
            // The directory exists, so the container does, and the kernel has no such counter.
            Err(error) if error.kind() == ErrorKind::NotFound && directory.exists() => {
                self.is_missing = true;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let text = read(&file, buffer)?;
        self.open = budget.take().map(|permit| (file, permit));
        Ok(Some(text))
    }
}

/// How files are read: within this budget, into this buffer.
#[derive(Debug)]
pub(super) struct Access<'a> {
    /// The time by a clock that is never set.
    pub(super) now: Duration,
    pub(super) budget: &'a Budget,
    pub(super) buffer: &'a mut Vec<u8>,
}

impl Access<'_> {
    /// What `parse` makes of a file; `None` if the kernel does not have it, or if there is no such directory.
    pub(super) fn read<T>(
        &mut self,
        source: &mut Source,
        directory: Option<&Path>,
        parse: impl FnOnce(&str) -> T,
    ) -> io::Result<Option<T>> {
        let Some(directory) = directory else { return Ok(None) };
        Ok(source.read(directory, self.budget, self.buffer)?.map(parse))
    }

    /// The number in a file; 0 if there is none.
    pub(super) fn number(&mut self, source: &mut Source, directory: Option<&Path>) -> io::Result<u64> {
        Ok(self.read(source, directory, number)?.flatten().unwrap_or_default())
    }
}

/// Opens a file for reading, without waiting for anything.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path)
}

/// The lines of a file that have this part, at most [`MAX_BYTES`] of them. Unlike for [`read`], the lines may have any length: of
/// long ones, the kernel may give less than [`WHOLE`] bytes at once, long before the end. A line that is not UTF-8 is left out.
pub(super) fn lines_with(file: impl Read, part: &str) -> io::Result<String> {
    let mut reader = BufReader::with_capacity(CHUNK, file.take(MAX_LONG));
    let (mut found, mut line) = (String::new(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && found.len() + line.len() <= MAX_BYTES {
        found.push_str(std::str::from_utf8(&line).ok().filter(|line| line.contains(part)).unwrap_or_default());
        line.clear();
    }
    Ok(found)
}

/// Reads a file of short lines from its beginning. Text that is not UTF-8 ends where it begins not to be.
pub(super) fn read<'a>(file: &File, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
    let mut length = 0;
    while length < MAX_BYTES {
        if buffer.len() < length + CHUNK {
            buffer.resize(length + CHUNK, 0);
        }
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => {
                length += read;
                if read < WHOLE {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let bytes = &buffer[..length];
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    })
}

/// A file that was read once for good.
pub(super) fn read_once(path: &Path, buffer: &mut Vec<u8>) -> io::Result<String> {
    read(&open(path)?, buffer).map(str::to_owned)
}

/// The error means that the control group, or the process, does not exist any more.
pub(super) fn is_end(error: &io::Error) -> bool {
    // A file that is open gives ENODEV after its group was removed, and ESRCH after its process has ended.
    let codes = [rustix::io::Errno::NODEV, rustix::io::Errno::SRCH].map(rustix::io::Errno::raw_os_error);
    error.kind() == ErrorKind::NotFound || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Gives the text line by line, as the kernel does with long lines of `mountinfo`.
    struct LineByLine<'a>(&'a str);

    impl Read for LineByLine<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.find('\n').map_or(self.0.len(), |at| at + 1).min(buffer.len());
            let (now, rest) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now.as_bytes());
            self.0 = rest;
            Ok(length)
        }
    }

    #[test]
    fn lines_of_any_length_are_read_to_the_end() {
        let long = format!("1 1 0:1 / / rw - overlay lowerdir={}\n", "x:".repeat(40_000));
        let text = format!("short\n{long}a - cgroup x\n{long}last - cgroup2 y");
        assert_eq!(lines_with(LineByLine(&text), " - cgroup").unwrap(), "a - cgroup x\nlast - cgroup2 y");
        assert_eq!(lines_with(&[b'a', 0xff, b'\n', b'a'][..], "a").unwrap(), "a");
        let many = "x - cgroup\n".repeat(2 * MAX_BYTES);
        assert!(lines_with(many.as_bytes(), " - cgroup").unwrap().len() <= MAX_BYTES);
    }

    #[test]
    fn a_file_stays_open_only_within_the_budget() {
        let directory = std::env::temp_dir().join(format!("ecs-usage-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        for name in ["a", "b"] {
            fs::write(directory.join(name), "1").unwrap();
        }
        let (budget, mut buffer) = (Budget::new(1), Vec::new());
        let (mut first, mut second) = (Source::new("a"), Source::new("b"));
        for text in ["1", "22", "3"] {
            for (source, name) in [(&mut first, "a"), (&mut second, "b")] {
                fs::write(directory.join(name), text).unwrap(); // the same file, with other content
                assert_eq!(source.read(&directory, &budget, &mut buffer).unwrap(), Some(text));
            }
        }
        assert_eq!((first.open.is_some(), second.open.is_some()), (true, false));
        drop(first);
        second.read(&directory, &budget, &mut buffer).unwrap();
        assert!(second.open.is_some(), "the first file has given its place back");
        assert_eq!(Source::new("c").read(&directory, &budget, &mut buffer).unwrap(), None);
        fs::write(directory.join("c"), [b'7', 0xff, b'8']).unwrap();
        assert_eq!(Source::new("c").read(&directory, &budget, &mut buffer).unwrap(), Some("7"));
        fs::write(directory.join("c"), "x".repeat(2 * MAX_BYTES)).unwrap();
        let long = Source::new("c").read(&directory, &budget, &mut buffer).unwrap().unwrap().len();
        assert!((MAX_BYTES..=MAX_BYTES + CHUNK).contains(&long), "{long}");
        fs::remove_dir_all(&directory).unwrap();
        let error = Source::new("c").read(&directory, &budget, &mut buffer).unwrap_err();
        assert!(is_end(&error), "{error}");
    }
}
