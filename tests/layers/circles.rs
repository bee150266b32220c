//! Checks that the files of each crate below `src/` have no import cycles, direct or indirect.
//!
//! The files of a cycle cannot be read, tested or moved without each other. Only imports of the product count, not those of code
//! that is compiled for tests only. A path is followed through `pub use` to the file with the item. Declaring a child with `mod`
//! is not an import; using its items is.

use std::collections::{BTreeMap, BTreeSet};

/// A module: the segments of its path below the crate. The root has none.
type Module = Vec<String>;

/// One file of a crate.
struct File {
    /// Relative to the crate's folder.
    name: String,
    /// All paths in the file: in `use`, and in code if they begin with `crate`, `super`, `self` or a child.
    paths: Vec<Vec<String>>,
    /// Re-exports: the name, and the path that it stands for. `*` stands for all items of a module.
    reexports: Vec<(String, Vec<String>)>,
}

/// The files of the library, by module.
struct Crate(BTreeMap<Module, File>);

impl Crate {
    fn new(files: &[(String, String)]) -> Self {
        let skipped = test_only(files);
        let is_product = |name: &str| {
            let is_program = name == "main.rs" || name.starts_with("bin/");
            let module = module_of(name);
            !is_program && !skipped.iter().any(|test| module.starts_with(test))
        };
        let modules: BTreeSet<Module> =
            files.iter().filter(|(name, _)| is_product(name)).map(|(name, _)| module_of(name)).collect();
        let read = |(name, text): &(String, String)| {
            let module = module_of(name);
            let children: BTreeSet<&str> = modules
                .iter()
                .filter(|other| other.len() == module.len() + 1 && other.starts_with(&module))
                .map(|other| other[module.len()].as_str())
                .collect();
            let tokens = without_tests(&tokens(text));
            let (paths, reexports) = paths(&tokens, &children);
            (module, File { name: name.clone(), paths, reexports })
        };
        Self(files.iter().filter(|(name, _)| is_product(name)).map(read).collect())
    }

    /// The module whose file contains the item of this path; `None` if it belongs to another crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while let Some((first, more)) = rest.split_first().filter(|(first, _)| *first == "super") {
                    let _up: (&String, Option<String>) = (first, at.pop());
                    rest = more;
                }
            }
            child => {
                let below = [&at[..], &[child.to_owned()]].concat();
                let is_known =
                    self.0.contains_key(&below) || self.0[&at].reexports.iter().any(|(name, _)| name == child);
                if !is_known {
                    return None;
                }
            }
        }
        while let Some((name, more)) = rest.split_first() {
            let below = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&below) {
                (at, rest) = (below, more);
                continue;
            }
            let named = self.0[&at].reexports.iter().filter(|(shown, _)| shown == name && depth < 8);
            for (_, target) in named {
                let target = [&target[..], more].concat();
                if target != path {
                    return self.resolve(&at, &target, depth + 1);
                }
            }
            break;
        }
        Some(at)
    }

    /// The files that each file imports, without itself.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, file) in &self.0 {
            let targets = file.paths.iter().filter_map(|path| self.resolve(module, path, 0));
            let names = targets.map(|target| self.0[&target].name.as_str()).filter(|name| *name != file.name);
            found.insert(&file.name, names.collect());
        }
        found
    }
}

/// The import cycles: each group of files that all reach each other.
pub(crate) fn circles(files: &[(String, String)]) -> Vec<Vec<String>> {
    let source = Crate::new(files);
    let imports = source.imports();
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports.keys().map(|file| (*file, reach(file, &imports))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, reach) in &reached {
        let group: BTreeSet<&str> = reach.iter().copied().filter(|other| reached[other].contains(file)).collect();
        if group.len() > 1 {
            found.insert(group.into_iter().map(str::to_owned).collect());
        }
    }
    found.into_iter().collect()
}

/// All imports between files of a group, as a help for breaking the cycle.
pub(crate) fn within(files: &[(String, String)], group: &[String]) -> Vec<String> {
    let source = Crate::new(files);
    let is_inside = |name: &str| group.iter().any(|file| file == name);
    let inside = source.imports().into_iter().filter(|(from, _)| is_inside(from)).flat_map(|(from, targets)| {
        targets.into_iter().filter(|to| is_inside(to)).map(|to| format!("{from} -> {to}")).collect::<Vec<_>>()
    });
    inside.collect()
}

fn reach<'a>(from: &'a str, imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(imports[file].iter().filter(|next| reached.insert(**next)));
    }
    reached
}

/// `docker/volume.rs` → `docker`, `volume`; `docker/mod.rs` → `docker`; `lib.rs` → nothing.
fn module_of(file: &str) -> Module {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Modules that are compiled for tests or for the fuzzer only.
fn test_only(files: &[(String, String)]) -> Vec<Module> {
    let mut found = Vec::new();
    for (name, text) in files {
        let tokens = tokens(text);
        for (at, _) in tokens.iter().enumerate() {
            let Some(after) = after_test_attribute(&tokens, at) else { continue };
            let words = tokens[after..].iter().take(6).map(String::as_str).collect::<Vec<_>>();
            let module = words
                .iter()
                .position(|word| *word == "mod")
                .and_then(|at| Some((words.get(at + 1)?, words.get(at + 2)?)));
            if let Some((module, end)) = module
                && *end == ";"
            {
                found.push([&module_of(name)[..], &[(*module).to_owned()]].concat());
            }
        }
    }
    found
}

/// The index after `#[cfg(test)]` or `#[cfg(any(test, …))]` and its following attributes; `None` if there is no such attribute
/// at `at`.
fn after_test_attribute(tokens: &[String], at: usize) -> Option<usize> {
    let is_attribute =
        |at: usize| tokens.get(at).is_some_and(|t| t == "#") && tokens.get(at + 1).is_some_and(|t| t == "[");
    if !is_attribute(at) {
        return None;
    }
    let mut end = closing(tokens, at + 1)?;
    let words: Vec<&str> = tokens[at..end].iter().map(String::as_str).collect();
    if words.get(2) != Some(&"cfg") || !words.contains(&"test") || words.contains(&"not") {
        return None;
    }
    while is_attribute(end + 1) {
        end = closing(tokens, end + 2)?;
    }
    Some(end + 1)
}

/// The index of the bracket that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The tokens without the items that are compiled for tests only.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let Some(item) = after_test_attribute(tokens, at) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        // Skips to the end of the item: a semicolon, a comma, or its closing brace.
        at = item;
        while at < tokens.len() {
            match tokens[at].as_str() {
                ";" | "," => break,
                "{" => {
                    at = closing(tokens, at).unwrap_or(tokens.len());
                    break;
                }
                "(" | "[" => at = closing(tokens, at).unwrap_or(tokens.len()),
                _ => {}
            }
            at += 1;
        }
        // The braces of a `use` end with a semicolon.
        at += 1 + usize::from(tokens.get(at + 1).is_some_and(|t| t == ";"));
    }
    kept
}

/// The tokens of a file: words, `::`, and single characters. Comments and the contents of strings are left out.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or_default();
        if c == '/' && next == '/' {
            while chars.get(at).is_some_and(|c| *c != '\n') {
                at += 1;
            }
        } else if c == '"' {
            let hashes = chars[..at].iter().rev().take_while(|c| **c == '#').count();
            let is_raw = hashes > 0 && chars[..at - hashes].last() == Some(&'r') || chars[..at].last() == Some(&'r');
            at += 1;
            while at < chars.len() {
                let is_end = chars[at] == '"'
                    && (!is_raw || chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes);
                if is_end {
                    break;
                }
                at += 1 + usize::from(chars[at] == '\\' && !is_raw);
            }
            at += 1;
        } else if c == '\'' && (next == '\\' || chars.get(at + 2) == Some(&'\'')) {
            // A character literal, not a lifetime.
            at += if next == '\\' { 3 } else { 2 };
            while chars.get(at - 1).is_some_and(|c| *c != '\'') || at < 3 {
                at += 1;
            }
            at += usize::from(chars.get(at - 1) != Some(&'\''));
        } else if is_word(c) {
            let end = chars[at..].iter().position(|c| !is_word(*c)).map_or(chars.len(), |length| at + length);
            found.push(chars[at..end].iter().collect());
            at = end;
        } else if c == ':' && next == ':' {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            at += 1;
        }
    }
    found
}

/// The paths that the file names, and its re-exports.
#[expect(clippy::type_complexity, reason = "two lists of paths")]
fn paths(tokens: &[String], children: &BTreeSet<&str>) -> (Vec<Vec<String>>, Vec<(String, Vec<String>)>) {
    let (mut paths, mut reexports, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        let is_start = at == 0 || tokens[at - 1] != "::";
        match tokens[at].as_str() {
            "use" => {
                let end = tokens[at..].iter().position(|t| t == ";").map_or(tokens.len(), |length| at + length);
                let is_public = tokens[..at].iter().rev().take(4).any(|t| t == "pub")
                    && !tokens[..at].iter().rev().take_while(|t| *t != "pub").any(|t| t == ";" || t == "}");
                let mut named = Vec::new();
                tree(&tokens[at + 1..end], &mut Vec::new(), &mut named);
                for (name, path) in named {
                    if is_public {
                        reexports.push((name, path));
                    } else {
                        paths.push(path);
                    }
                }
                at = end;
            }
            first if is_start && (["crate", "super", "self"].contains(&first) || children.contains(first)) => {
                let mut path = vec![first.to_owned()];
                while tokens.get(at + 1).is_some_and(|t| t == "::") && tokens.get(at + 2).is_some_and(|t| is_name(t)) {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                if path.len() > 1 {
                    paths.push(path);
                }
                at += 1;
            }
            // `pub(in crate::a)` limits visibility, and is not a use.
            "in" if at > 0 && tokens[at - 1] == "(" => at = closing(tokens, at - 1).unwrap_or(tokens.len()),
            _ => at += 1,
        }
    }
    (paths, reexports)
}

pub(crate) fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// `a::{b, c as d}` → (`b`, `a::b`), (`d`, `a::c`).
fn tree(tokens: &[String], before: &mut Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
    let depth = before.len();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => {
                let end = closing(tokens, at).unwrap_or(tokens.len());
                for member in members(&tokens[at + 1..end]) {
                    tree(&member, before, found);
                }
                before.truncate(depth);
                return;
            }
            "as" => {
                found.push((tokens.get(at + 1).cloned().unwrap_or_default(), before.clone()));
                before.truncate(depth);
                return;
            }
            "::" => {}
            "self" if !before.is_empty() => {}
            name => before.push(name.to_owned()),
        }
        at += 1;
    }
    let name = before.last().cloned().unwrap_or_default();
    found.push((name, before.clone()));
    before.truncate(depth);
}

/// The members of a group.
fn members(tokens: &[String]) -> Vec<Vec<String>> {
    let (mut found, mut member, mut depth) = (Vec::new(), Vec::new(), 0);
    for token in tokens {
        depth += i32::from(token == "{") - i32::from(token == "}");
        if token == "," && depth == 0 {
            found.push(std::mem::take(&mut member));
        } else {
            member.push(token.clone());
        }
    }
    found.push(member);
    found.into_iter().filter(|member| !member.is_empty()).collect()
}

#[test]
fn a_cycle_is_found_through_a_reexport_and_not_through_tests() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = |b: &str| {
        vec![
            file("lib.rs", "pub mod a; mod d;"),
            file("a/mod.rs", "mod b;\nmod c;\n#[cfg(test)]\nmod tests;\npub use c::Thing;\npub struct Ground;"),
            file("a/b.rs", b),
            file(
                "a/c.rs",
                "// use super::b::no;\npub struct Thing(&'static str);\nfn f() { super::b::go(\"crate::d\", 'x', '\\'') }",
            ),
            file("a/tests.rs", "use crate::d::D;"),
            file("d.rs", "use crate::a::Thing;\n#[cfg(test)]\nmod tests { use crate::a::tests::no; }"),
        ]
    };
    assert_eq!(circles(&files("use super::Thing; pub fn go() {}")), [["a/b.rs", "a/c.rs"]]);
    assert_eq!(circles(&files("use {super::{c::{self}, Ground}}; pub fn go() {}")), [["a/b.rs", "a/c.rs"]]);
    let mut far = files("use crate::d::D as Other; pub fn go() {}");
    assert_eq!(circles(&far), [["a/b.rs", "a/c.rs", "d.rs"]]);
    far[5].1 = String::new();
    assert_eq!(circles(&far), Vec::<Vec<String>>::new());
    let tests_only =
        files("#[cfg(test)]\nuse super::Thing;\n#[cfg(test)]\nfn seen() -> super::Thing { todo!() }\npub fn go() {}");
    assert_eq!(circles(&tests_only), Vec::<Vec<String>>::new());
}
