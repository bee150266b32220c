//! Reads what a person names on the command line: files, and directories whose files are values. This module owns the words for
//! a path that is of the wrong kind.

use ecs_core::model::Secret;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The directories with the values of a session's tasks; `None`: the option was not given.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// `--secrets`.
    pub(crate) secrets: Option<PathBuf>,
    /// `--parameters`.
    pub(crate) parameters: Option<PathBuf>,
    /// `--buckets`.
    pub(crate) buckets: Option<PathBuf>,
}

/// The path of standard input, which `-` means.
pub(super) const STANDARD_INPUT: &str = "/dev/stdin";

/// A path as messages name it.
pub(super) fn shown(path: &Path) -> Cow<'_, str> {
    if path == Path::new(STANDARD_INPUT) { "standard input".into() } else { path.to_string_lossy() }
}

/// The text of a file.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| problem(path, &error))?;
    match String::from_utf8(bytes) {
        // Text in UTF-16 without its mark is UTF-8 with zeros.
        Ok(text) if text.contains('\0') => Err(format!("{} {}", shown(path), encoding(text.as_bytes()))),
        Ok(text) => Ok(text),
        Err(error) => Err(format!("{} {}", shown(path), encoding(error.as_bytes()))),
    }
}

/// What is wrong with the encoding of a text, in words.
fn encoding(bytes: &[u8]) -> &'static str {
    match bytes {
        [0, second, ..] if *second != 0 => {
            return "is UTF-16 text: save it as UTF-8 (`iconv -f UTF-16BE -t UTF-8`)";
        }
        [first, 0, ..] if *first != 0 => return "is UTF-16 text: save it as UTF-8 (`iconv -f UTF-16LE -t UTF-8`)",
        _ => {}
    }
    if bytes.contains(&0) && str::from_utf8(bytes).is_ok() {
        return "has zero bytes, which no JSON has: save it as UTF-8 text";
    }
    // PowerShell puts this mark at the beginning.
    let is_marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    match is_marked {
        true => "is UTF-16 text, as PowerShell writes it: save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)",
        false => "is not UTF-8 text: save it as UTF-8",
    }
}

/// Path and problem, in words.
fn problem(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::IsADirectory => format!("{} is a directory, not a file", shown(path)),
        ErrorKind::NotADirectory => format!("{} is a file, not a directory", shown(path)),
        _ => format!("{}: {error}", shown(path)),
    }
}

/// Every file below a directory: its path relative to the directory, and its content without a trailing line break.
pub(super) fn texts_below(directory: &Path) -> Result<BTreeMap<String, Secret>, String> {
    let without_end = |(name, text): (String, Secret)| (name, text.expose().trim_end_matches(['\r', '\n']).into());
    Ok(files_below(directory)?.into_iter().map(without_end).collect())
}

/// Every file below the directories in a directory, with its content unchanged.
pub(super) fn buckets(directory: &Path) -> Result<BTreeMap<String, Secret>, String> {
    let files = files_below(directory)?;
    match files.keys().find(|path| !path.contains('/')) {
        Some(stray) => Err(format!("{}: {stray} is in no bucket: buckets are directories", directory.display())),
        None => Ok(files),
    }
}

fn files_below(directory: &Path) -> Result<BTreeMap<String, Secret>, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![(directory.to_owned(), String::new())];
    while let Some((directory, prefix)) = directories.pop() {
        let failed = |error: std::io::Error| problem(&directory, &error);
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed)?.is_dir() {
                directories.push((entry.path(), format!("{name}/")));
            } else {
                found.insert(name, Secret::new(read_text(&entry.path())?));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_wrong_kind_is_named() {
        let (directory, file) = (Path::new("/proc/self"), Path::new("/proc/self/status"));
        let input = problem(Path::new(STANDARD_INPUT), &ErrorKind::IsADirectory.into());
        assert_eq!(input, "standard input is a directory, not a file");
        assert_eq!(read_text(directory), Err("/proc/self is a directory, not a file".to_owned()));
        assert_eq!(texts_below(file), Err("/proc/self/status is a file, not a directory".to_owned()));
        let binary = std::env::current_exe().unwrap();
        assert!(read_text(&binary).unwrap_err().ends_with(" is not UTF-8 text: save it as UTF-8"));
    }

    #[test]
    fn a_text_of_powershell_is_named() {
        let path = std::env::temp_dir().join(format!("ecs-local-utf16-{}", uuid::Uuid::new_v4().simple()));
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes: Vec<u8> = "\u{feff}{\"family\": \"f\"}".encode_utf16().flat_map(order).collect();
            std::fs::write(&path, bytes).unwrap();
            let problem = read_text(&path).unwrap_err();
            assert!(problem.contains(" is UTF-16 text, as PowerShell writes it: save it as UTF-8"), "{problem}");
            let bytes: Vec<u8> = "{\"family\": \"f\"}".encode_utf16().flat_map(order).collect();
            let name = if bytes[0] == 0 { "UTF-16BE" } else { "UTF-16LE" };
            std::fs::write(&path, bytes).unwrap();
            let problem = read_text(&path).unwrap_err();
            assert!(problem.contains(&format!(" is UTF-16 text: save it as UTF-8 (`iconv -f {name} ")), "{problem}");
        }
        std::fs::write(&path, "{\"family\": \"\0\"}").unwrap();
        assert!(read_text(&path).unwrap_err().contains("has zero bytes"));
        std::fs::remove_file(&path).unwrap();
    }
}
