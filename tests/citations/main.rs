//! Checks that every citation leads to a section of `tests/spec` or to a file of this repository, and every link to its target
//! ([`links`]).
//!
//! There is one spelling for a section: spec `acs.md` §4.2. Several sections, and several pages, follow each other: spec `acs.md`
//! §2, §3, `ecs-api.md` §3 to §4. Inside a page of `tests/spec` the word "spec" is left out, and a section without a page belongs
//! to the same page. Text that looks like a citation but is spelled differently is a failure, so that no citation is overlooked.
//!
//! Checked: the pages, the sections and their numbers, the files that comments name. Not checked: that a section supports the
//! claim of the citing line. Only a reader can see that.

mod grammar;
mod links;

use grammar::{Citation, Number, citations, page_name, written};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Folders that are read, in addition to the files at the top.
const FOLDERS: [&str; 7] = ["src", "tests", "benches", "systemd", "examples", ".ci", ".cargo"];

/// Folders below them that are not read: this test, which has wrong citations as examples, and the fuzzer's data.
const UNREAD: [&str; 2] = ["tests/citations", "tests/fuzz/seeds"];

/// Suffixes of files without comments: the lock file, recordings, keys.
const NO_COMMENTS: [&str; 3] = [".lock", ".json", ".pem"];

/// Starts of a path in backticks that must exist. `golden/` is below `tests/`.
const PATHS: [&str; 6] = ["src/", "tests/", "benches/", "systemd/", "examples/", "golden/"];

/// A file about the past. The files that it names may not exist any more.
const HISTORY: &str = "CHANGELOG.md";

/// A text joined to one line, without comment marks, so that a citation may span two lines.
struct Text {
    /// Path from the top of the repository.
    file: String,
    flat: String,
    /// Offset in `flat` of each line of the file.
    starts: Vec<usize>,
}

impl Text {
    fn new(file: &str, text: &str) -> Self {
        let (mut flat, mut starts) = (String::new(), Vec::new());
        for line in text.lines() {
            starts.push(flat.len());
            // A line of a patch begins with a sign, then comes the line of code.
            let line = if file.ends_with(".patch") { line.get(1..).unwrap_or_default() } else { line }.trim();
            flat.push_str(line.trim_start_matches(['/', '!', '#']).trim_start());
            flat.push(' ');
        }
        Self { file: file.to_owned(), flat, starts }
    }

    /// `file:line` of a place in `flat`.
    fn place(&self, at: usize) -> String {
        format!("{}:{}", self.file, self.starts.partition_point(|start| *start <= at))
    }

    /// Name of this page of `tests/spec`; `None` for other files.
    fn page(&self) -> Option<&str> {
        self.file.strip_prefix("tests/spec/").filter(|name| *name != "README.md")
    }
}

/// All texts of the repository that may contain citations.
fn texts() -> Vec<Text> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut below: Vec<String> = FOLDERS.iter().map(|folder| (*folder).to_owned()).collect();
    for entry in fs::read_dir(top).expect("the repository can be listed") {
        let entry = entry.expect("the repository can be listed");
        if entry.file_type().expect("it has a type").is_file() {
            below.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    while let Some(name) = below.pop() {
        let path = top.join(&name);
        if UNREAD.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            for entry in fs::read_dir(&path).expect("a folder can be listed") {
                let entry = entry.expect("a folder can be listed").file_name();
                below.push(format!("{name}/{}", entry.to_string_lossy()));
            }
        } else if !NO_COMMENTS.iter().any(|end| name.ends_with(end)) {
            match fs::read_to_string(&path) {
                Ok(text) => found.push(Text::new(&name, &text)),
                Err(error) if error.kind() == ErrorKind::InvalidData => {} // no text
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

/// The sections of a page in order, each with the line of its heading.
fn headings(text: &str) -> Result<Vec<(Number, usize)>, String> {
    let mut found: Vec<(Number, usize)> = Vec::new();
    let mut is_fenced = false;
    for (line, number) in text.lines().zip(1..) {
        is_fenced ^= line.starts_with("```");
        let Some(title) = line.strip_prefix("##").filter(|_| !is_fenced) else { continue };
        let depth = 1 + title.chars().take_while(|c| *c == '#').count();
        let word = title.trim_start_matches('#').trim_start().split(' ').next().unwrap_or_default();
        let section: Number = word.split('.').filter_map(|part| part.parse().ok()).collect();
        let dot = if depth == 1 { "." } else { "" };
        if section.len() != depth || word != format!("{}{dot}", written(&section)) {
            return Err(format!("{number}: `{line}`: write `## 1. Title` or `### 1.2 Title`"));
        }
        if found.last().is_some_and(|(last, _)| *last >= section) {
            return Err(format!("{number}: `{line}`: this number is not above the one before"));
        }
        found.push((section, number));
    }
    Ok(found)
}

/// The pages of `tests/spec`, by name, with their sections.
fn pages() -> BTreeMap<String, Vec<(Number, usize)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("tests/spec can be listed") {
        let path = entry.expect("tests/spec can be listed").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        assert!(page_name(&format!("`{name}`")).is_some() || name == "README.md", "tests/spec/{name} cannot be cited");
        if name != "README.md" {
            let text = fs::read_to_string(&path).expect("a page can be read");
            pages.insert(name.clone(), headings(&text).unwrap_or_else(|problem| panic!("tests/spec/{name}:{problem}")));
        }
    }
    pages
}

/// The sections that a citation names, with ranges expanded; or an error that says what is missing.
fn resolved(citation: &Citation, pages: &BTreeMap<String, Vec<(Number, usize)>>) -> Result<Vec<Number>, String> {
    let Some(headings) = pages.get(&citation.page) else {
        return Err(format!("there is no tests/spec/{}", citation.page));
    };
    let mut numbers = Vec::new();
    for (first, last) in &citation.sections {
        if first.len() != last.len() || first[..first.len() - 1] != last[..last.len() - 1] || first > last {
            return Err(format!("`{}` §{} to §{} is no range", citation.page, written(first), written(last)));
        }
        for end in first[first.len() - 1]..=last[last.len() - 1] {
            let number: Number = first[..first.len() - 1].iter().copied().chain([end]).collect();
            if !headings.iter().any(|(heading, _)| *heading == number) {
                return Err(format!("tests/spec/{} has no §{}", citation.page, written(&number)));
            }
            numbers.push(number);
        }
    }
    Ok(numbers)
}

#[test]
fn every_citation_leads_to_a_section() {
    let pages = pages();
    let (mut broken, mut count) = (Vec::new(), 0);
    for text in texts() {
        let (found, refused) = citations(&text.flat, text.page());
        count += found.len();
        broken.extend(refused.into_iter().map(|(at, why)| format!("{}: {why}", text.place(at))));
        for citation in found {
            if let Err(problem) = resolved(&citation, &pages) {
                broken.push(format!("{}: {problem}", text.place(citation.at)));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert!(count > 100, "{count} citations: most were not seen");
}

/// A section that is not cited is not compared with the code when the code changes, so it does not belong in `tests/spec`. A
/// section counts as cited if it, its parent, or one of its subsections is cited by the code or by another cited section.
#[test]
fn every_section_is_cited() {
    let pages = pages();
    let mut cited: Vec<(String, Number)> = Vec::new();
    let mut by_pages: Vec<(String, Number, String, Number)> = Vec::new();
    for text in texts() {
        for citation in citations(&text.flat, text.page()).0 {
            for number in resolved(&citation, &pages).unwrap_or_default() {
                let Some(page) = text.page() else {
                    cited.push((citation.page.clone(), number));
                    continue;
                };
                let line = text.starts.partition_point(|start| *start <= citation.at);
                let within = pages[page].iter().rev().find(|(_, heading)| *heading <= line);
                let within = within.map(|(within, _)| within.clone()).unwrap_or_default();
                by_pages.push((page.to_owned(), within, citation.page.clone(), number));
            }
        }
    }
    let mut reached = BTreeSet::new();
    while let Some((page, number)) = cited.pop() {
        if reached.insert((page.clone(), number.clone())) {
            let from_here = by_pages.iter().filter(|(from, within, ..)| *from == page && within.starts_with(&number));
            cited.extend(from_here.map(|(_, _, to, section)| (to.clone(), section.clone())));
        }
    }
    let is_cited = |page: &String, number: &Number| {
        reached.iter().any(|(to, section)| to == page && (section.starts_with(number) || number.starts_with(section)))
    };
    let mut left = Vec::new();
    for (page, headings) in &pages {
        let unread = headings.iter().filter(|(number, _)| !is_cited(page, number));
        left.extend(
            unread.map(|(number, line)| format!("tests/spec/{page}:{line}: §{} is not cited", written(number))),
        );
    }
    assert!(left.is_empty(), "\n{}", left.join("\n"));
}

/// Paths in backticks and names of Markdown files, each with its offset; without those that [`citations`] reads.
fn named_files(text: &Text) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.flat.match_indices('`') {
        let rest = &text.flat[at + 1..];
        if PATHS.iter().any(|start| rest.starts_with(start)) {
            let end = rest.find(['`', ' ', ':', ',', '(', ')']).unwrap_or(rest.len());
            found.push((at, rest[..end].to_owned()));
        }
    }
    let cited: BTreeSet<usize> = citations(&text.flat, text.page()).0.iter().map(|citation| citation.at + 1).collect();
    let is_path_character = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    for (at, end) in text.flat.match_indices(".md") {
        let after = text.flat[at + end.len()..].chars().next();
        let start = text.flat[..at].rfind(|c| !is_path_character(c)).map_or(0, |before| before + 1);
        // An absolute path that does not follow a variable belongs to another machine, an emulated host.
        let is_elsewhere = text.flat[start..].starts_with('/') && text.flat[..start].ends_with(char::is_whitespace);
        let name = text.flat[start..at + end.len()].trim_start_matches('/');
        if is_elsewhere {
            continue;
        }
        if !after.is_some_and(|c| c.is_ascii_alphanumeric()) && name != ".md" && !cited.contains(&start) {
            found.push((start, name.to_owned()));
        }
    }
    found
}

/// Whether a path exists relative to the top, to the folder of the file that names it, to `src`, or to `tests`.
fn exists(name: &str, named_in: &str) -> bool {
    // `src/core/**`: the folder.
    let fixed = name.split(['*', '<', '{', '…']).next().unwrap_or_default();
    let folder = Path::new(named_in).parent().unwrap_or(Path::new(""));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = if fixed.len() < name.len() { fixed.rsplit_once('/').map_or("", |(folder, _)| folder) } else { fixed };
    [Path::new(""), folder, Path::new("src"), Path::new("tests")].iter().any(|from| top.join(from).join(name).exists())
}

#[test]
fn every_file_that_is_named_exists() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for text in texts().iter().filter(|text| text.file != HISTORY) {
        for (at, name) in named_files(text) {
            count += 1;
            if !exists(&name, &text.file) {
                broken.push(format!("{}: there is no {name}", text.place(at)));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert!(count > 30, "{count} names: most were not seen");
}

#[test]
fn names_of_files_are_seen() {
    let names =
        |text: &str| named_files(&Text::new("src/x.rs", text)).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("(acs.md), `acs.md`, spec `acs.md`, \"/README.md\""), ["acs.md", "acs.md", "README.md"]);
    assert_eq!(names("`src/lib.rs:3`, `tests/run fmt`, `golden/x.json`"), ["src/lib.rs", "tests/run", "golden/x.json"]);
    assert!(exists("lib.rs", "src/x.rs") && exists("src/core/**", "x") && exists("golden/README.md", "x"));
    assert!(!exists("acs.md", "src/x.rs") && !exists("src/none/**", "x") && !exists("golden/none.json", "x"));
}

#[test]
fn wrong_ranges_pages_and_headings_are_refused() {
    let pages =
        BTreeMap::from([("acs.md".to_owned(), vec![(vec![1], 3), (vec![2], 5), (vec![2, 1], 6), (vec![4], 9)])]);
    let number = |text: &str| resolved(&citations(&format!("spec {text}"), None).0[0], &pages);
    assert_eq!(number("`acs.md` §1 to §2"), Ok(vec![vec![1], vec![2]]));
    assert_eq!(number("`acs.md` §2.1"), Ok(vec![vec![2, 1]]));
    for text in
        ["`acs.md` §3", "`acs.md` §1 to §4", "`acs.md` §2 to §1", "`acs.md` §2 to §2.1", "`none.md` §1", "`none.md`"]
    {
        assert!(number(text).is_err(), "{text}");
    }
    assert_eq!(
        headings("# T\n## 1. A\n### 1.2 B\n```\n## no\n```\n## 3. C"),
        Ok(vec![(vec![1], 2), (vec![1, 2], 3), (vec![3], 7)])
    );
    for text in ["## A", "## 1 A", "## 1.2 A", "### 1. A", "### 1.2. A", "## 2. A\n## 1. B", "## 1. A\n## 1. B"] {
        assert!(headings(text).is_err(), "{text}");
    }
}
