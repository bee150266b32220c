//! Parses citations, and refuses texts that only look like one.

use super::Text;
use std::collections::BTreeSet;

/// The number of a section: `4.2` is `[4, 2]`.
pub(crate) type Number = Vec<u32>;

/// A cited page, with the cited sections.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Citation {
    /// Offset of the citation in the flat text.
    pub(crate) at: usize,
    /// File name of the page.
    pub(crate) page: String,
    /// First and last section of each range; `§2` is `(2, 2)`. Empty if the page is cited as a whole.
    pub(crate) sections: Vec<(Number, Number)>,
}

/// The citations in a flat text, and the texts that only look like one, each with its offset and the reason. `own` is the name of
/// the text itself if it is a page.
pub(crate) fn citations(flat: &str, own: Option<&str>) -> (Vec<Citation>, Vec<(usize, &'static str)>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let starts = |mark: &'static str| flat.match_indices(mark).map(|(at, _)| at);
    let in_pages = own.iter().flat_map(|_| starts("`"));
    let marks: BTreeSet<usize> = starts("spec `").chain(starts("§")).chain(in_pages).collect();
    let mut read_to = 0;
    for at in marks {
        if at < read_to {
            continue;
        }
        let is_section = flat[at..].starts_with('§');
        let begin = if flat[at..].starts_with("spec `") { at + "spec ".len() } else { at };
        let is_word = begin == at || !flat[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_page = is_word && page_name(&flat[begin..]).is_some();
        if is_section && follows_rfc(&flat[..at]) {
            continue;
        }
        if is_section && own.is_none() {
            refused.push((at, "a section without its page: write spec `page.md` before it"));
        } else if is_section || is_page {
            let mut read = Reader { flat, at: begin, found: Vec::new(), refused: None };
            read.citation(own);
            read_to = read.at;
            found.append(&mut read.found);
            refused.extend(read.refused);
        }
    }
    (found, refused)
}

/// Whether a text ends with `RFC 6455 `.
fn follows_rfc(before: &str) -> bool {
    let Some(before) = before.strip_suffix(' ') else { return false };
    let name = before.trim_end_matches(|c: char| c.is_ascii_digit());
    name.len() < before.len() && name.ends_with("RFC ")
}

/// The name `page.md` if the text begins with it in backticks.
pub(crate) fn page_name(rest: &str) -> Option<&str> {
    let (name, _) = rest.strip_prefix('`')?.split_once('`')?;
    let stem = name.strip_suffix(".md").filter(|stem| !stem.is_empty())?;
    stem.chars().all(|c| c.is_ascii_lowercase() || c == '-').then_some(name)
}

struct Reader<'a> {
    flat: &'a str,
    at: usize,
    found: Vec<Citation>,
    refused: Option<(usize, &'static str)>,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.flat[self.at..]
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    /// Reads pages that follow each other, each with its sections.
    fn citation(&mut self, own: Option<&str>) {
        loop {
            let begin = self.at;
            let page = match page_name(self.rest()).map(str::to_owned) {
                Some(page) => {
                    self.at += page.len() + 2;
                    page
                }
                None => own.expect("a section alone is read in a page only").to_owned(),
            };
            let is_alone = self.at == begin;
            let sections = if is_alone || (self.rest().starts_with(" §") && self.take(" ")) {
                self.sections()
            } else {
                Vec::new()
            };
            if !is_alone && sections.is_empty() {
                self.refuse_digit(" ", "a number without `§`");
            }
            self.found.push(Citation { at: begin, page, sections });
            let goes_on =
                |joint: &&&str| self.rest().strip_prefix(**joint).is_some_and(|next| page_name(next).is_some());
            match [", ", " and "].iter().find(goes_on) {
                Some(joint) if self.refused.is_none() => self.at += joint.len(),
                _ => return,
            }
        }
    }

    fn sections(&mut self) -> Vec<(Number, Number)> {
        let mut sections: Vec<(Number, Number)> = Vec::new();
        let mut is_range = false;
        loop {
            let begin = self.at;
            let number = if self.take("§") { self.number() } else { Number::new() };
            if number.is_empty() {
                self.refused = Some((begin, "no number after `§`"));
                return sections;
            }
            match sections.last_mut() {
                Some(last) if is_range => last.1 = number,
                _ => sections.push((number.clone(), number)),
            }
            is_range = self.rest().starts_with(" to §");
            match [", ", " and ", " to "].iter().find(|joint| self.rest().starts_with(&format!("{joint}§"))) {
                Some(joint) => self.at += joint.len(),
                None => break,
            }
        }
        for joint in [", ", " and ", " to ", " or ", "-", "–", "/"] {
            self.refuse_digit(joint, "write §1, §2 or §1 to §3, with `§` at each number");
        }
        sections
    }

    /// Refuses a number after this joint, which would otherwise not be read.
    fn refuse_digit(&mut self, joint: &str, why: &'static str) {
        let next = self.rest().strip_prefix(joint);
        if next.is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit() || c == '§')) {
            self.refused = Some((self.at, why));
        }
    }

    fn number(&mut self) -> Number {
        let rest = self.rest();
        let length = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number = rest[..length].trim_end_matches('.');
        let parsed = number.split('.').map(str::parse).collect::<Result<Number, _>>().unwrap_or_default();
        self.at += number.len();
        parsed
    }
}

/// The number as text.
pub(crate) fn written(number: &[u32]) -> String {
    number.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[test]
fn all_forms_of_a_citation_are_read() {
    let read = |text: &str| {
        let text = Text::new("src/x.rs", text);
        let (found, refused) = citations(&text.flat, None);
        assert_eq!(refused, [], "{}", text.flat);
        let parts = |citation: &Citation| {
            let sections =
                citation.sections.iter().map(|(first, last)| format!(" {}-{}", written(first), written(last)));
            citation.page.clone() + &sections.collect::<String>()
        };
        found.iter().map(parts).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(read("//! Read (spec `acs.md`)."), "acs.md");
    assert_eq!(read("//! Read (spec `acs.md` §4.2)."), "acs.md 4.2-4.2");
    assert_eq!(read("/// As in spec `acs.md` §4.2."), "acs.md 4.2-4.2");
    assert_eq!(read("/// (spec `acs.md` §1, §2.3 and §4, and more)"), "acs.md 1-1 2.3-2.3 4-4");
    assert_eq!(read("/// spec `acs.md` §1 to §3, §6"), "acs.md 1-3 6-6");
    assert_eq!(read("//! (spec `acs.md` §4,\n//! `ecs-api.md` §3 and `tcs.md`)"), "acs.md 4-4; ecs-api.md 3-3; tcs.md");
    assert_eq!(read("    // Source: spec\n    // `acs.md` §4. See `other.md`."), "acs.md 4-4");
    assert_eq!(read("# RFC 6455 §5.2 and spec `acs.md` §2"), "acs.md 2-2");
    let patch = Text::new("x.patch", "+    // (spec\n     // `acs.md` §2)");
    assert_eq!(citations(&patch.flat, None).0.len(), 1);
    let own = citations("see §3, `tcs.md` §2 and §1.4.", Some("acs.md")).0;
    assert_eq!(own.iter().map(|citation| citation.page.as_str()).collect::<Vec<_>>(), ["acs.md", "tcs.md"]);
}

#[test]
fn misspelt_citations_are_refused() {
    let wrong = [
        "(§2.3)",
        "of `acs.md` §15",
        "(acs.md §6)",
        "spec `acs.md`, §6",
        "spec acs.md §6",
        "spec `acs.md` § 6",
        "spec `acs.md` §2, 3",
        "spec `acs.md` §2-4",
        "spec `acs.md` §2–§4",
        "spec `acs.md` §2/§4",
        "spec `acs.md` §2 to 4",
        "spec `acs.md` 57",
        "RFC 6455, §5.2",
    ];
    for text in wrong {
        assert_ne!(citations(text, None).1, [], "{text}");
    }
}
