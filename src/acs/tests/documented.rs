//! Checks `src/acs/task_definition.md` and `src/core/model/reasons.md`: every parameter has a row, every reason has a test or
//! is never given, and every test that the pages name exists and mentions its subject. A reader must check that the test also
//! asserts it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

const STATUSES: [&str; 5] = ["supported", "refused", "later", "ignored", "ECS"];

/// The row of a member in the page.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    status: String,
    remark: String,
    proofs: Vec<Proof>,
}

/// The rows by `Shape.member`.
fn rows() -> BTreeMap<String, Row> {
    let mut shape = "";
    let mut rows = BTreeMap::new();
    for line in include_str!("../task_definition.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            shape = title;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", member, status, remark, tests, ""] = cells[..] else { continue };
        let Some(member) = member.strip_prefix('`').and_then(|member| member.strip_suffix('`')) else { continue };
        let row = Row { status: status.to_owned(), remark: remark.to_owned(), proofs: proofs(tests) };
        assert_eq!(rows.insert(format!("{shape}.{member}"), row), None, "{shape}.{member} occurs twice");
    }
    rows
}

/// A test that a page names, and the word that it must mention; `None`: the subject of the row.
type Proof = (String, Option<String>);

/// Reads `` `a_test`, `another` ("its word")``.
fn proofs(cell: &str) -> Vec<Proof> {
    let parts = cell.split(", `").map(|part| part.trim().trim_start_matches('`')).filter(|part| *part != "-");
    let proof = |part: &str| {
        let (name, rest) = part.split_once('`').unwrap_or((part, ""));
        let word = rest.trim().strip_prefix("(\"").and_then(|rest| rest.strip_suffix("\")"));
        assert!(rest.is_empty() || word.is_some(), "neither a test nor its word: {part}");
        (name.to_owned(), word.map(str::to_owned))
    };
    parts.map(proof).collect()
}

/// The texts of the functions and constants of one file, by name. If two modules of the file use a name, both texts are joined.
type Items = BTreeMap<String, String>;

/// The name of the function or constant that begins in this line.
fn item(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "async");
    let mut kind = words.next()?;
    let mut name = words.next()?;
    if kind == "const" && name == "fn" {
        (kind, name) = ("fn", words.next()?);
    }
    let is_item = ["fn", "const", "static"].contains(&kind);
    is_item.then(|| name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next())?
}

/// Splits a formatted file into items: an item ends with the first closing line at its own indentation.
fn items(text: &str) -> Items {
    let lines: Vec<&str> = text.lines().collect();
    let mut items = Items::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = item(line) else { continue };
        let indentation = line.len() - line.trim_start().len();
        let is_end = |line: &&str| {
            let own = line.len() - line.trim_start().len() == indentation;
            own && line.trim_start().starts_with(['}', ']', ')'])
        };
        let whole_in_a_line = line.ends_with(';') || line.ends_with('}');
        let length =
            if whole_in_a_line { 0 } else { lines[at + 1..].iter().position(is_end).map_or(0, |offset| offset + 1) };
        let body = lines[at..=at + length].join("\n");
        items.entry(name.to_owned()).or_default().push_str(&body);
    }
    items
}

/// All tests of the sources by name: the text of each test, and of the functions and constants of its file that it uses. Tests
/// of the same name are several texts.
fn tests_below(directory: &Path, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let items = items(&text);
            let mut lines = text.lines().map(str::trim).peekable();
            while let Some(line) = lines.next() {
                let is_test = line == "#[test]" || line.starts_with("#[tokio::test");
                if let Some(name) = lines.peek().filter(|_| is_test).and_then(|next| item(next)) {
                    found.entry(name.to_owned()).or_default().push(with_used_items(name, &items));
                }
            }
        }
    }
}

fn with_used_items(test: &str, items: &Items) -> String {
    let (mut text, mut seen, mut next) = (String::new(), BTreeSet::new(), vec![test]);
    while let Some(name) = next.pop() {
        let Some((name, body)) = items.get_key_value(name).filter(|_| seen.insert(name.to_owned())) else { continue };
        // The name of a test proves nothing, so it is left out.
        text.push_str(&body.replacen(name.as_str(), "", 1));
        next.extend(body.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| items.contains_key(*word)));
    }
    without_line_ends(&text)
}

/// Joins string literals that continue in the next line of the source.
fn without_line_ends(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

/// The tests of the sources, read once for all tests of this file.
fn all_tests() -> &'static BTreeMap<String, Vec<String>> {
    static TESTS: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    TESTS.get_or_init(|| {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tests = BTreeMap::new();
        tests_below(&top.join("src"), &mut tests);
        tests_below(&top.join("tests"), &mut tests);
        tests
    })
}

/// The text of a test that a page names. If two tests have the name, the page is ambiguous, which is an error.
fn proving<'a>(tests: &'a BTreeMap<String, Vec<String>>, proof: &str) -> Result<&'a str, String> {
    match tests.get(proof).map(Vec::as_slice) {
        Some([text]) => Ok(text),
        Some([_, _, ..]) => Err(format!("several tests are called {proof}: give them names of their own")),
        Some([]) | None => Err(format!("there is no test {proof}")),
    }
}

/// `memoryReservation`, `memory_reservation` and `MemoryReservation` are the same word.
fn folded(text: &str) -> String {
    text.chars().filter(|c| !['_', '-'].contains(c)).flat_map(char::to_lowercase).collect()
}

/// Nearly every test contains words with fewer letters than this by chance: `user`, `name`, `cpu`.
const MIN_DISTINCTIVE: usize = 5;

/// Whether the test mentions the member as a whole word; a short one must be the name of a JSON member or of a field: `"cpu"`,
/// `cpu:`.
fn mentions_member(text: &str, member: &str) -> bool {
    let (member, mut next) = (folded(member), 0);
    let is_word = |c: char| c.is_alphanumeric() || ['_', '-'].contains(&c);
    text.split_inclusive(|c| !is_word(c)).any(|piece| {
        let start = next;
        next += piece.len();
        let word = piece.trim_end_matches(|c| !is_word(c));
        let (before, after) = (&text[..start], &text[start + word.len()..]);
        let is_quoted = before.ends_with('"') && (after.starts_with('"') || after.starts_with("\\\""));
        let is_field = after.starts_with(':') && !after.starts_with("::");
        folded(word) == member && (member.len() >= MIN_DISTINCTIVE || is_quoted || is_field)
    })
}

/// Whether the text mentions the words, both folded. The words must not begin or end within another word.
fn mentions_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + words.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

#[test]
fn a_similar_or_common_word_does_not_count_as_a_member() {
    for text in ["memory_reservation: 7", "let memories = 1;", "in-memory", "xmemory"] {
        assert!(!mentions_member(text, "memory"), "{text}");
    }
    for text in ["the memory of it", "{\"Memory\": 7}", "task.memory", "memory"] {
        assert!(mentions_member(text, "memory"), "{text}");
    }
    for text in
        ["let user = 1;", "task.user", "user::name()", "the user says", "\"user me\"", "superuser: 1", "username: 1"]
    {
        assert!(!mentions_member(text, "user"), "{text}");
    }
    for text in ["{\"User\": 7}", "Spec { user: 7 }", "[\"user\"]", "\"{\\\"user\\\":7}\""] {
        assert!(mentions_member(text, "user"), "{text}");
    }
    assert!(mentions_words("a log driver.", "log driver") && !mentions_words("a log drivers", "log driver"));
    assert!(
        !mentions_words("prolog driver", "log driver") && mentions_words("prolog driver, log driver", "log driver")
    );
}

#[test]
fn every_parameter_has_a_row_and_every_test_mentions_it() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows();
    let members = std::fs::read_to_string(top.join("tests/corpus/task_definition_members.txt")).unwrap();
    let members: BTreeSet<&str> = members.lines().collect();
    let documented: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(documented, members);
    assert!(members.len() > 150, "{}", members.len());

    let tests = all_tests();
    let mut wrong = Vec::new();
    for (name, Row { status, remark, proofs }) in &rows {
        assert!(STATUSES.contains(&status.as_str()), "{name}: {status}");
        assert!(!proofs.is_empty() || !["supported", "refused"].contains(&status.as_str()), "{name} names no test");
        let member = name.rsplit('.').next().unwrap_or_default();
        for (proof, word) in proofs {
            let is_mentioned = |text: &str| match word {
                Some(word) => mentions_words(&folded(text), &folded(word)),
                None => mentions_member(text, member),
            };
            match proving(tests, proof) {
                Err(why) => wrong.push(format!("{name}: {why}")),
                Ok(text) if is_mentioned(text) => {}
                Ok(_) => {
                    let word = word.as_deref().unwrap_or(member);
                    wrong.push(format!("{name}: {proof} does not mention {word}"));
                }
            }
        }
        let all: String = proofs.iter().filter_map(|(proof, _)| proving(tests, proof).ok()).map(folded).collect();
        let named = remark.split('`').skip(1).step_by(2).filter(|_| !proofs.is_empty());
        let missing = named.filter(|word| !mentions_words(&all, &folded(word)));
        wrong.extend(missing.map(|word| format!("{name}: no test mentions {word}, which the remark names")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_test_is_read_with_the_items_it_uses_without_its_name() {
    let file = "const TABLE: [&str; 1] = [\n    \"a word \\\n     of it\",\n];\nfn unused() {\n    panic!(\"other\");\n}\n\
                #[test]\nfn named_for_memory() {\n    helper();\n}\nfn helper() {\n    assert_eq!(TABLE.len(), 1);\n}\n";
    let items = items(file);
    assert_eq!(items.keys().collect::<Vec<_>>(), ["TABLE", "helper", "named_for_memory", "unused"]);
    let text = with_used_items("named_for_memory", &items);
    assert!(text.contains("a word of it") && text.contains("TABLE.len()"), "{text}");
    assert!(!text.contains("memory") && !text.contains("other"), "{text}");
    assert_eq!(folded("Memory_Reservation"), folded("memoryReservation"));
    let read = proofs("`a_test`, `another` (\"its, word\"), `third`");
    let proof = |name: &str, word: Option<&str>| (name.to_owned(), word.map(str::to_owned));
    assert_eq!(read, [proof("a_test", None), proof("another", Some("its, word")), proof("third", None)]);
    assert_eq!(proofs("-"), []);
}

#[test]
fn a_name_that_two_tests_have_proves_nothing() {
    let texts = |count: usize| vec!["text".to_owned(); count];
    let tests = BTreeMap::from([("once".to_owned(), texts(1)), ("twice".to_owned(), texts(2))]);
    assert_eq!(proving(&tests, "once"), Ok("text"));
    assert!(proving(&tests, "twice").unwrap_err().starts_with("several tests are called twice"));
    assert!(proving(&tests, "never").unwrap_err().starts_with("there is no test never"));
}

/// Names of the catalogue (spec `task-engine.md` §15) and the reasons that have none.
const REASONS: [&str; 44] = [
    "DockerTimeoutError",
    "CannotPullContainerError",
    "CannotPullECRContainerError",
    "CannotPullContainerAuthError",
    "CannotPullImageManifestError",
    "TaskStoppedBeforePullBeginError",
    "CannotCreateContainerError",
    "CannotStartContainerError",
    "CannotStopContainerError",
    "CannotInspectContainerError",
    "CannotDescribeContainerError",
    "CannotRemoveContainerError",
    "CannotListContainersError",
    "CannotListImagesError",
    "CannotListPluginsError",
    "CannotCreateVolumeError",
    "CannotInspectVolumeError",
    "CannotRemoveVolumeError",
    "CannotCreateContainerExecError",
    "CannotStartContainerExecError",
    "CannotInspectContainerExecError",
    "CannotGetDockerclientError",
    "CannotGetDockerClientVersionError",
    "OutOfMemoryError",
    "DockerStateError",
    "ContainerVanishedError",
    "ContainerNetworkingError",
    "ImpossibleStateTransitionError",
    "TaskDependencyError",
    "ResourceInitializationError",
    "HostConfigError",
    "DockerClientConfigError",
    "CgroupError",
    "VolumeError",
    "TaskStateError",
    "UnrecogniedTaskError",
    "fetching secret data from SSM",
    "fetching from Secrets Manager",
    "asm fetching secret",
    "environment files",
    "error parsing firelens options",
    "network bindings",
    "unsupported credentialspec ARN",
    "rpc error: code =",
];

/// The subjects of a row: the names in backticks, and the phrases between commas, semicolons and colons. Text in brackets is a
/// remark.
fn phrases(cell: &str) -> Vec<String> {
    let (mut depth, mut text) = (0_usize, String::new());
    for c in cell.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text.split(['`', ',', ';', ':']).map(|part| part.trim().to_lowercase()).filter(|part| !part.is_empty()).collect()
}

#[test]
fn every_reason_is_mentioned_by_its_tests_or_is_never_given() {
    let page = include_str!("../../core/model/reasons.md");
    for reason in REASONS {
        assert!(page.lines().any(|line| line.starts_with('|') && line.contains(reason)), "{reason} has no row");
    }
    let tests = all_tests();
    let mut wrong = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| reason"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", reason, named, why, ""] = cells[..] else { panic!("not a row: {row}") };
        assert!((named == "-") != why.is_empty(), "tests, or why there are none: {row}");
        let (phrases, mut all) = (phrases(reason), String::new());
        for (proof, word) in proofs(named) {
            let text = match proving(tests, &proof) {
                Ok(text) => text.to_lowercase(),
                Err(why) => {
                    wrong.push(format!("{why}: {reason}"));
                    continue;
                }
            };
            let is_mentioned = match &word {
                Some(word) => text.contains(&word.to_lowercase()),
                None => phrases.iter().any(|phrase| text.contains(phrase)),
            };
            if !is_mentioned {
                wrong.push(format!("{proof} does not mention {}", word.unwrap_or_else(|| reason.to_owned())));
            }
            all.push_str(&text);
        }
        let missing = phrases.iter().filter(|phrase| named != "-" && !all.contains(phrase.as_str()));
        wrong.extend(missing.map(|phrase| format!("no test mentions `{phrase}` of {reason}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
