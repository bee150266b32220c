//! Checks links between pages, and the length of the README.
//!
//! Checked: a relative link in a page leads to a file or folder of this repository, and its `#part` to a heading there. Not
//! checked: links to other sites, and links in comments of the code, which rustdoc checks.

use super::{Text, texts};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A newcomer must be able to read the README in one sitting.
const MAX_README_LINES: usize = 130;
const MAX_README_COLUMNS: usize = 120;

/// The targets of a page's links, each with its line. Code blocks and code in backticks contain no links.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for (line, number) in page.lines().zip(1..) {
        is_fenced ^= line.trim_start().starts_with("```");
        if is_fenced {
            continue;
        }
        // Every second part is in backticks. It is replaced by a word, so that `[code](target)` stays a link.
        let plain: String =
            line.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "code" }).collect();
        for (at, _) in plain.match_indices("](") {
            let rest = &plain[at + 2..];
            let end = rest.find([')', ' ']).unwrap_or(rest.len());
            found.push((number, rest[..end].to_owned()));
        }
    }
    found
}

/// The anchor of a heading, as GitHub makes it: lower case, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The anchors of all headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let mut is_fenced = false;
    let headings = page.lines().filter(|line| {
        is_fenced ^= line.starts_with("```");
        !is_fenced && line.starts_with('#')
    });
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// `a/b/../c` → `a/c`; `None` if it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => parts.pop().then_some(())?,
            Component::Normal(name) => parts.push(name),
            _ => return None,
        }
    }
    Some(parts)
}

/// The problem of a link in this page; `None` if its target exists, or is a URL (`https:`).
fn broken(top: &Path, page: &str, target: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, part) = target.split_once('#').map_or((target, None), |(file, part)| (file, Some(part)));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let path = if file.is_empty() { PathBuf::from(page) } else { folder.join(file) };
    let Some(path) = normal(&path) else { return Some(format!("{target} leaves the repository")) };
    if !top.join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    let part = part?;
    let text = fs::read_to_string(top.join(&path)).unwrap_or_default();
    (!anchors(&text).iter().any(|name| name == part)).then(|| format!("{} has no heading #{part}", path.display()))
}

#[test]
fn every_link_of_a_page_has_a_target() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for Text { file, .. } in texts().iter().filter(|text| text.file.ends_with(".md")) {
        let page = fs::read_to_string(top.join(file)).expect("a page can be read");
        for (line, target) in links(&page) {
            count += 1;
            wrong.extend(broken(top, file, &target).map(|why| format!("{file}:{line}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count > 30, "{count} links: most were not found");
}

#[test]
fn the_readme_is_short() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it can be read");
    let lines = page.lines().count();
    assert!(lines <= MAX_README_LINES, "{lines} lines: move what few readers need to the page of its subject");
    for (line, number) in page.lines().zip(1..) {
        let columns = line.chars().count();
        assert!(columns <= MAX_README_COLUMNS, "README.md:{number}: {columns} characters in a line");
    }
}

#[test]
fn links_and_headings_are_found() {
    let page =
        "[a](x.md), [`b`](y/z#part \"t\") `[no](link)`\n```\n[no](link)\n# no\n```\n## How `x` looks, it's 1.2\n";
    let targets: Vec<_> = links(page).into_iter().map(|(line, target)| format!("{line} {target}")).collect();
    assert_eq!(targets, ["1 x.md", "1 y/z#part"]);
    assert_eq!(anchors(page), ["how-x-looks-its-12"]);
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let broken = |target: &str| broken(top, "tests/README.md", target);
    for target in ["run", "local", "../README.md", "../README.md#numbers", "#habits", "https://example.com/none"] {
        assert_eq!(broken(target), None, "{target}");
    }
    for target in ["none", "../none.md", "../../README.md", "/etc", "#none", "../README.md#none"] {
        assert!(broken(target).is_some(), "{target}");
    }
}
