//! Checks that identifiers use the words of the field, and no private ones.
//!
//! Comments and texts are not read: a private word is found only in a name.

use super::circles::{is_name, tokens};
use super::files;
use std::collections::BTreeSet;
use std::path::Path;

/// One row: words that no identifier may hold, and what to write instead.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (
        &["told", "untold", "said", "unsaid", "heard", "unheard"],
        "sent, reported, received, logged, shown, answered: say which",
    ),
    (&["flight", "flights", "seat", "landing", "landed", "aboard", "board", "boards"], "call, waiter, outcome"),
    (&["vanished", "destroyed"], "removed, or missing: say which"),
    (
        &["flaw", "flaws", "trouble", "mute", "askers", "books", "news"],
        "the usual word: error, silent, waiters, pending events",
    ),
];

/// Words that say too little at the beginning of a name, and what to write instead.
const NO_BEGINNING: &[(&str, &str)] = &[
    ("of", "`from_…`, `for_…`, or what it yields"),
    ("most", "MAX_…, and the unit"),
    ("longest", "MAX_…, and the unit"),
    ("least", "MIN_…, and the unit"),
    ("who", "what it is"),
    ("whose", "what it is"),
];

/// Upper limit of a test's name, in characters. The rest belongs in a doc line.
const MAX_TEST_NAME: usize = 60;

/// The words of an identifier: `max` and `parts` for each of `MAX_PARTS`, `max_parts` and `MaxParts`.
fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut was_lower = false;
    for character in identifier.chars() {
        let starts = words.is_empty() || (character.is_uppercase() && was_lower);
        was_lower = character.is_lowercase() || character.is_ascii_digit();
        match (character, words.last_mut()) {
            ('_', _) => words.push(String::new()),
            (_, Some(word)) if !starts => word.extend(character.to_lowercase()),
            _ => words.push(character.to_lowercase().collect()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What to write instead; `None` if the identifier is allowed.
fn instead(identifier: &str, is_test: bool) -> Option<String> {
    let words = words(identifier);
    if is_test && identifier.chars().count() > MAX_TEST_NAME {
        return Some(format!("a name of at most {MAX_TEST_NAME} characters, and the rest as a doc line"));
    }
    if identifier == "one" {
        return Some("what there is one of".to_owned());
    }
    // The name of a test may be a sentence, and begin like one.
    let beginning =
        NO_BEGINNING.iter().filter(|_| !is_test).find(|(word, _)| words.first().is_some_and(|first| first == word));
    let forbidden = FORBIDDEN.iter().find(|(forbidden, _)| words.iter().any(|word| forbidden.contains(&word.as_str())));
    beginning.map(|row| row.1).or(forbidden.map(|row| row.1)).map(str::to_owned)
}

/// The names of the test functions of a file.
fn tests(tokens: &[String]) -> BTreeSet<&String> {
    let is_attribute = |at: usize| tokens[at] == "#" && tokens.get(at + 1).is_some_and(|token| token == "[");
    let starts = (0..tokens.len()).filter(|at| is_attribute(*at));
    let names = starts.filter_map(|at| {
        let path: Vec<&String> = tokens[at + 2..].iter().take_while(|token| is_name(token) || *token == "::").collect();
        let function = tokens[at..].iter().position(|token| token == "fn")?;
        path.last().filter(|name| name.as_str() == "test")?;
        tokens.get(at + function + 1)
    });
    names.collect()
}

/// The refused identifiers of a file, each once, with what to write instead.
fn refused(text: &str) -> Vec<(String, String)> {
    let tokens = tokens(text);
    let tests = tests(&tokens);
    let names: BTreeSet<&String> = tokens.iter().filter(|token| is_name(token)).collect();
    names.into_iter().filter_map(|name| Some((name.clone(), instead(name, tests.contains(name))?))).collect()
}

#[test]
fn identifiers_use_the_words_of_the_field() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (name, text) in files(&top.join(folder)) {
            found.extend(
                refused(&text).into_iter().map(|(word, instead)| format!("{folder}/{name}: {word}: write {instead}")),
            );
        }
    }
    assert!(found.is_empty(), "{} identifiers:\n{}", found.len(), found.join("\n"));
}

#[test]
fn forbidden_identifiers_are_seen_in_every_form() {
    let names = |text: &str| refused(text).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(
        names("const MOST_TASKS: u8 = 1; fn of_task() {} struct Untold; let is_told_now = one(x);"),
        ["MOST_TASKS", "Untold", "is_told_now", "of_task", "one",]
    );
    let harmless =
        "// told\nlet at_most = \"heard\"; fn almost() {} struct Offer; let is_one = lone; let profile_of = 1;";
    assert_eq!(names(harmless), [""; 0]);
    let long = "a".repeat(MAX_TEST_NAME + 1);
    let test = |name: &str| names(&format!("#[tokio::test(flavor = \"x\")]\n#[ignore]\nasync fn {name}() {{}}"));
    assert_eq!(test(&long), std::slice::from_ref(&long));
    assert_eq!(test("who_waits_is_served"), [""; 0]);
    assert_eq!(test("nothing_is_told"), ["nothing_is_told"]);
    assert_eq!(names(&format!("fn {long}() {{}}")), [""; 0], "no test");
}
