//! Checks the layers of the agent: reads every `crate::` and `ecs_core::` path in `src/` and compares it with the table below.
//!
//! The core (`src/core`) and the embedded control plane (`src/local`) are crates of their own, which the compiler keeps apart.
//! Within the crate of the agent, this test does. A failure names the file, the line, the rule and its reason.

mod circles;
mod texts;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// One row: a part of `src/`, what it may import from the agent's crate and from the core, and why nothing else.
struct Layer {
    part: &'static str,
    may_import: &'static [&'static str],
    reason: &'static str,
}

const EDGE: &str = "an edge translates between the model and the outside; it decides nothing, so it needs neither the core, nor the \
    runtime, nor the configuration, nor another edge: what two edges share goes through the runtime as an argument";

const LAYERS: &[Layer] = &[
    Layer {
        part: "docker",
        may_import: &["docker", "backoff", "core::model", "input", "lane", "metrics"],
        reason: EDGE,
    },
    Layer { part: "acs", may_import: &["acs", "backoff", "core::model", "input", "aws", "websocket"], reason: EDGE },
    Layer { part: "tcs", may_import: &["tcs", "backoff", "core::model", "input", "aws", "websocket"], reason: EDGE },
    Layer { part: "ecs", may_import: &["ecs", "backoff", "core::model", "aws", "websocket"], reason: EDGE },
    Layer { part: "aws", may_import: &["aws", "backoff", "core::model", "input", "lane"], reason: EDGE },
    Layer {
        part: "resources",
        may_import: &["resources", "backoff", "core::model", "input", "lane", "aws", "grpc"],
        reason: EDGE,
    },
    Layer { part: "cgroup", may_import: &["cgroup", "core::model", "lane", "systemd"], reason: EDGE },
    Layer { part: "stats", may_import: &["stats", "core::model", "lane"], reason: EDGE },
    Layer { part: "otlp", may_import: &["otlp", "backoff", "core::model", "aws"], reason: EDGE },
    Layer { part: "network", may_import: &["network", "core::model", "lane"], reason: EDGE },
    Layer { part: "systemd", may_import: &["systemd"], reason: EDGE },
    Layer { part: "grpc", may_import: &["grpc", "core::model"], reason: EDGE },
    Layer { part: "host", may_import: &["host", "core::model", "input", "lane"], reason: EDGE },
    Layer { part: "websocket", may_import: &["websocket", "backoff", "core::model", "aws"], reason: EDGE },
    Layer { part: "http", may_import: &["http", "backoff", "core::model", "input", "metrics"], reason: EDGE },
    Layer { part: "config", may_import: &["config", "core::model", "input"], reason: EDGE },
    Layer {
        part: "store",
        may_import: &["store", "core::model", "core::state", "version"],
        reason: "the store writes the state's documents, so it knows their types; it must not know the decisions made from them",
    },
    Layer {
        part: "runtime",
        may_import: &[
            "runtime",
            "acs",
            "aws",
            "backoff",
            "cgroup",
            "config",
            "core",
            "docker",
            "ecs",
            "host",
            "http",
            "input",
            "lane",
            "metrics",
            "network",
            "otlp",
            "resources",
            "stats",
            "store",
            "tcs",
            "version",
            "websocket",
        ],
        reason: "the runtime wires the parts; commands call it, and it calls none of them",
    },
    Layer {
        part: "commands",
        may_import: &["commands", "config", "core::model", "host", "http", "runtime", "version", "aws"],
        reason: "a verb has arguments, text and an exit code; the work is done below it",
    },
    Layer {
        part: "input",
        may_import: &["input", "core::model"],
        reason: "decoders of what others wrote know no edge",
    },
    Layer {
        part: "lane",
        may_import: &["core::model"],
        reason: "threads for work that may block; a lane does not know whose work it runs",
    },
    Layer {
        part: "metrics",
        may_import: &["metrics"],
        reason: "counting and encoding; it does not know what is counted",
    },
    Layer { part: "backoff", may_import: &[], reason: "arithmetic" },
    Layer { part: "version", may_import: &[], reason: "constants" },
    Layer {
        part: "main",
        may_import: &["commands", "config", "http::introspection"],
        reason: "main is a table of commands",
    },
];

/// Words that must not appear in the core, and why. The compiler refuses every library but the two in its manifest; these are of
/// the language and of the standard library.
const FORBIDDEN: &[(&str, &str)] = &[
    ("async fn", "nothing here can wait"),
    (".await", "nothing here can wait"),
    ("Instant", "time comes in as an argument; otherwise no run could be repeated"),
    ("SystemTime", "time comes in as an argument; otherwise no run could be repeated"),
    ("std::fs", "nothing here touches a file"),
    ("std::net", "nothing here opens a socket; only the types of addresses are allowed"),
    ("std::thread", "nothing here runs concurrently"),
    ("std::sync", "one owner, no lock; only `std::sync::Arc` is allowed, for shared texts"),
    ("std::env", "only `config` reads the environment"),
    ("RandomState", "no chance: jitter comes from a hash, so the same state gives the same step"),
    ("HashMap", "its order differs from run to run; use BTreeMap"),
    ("HashSet", "its order differs from run to run; use BTreeSet"),
    ("println", "the core prints nothing"),
];

/// What the core may name in spite of [`FORBIDDEN`]: plain data.
const ALLOWED: &[&str] = &["std::sync::Arc;", "std::net::Ipv4Addr;", "std::net::{IpAddr, Ipv4Addr, Ipv6Addr};"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The crates below `src/` besides the agent's own.
const CRATES: [&str; 3] = ["core/", "local/", "netlink/"];

/// The tests of the core: the only files below `src/core` that are not part of it.
const SIMULATOR: &str = "core/tests/";

/// The files of the agent's own crate, relative to `src/`.
fn agent_files() -> Vec<(String, String)> {
    let is_own = |file: &str| !CRATES.iter().any(|folder| file.starts_with(folder));
    files(&source()).into_iter().filter(|(file, _)| is_own(file)).collect()
}

/// All Rust files below this folder: path relative to the folder, and text.
fn files(below: &Path) -> Vec<(String, String)> {
    files_below(below, below)
}

fn files_below(below: &Path, top: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            found.extend(files_below(&path, top));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(top).expect("below it").to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("a source file can be read")));
        }
    }
    found.sort();
    found
}

/// The part a file belongs to: `store/file.rs` → `store`, `systemd.rs` → `systemd`.
fn part(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// A line without its comment. A `//` inside a string hides the rest of that line, which is never a path.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The paths of this crate and of the core that a file names, each with its line: after `crate::` (in `main.rs`, after
/// `ecs_agent::`), and after `ecs_core::` with `core::` in front. Groups are expanded.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (start, inside) in [("crate::", ""), ("ecs_agent::", ""), ("ecs_core::", "core::")] {
            // A log target in a test may be a path of this crate.
            let quoted = format!("\"{start}");
            for (at, _) in code(line).match_indices(start).filter(|_| !line.contains(&quoted)) {
                let is_word_end = code(line)[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
                if !is_word_end {
                    // A group may span several lines, so the whole rest of the text is read.
                    let rest = text.lines().skip(number).collect::<Vec<_>>().join("\n");
                    let rest = rest[at + start.len()..].to_owned();
                    found.extend(heads(&rest).into_iter().map(|path| (number + 1, format!("{inside}{path}"))));
                }
            }
        }
    }
    found
}

/// `{a::b, c}` → `a::b`, `c`; `a::{b, c}` → `a::b`, `a::c`; deeper levels do not matter here.
fn heads(rest: &str) -> Vec<String> {
    if let Some(group) = rest.strip_prefix('{') {
        return split(group).iter().flat_map(|path| heads(path.trim())).collect();
    }
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let first = word(rest);
    let Some(rest) = rest[first.len()..].strip_prefix("::") else { return vec![first] };
    let seconds = match rest.strip_prefix('{') {
        Some(group) => split(group).iter().map(|path| word(path.trim())).collect(),
        None => vec![word(rest)],
    };
    seconds.into_iter().map(|second| format!("{first}::{second}")).collect()
}

/// The members of a group, up to its closing brace.
fn split(group: &str) -> Vec<String> {
    let (mut members, mut member, mut depth) = (Vec::new(), String::new(), 0);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(std::mem::take(&mut member)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                member.push(c);
            }
        }
    }
    members.push(member);
    members.into_iter().filter(|member| !member.trim().is_empty()).collect()
}

/// Fuzz targets are compiled only for tests and for the fuzzer, so they may import anything. A test below checks that they are
/// not part of the product.
fn is_for_the_fuzzer(file: &str) -> bool {
    file.rsplit('/').next() == Some("fuzz.rs")
}

fn is_allowed(layer: &Layer, path: &str) -> bool {
    layer.may_import.iter().any(|allowed| path == *allowed || path.starts_with(&format!("{allowed}::")))
}

#[test]
fn no_layer_imports_what_it_must_not_know() {
    let mut broken = Vec::new();
    for (file, text) in agent_files().into_iter().filter(|(file, _)| !is_for_the_fuzzer(file)) {
        let Some(layer) = LAYERS.iter().find(|layer| layer.part == part(&file)) else { continue };
        for (line, path) in imports(&text) {
            if !is_allowed(layer, &path) {
                let (allowed, reason) = (layer.may_import.join(", "), layer.reason);
                broken.push(format!("src/{file}:{line}: `{path}` (`{}` may import: {allowed}): {reason}", layer.part));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_part_has_a_layer() {
    const FREE: &[&str] = &["lib", "bin"];
    for (file, _) in agent_files() {
        if is_for_the_fuzzer(&file) {
            continue;
        }
        let known = LAYERS.iter().any(|layer| layer.part == part(&file)) || FREE.contains(&part(&file));
        assert!(known, "src/{file} is in no layer: state in tests/layers what it may import, and why nothing else");
    }
}

#[test]
fn fuzz_targets_are_not_part_of_the_product() {
    let mut modules = 0;
    for (file, text) in files(&source()) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| code(line).trim_end().ends_with("mod fuzz;")) {
            modules += 1;
            let before = number.checked_sub(1).map(|before| lines[before].trim());
            assert_eq!(before, Some("#[cfg(any(test, fuzzing))]"), "src/{file}:{}: it would be shipped", number + 1);
        }
    }
    let fuzz_files = files(&source()).into_iter().filter(|(file, _)| is_for_the_fuzzer(file)).count();
    assert_eq!(modules, fuzz_files, "every fuzz.rs is such a module");
}

/// The manifest of the core names no library that could wait, log or reach the outside.
#[test]
fn the_core_has_two_dependencies() {
    let manifest = fs::read_to_string(source().join("core/Cargo.toml")).expect("it can be read");
    let (_, rest) = manifest.split_once("[dependencies]\n").expect("it has dependencies");
    let names: Vec<&str> =
        rest.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split('.').next()).collect();
    assert_eq!(names, ["serde", "zeroize"]);
}

#[test]
fn the_daemon_does_not_use_the_control_plane() {
    for (file, text) in agent_files().into_iter().filter(|(file, _)| part(file) != "bin") {
        assert!(!text.lines().any(|line| code(line).contains("ecs_local")), "src/{file} names `ecs_local`");
    }
}

#[test]
fn the_core_names_nothing_from_outside() {
    let mut broken = Vec::new();
    for (file, text) in files(&source()) {
        if part(&file) != "core" || file.starts_with(SIMULATOR) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let line = ALLOWED.iter().fold(code(line).to_owned(), |line, allowed| line.replace(allowed, ""));
            for (word, reason) in FORBIDDEN.iter().filter(|(word, _)| contains_word(&line, word)) {
                broken.push(format!("src/{file}:{}: `{word}`: {reason}", number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Only `config` reads the environment. (Only the runtime's parts start tasks; clippy checks that.)
#[test]
fn only_the_configuration_reads_the_environment() {
    let mut broken = Vec::new();
    for (file, text) in files(&source()) {
        let is_free = ["config", "main", "commands", "bin", "local"].contains(&part(&file))
            || file.ends_with("/tests.rs")
            || file.contains("/tests/");
        // Tests at the end of a file may read Cargo's variables.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if !is_free && ["std::env", "env::var"].iter().any(|word| code(line).contains(word)) {
                broken.push(format!("src/{file}:{}: settings are passed in as the part's own struct", number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Work that may block runs on the threads for its kind (`lane`). Exceptions: name resolution alone uses the runtime's blocking
/// threads; the core loop itself waits for the disk, because no effect may precede the commit; and the embedded control plane,
/// another program that must not share code with the agent, reads `/proc`, and has its layers and its state written, and lifecycle rules evaluated, by the runtime's
/// blocking threads: nothing else of it waits for them.
#[test]
fn blocking_work_is_done_on_lanes() {
    const FREE: [(&str, &str); 3] = [
        ("runtime/core_loop.rs", "block_in_place"),
        ("local/owner.rs", "tokio::fs"),
        ("local/api/ecr/lifecycle.rs", "spawn_blocking"),
    ];
    let is_free = |file: &str, word: &str| {
        FREE.contains(&(file, word)) || (file.starts_with("local/registry/") && word == "spawn_blocking")
    };
    let mut broken = Vec::new();
    for (file, text) in files(&source()) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            for word in ["spawn_blocking", "block_in_place", "tokio::fs"] {
                if contains_word(code(line), word) && !is_free(&file, word) {
                    broken.push(format!("src/{file}:{}: `{word}`: use a `lane::Lane` for the part", number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Whole words only: `operand` does not contain `rand`. A word that ends in `_`, such as `aws_`, is a prefix.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let starts = word.starts_with('.') || !is_part(before);
        starts && (word.ends_with('_') || !is_part(after))
    })
}

#[test]
fn the_test_sees_all_forms_of_a_path() {
    let text = "use ecs_core::model::{A, b::C};\nuse crate::{config::kind, docker};\nlet x = crate::acs::wire::read();\n// crate::no\nuse crate::{\n    store,\n};\nuse ecs_core::step;\n";
    let seen: Vec<String> = imports(text).into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        seen,
        ["core::model::A", "core::model::b", "config::kind", "docker", "acs::wire", "store", "core::step"]
    );
    assert!(contains_word("use rand::Rng;", "rand") && !contains_word("operand", "rand"));
    assert!(contains_word("aws_config::load()", "aws_") && !contains_word("is_aws_there", "aws_"));
    let store = LAYERS.iter().find(|layer| layer.part == "store").expect("it has a layer");
    assert!(is_allowed(store, "core::state") && !is_allowed(store, "core::step"));
}

#[test]
fn no_circle_of_imports_between_files() {
    let crates = CRATES.iter().map(|folder| files(&source().join(folder)));
    for files in crates.chain([agent_files()]) {
        let files: Vec<_> = files.into_iter().filter(|(file, _)| !file.starts_with("tests/")).collect();
        let found: Vec<String> = circles::circles(&files)
            .iter()
            .map(|group| format!("{} files:\n    {}", group.len(), circles::within(&files, group).join("\n    ")))
            .collect();
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }
}
