//! Names that ECS accepts: of clusters, regions and log drivers, and of attributes and tags of a container instance.
//!
//! This module owns the rules of the ECS API (`RegisterContainerInstance`, `PutAttributes`, `TagResource`), so that a name that ECS
//! refuses is reported with its variable before ECS is asked. Pure functions over texts. Invariant: what ECS accepts passes; where
//! its documentation is silent, so does everything.

use super::quoting::without_comment;
use super::suggest::closest;

/// The cluster of an agent without `ECS_CLUSTER`.
pub(super) const DEFAULT_CLUSTER: &str = "default";

/// The log drivers that ECS knows, and the log router, which is accepted among them.
pub(super) const LOG_DRIVERS: [&str; 11] = [
    "json-file",
    "syslog",
    "journald",
    "gelf",
    "fluentd",
    "awslogs",
    "splunk",
    "logentries",
    "sumologic",
    "none",
    "awsfirelens",
];

/// The capabilities of the volume plugin that tasks can ask for.
pub(super) const PLUGIN_CAPABILITIES: [&str; 1] = ["efsAuth"];

/// The expected form of a cluster.
pub(super) const CLUSTER: &str = "a cluster name (1 to 255 letters, digits, - and _) or the ARN of a cluster";
/// The expected form of an attribute.
pub(super) const ATTRIBUTE: &str = "at most 10 attributes; names of 1 to 128 letters, digits, - _ . / \\; values of at most 128 of these, @ : and inner blanks";
/// The expected form of a tag.
pub(super) const TAG: &str = "at most 50 tags; keys of 1 to 128 and values of at most 256 letters, digits, blanks, + - = . _ : / @, not beginning with aws:";

const MAX_CLUSTER: usize = 255;
const MAX_REGION: usize = 32;
const MAX_ATTRIBUTES: usize = 10;
const MAX_ATTRIBUTE: usize = 128;
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;
/// How many refused attributes or tags are named.
const MAX_REFUSED: usize = 5;

/// ECS accepts the text as a cluster: a name, or an ARN.
pub(super) fn is_cluster(text: &str) -> bool {
    let is_name = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_CLUSTER).contains(&name.len()) && name.bytes().all(fits)
    };
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts[..] {
        ["arn", partition, "ecs", region, account, resource] => {
            let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            let name = resource.strip_prefix("cluster/");
            partition.starts_with("aws") && !region.is_empty() && is_account && name.is_some_and(is_name)
        }
        _ => is_name(text),
    }
}

/// The text has the form of a region's name: words, and a number at the end, such as `us-gov-west-1`. AWS has new ones from time
/// to time, so there is no list of them.
pub(super) fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= MAX_REGION && is_number && words.contains('-') && words.split('-').all(is_word)
}

/// The region that was meant, if the text has the form of one but a typing error in its direction, such as `us-wset-2`: all regions
/// so far have a direction before their number.
pub(super) fn meant_region(text: &str) -> Option<String> {
    const DIRECTIONS: [&str; 9] =
        ["central", "east", "north", "northeast", "northwest", "south", "southeast", "southwest", "west"];
    let (start, number) = text.rsplit_once('-')?;
    let (start, direction) = start.rsplit_once('-')?;
    let meant = closest(direction, DIRECTIONS.into_iter()).filter(|meant| *meant != direction)?;
    is_region(text).then(|| format!("{start}-{meant}-{number}"))
}

/// The known word that was meant; `None`: none is close. Case does not matter.
pub(super) fn meant_word(word: &str, known: &[&'static str]) -> Option<&'static str> {
    const MAX_WORD: usize = 40;
    if word.len() > MAX_WORD {
        return None;
    }
    let same = known.iter().copied().find(|known| known.eq_ignore_ascii_case(word));
    same.or_else(|| closest(word, known.iter().copied()))
}

/// A word for a message, with the known word that was meant.
type Unknown = (String, Option<&'static str>);

/// The members of a list that are not known words. Of a text that is no word, such as a secret in the wrong place, only the number
/// is shown. At most [`MAX_UNKNOWN`] of them.
pub(super) fn unknown_words(list: &[String], known: &[&'static str]) -> Vec<Unknown> {
    let is_unknown = |(_, word): &(usize, &String)| !known.contains(&word.as_str());
    let described = |(number, word): (usize, &String)| {
        let meant = meant_word(word.trim(), known);
        let is_shown = meant.is_some() || is_word(word);
        (if is_shown { format!("`{word}`") } else { format!("number {number} of the list") }, meant)
    };
    (1..).zip(list).filter(is_unknown).map(described).take(MAX_UNKNOWN).collect()
}

const MAX_UNKNOWN: usize = 5;

/// The text looks like the name of a driver or a plugin, such as `local`: few small letters, and separators between them. Passwords
/// and keys of AWS have capital letters or digits.
fn is_word(text: &str) -> bool {
    const MAX_LENGTH: usize = 40;
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    text.len() <= MAX_LENGTH && text.split(['-', '_', '.', '/', ':']).all(is_part)
}

/// Why a text is not accepted as a cluster, after its value; empty if the value says it.
pub(super) fn not_a_cluster(text: &str) -> &'static str {
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        ", with a control character"
    } else if text.contains(['$', '`']) {
        ", and nothing is expanded here"
    } else if without_comment(text).is_some() {
        ", and a comment needs a line of its own"
    } else if text.contains(char::is_whitespace) {
        ", with a blank"
    } else {
        ""
    }
}

/// What ECS refuses of these attributes, in words; `None`: nothing.
pub(super) fn refused_attributes<'a>(attributes: impl Iterator<Item = (&'a String, &'a String)>) -> Option<String> {
    let is_name = |c: char| c.is_alphanumeric() || "-_./\\".contains(c);
    let is_value = |c: char| is_name(c) || "@: ".contains(c);
    let refused = |name: &str, value: &str| {
        if name.is_empty() || name.chars().count() > MAX_ATTRIBUTE || !name.chars().all(is_name) {
            return Some(format!("the name {}", quoted(name)));
        }
        let is_padded = value.trim() != value;
        let is_refused = value.chars().count() > MAX_ATTRIBUTE || is_padded || !value.chars().all(is_value);
        is_refused.then(|| format!("the value of {}", quoted(name)))
    };
    all_refused(attributes, refused, MAX_ATTRIBUTES, "attributes")
}

/// What ECS refuses of these tags, in words; `None`: nothing.
pub(super) fn refused_tags<'a>(tags: impl Iterator<Item = (&'a String, &'a String)>) -> Option<String> {
    let fits = |text: &str, max: usize| {
        text.chars().count() <= max
            && text
                .chars()
                .all(|c| c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "+-=._:/@".contains(c))
            && !text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
    };
    let refused = |key: &str, value: &str| {
        if key.is_empty() || !fits(key, MAX_TAG_KEY) {
            return Some(format!("the key {}", quoted(key)));
        }
        (!fits(value, MAX_TAG_VALUE)).then(|| format!("the value of {}", quoted(key)))
    };
    all_refused(tags, refused, MAX_TAGS, "tags")
}

/// All refused pairs, and their number if it is above `max`.
fn all_refused<'a>(
    pairs: impl Iterator<Item = (&'a String, &'a String)>,
    refused: impl Fn(&str, &str) -> Option<String>,
    max: usize,
    what: &str,
) -> Option<String> {
    let (mut count, mut found) = (0, Vec::new());
    for (name, value) in pairs {
        count += 1;
        found.extend(refused(name, value));
    }
    let others = found.len().saturating_sub(MAX_REFUSED);
    found.truncate(MAX_REFUSED);
    if others > 0 {
        found.push(format!("{others} more"));
    }
    if count > max {
        found.insert(0, format!("{count} {what}"));
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// A name in a message.
fn quoted(name: &str) -> String {
    let length = name.chars().count();
    if length > 60 { format!("of {length} characters") } else { format!("`{name}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_that_ecs_accepts() {
        let arn = |name: &str| format!("arn:aws:ecs:us-west-2:123456789012:cluster/{name}");
        for (text, accepted) in [
            ("default".to_owned(), true),
            ("Prod_1-a".to_owned(), true),
            ("x".to_owned(), true),
            ("x".repeat(255), true),
            ("x".repeat(256), false),
            (arn("prod"), true),
            (arn("prod").replace("aws", "aws-us-gov"), true),
            (arn(&"x".repeat(255)), true),
            (arn(&"x".repeat(256)), false),
            (arn(""), false),
            (arn("a/b"), false),
            (arn("prod").replace("cluster/", "service/"), false),
            (arn("prod").replace("123456789012", "1234"), false),
            (arn("prod").replace(":ecs:", ":ec2:"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_cluster(&text), accepted, "{text}");
        }
        for refused in
            ["\"a\"", "'a'", "a b", " a", "a # b", "$A", "${A}", "$(a)", "`a`", "a\0", "a.b", "a/b", "gr\u{fc}n", "{a}"]
        {
            assert!(!is_cluster(refused), "{refused}");
        }
    }

    #[test]
    fn regions_have_a_form() {
        for region in
            ["eu-west-1", "us-gov-west-1", "cn-north-1", "us-isob-east-1", "eusc-de-east-1", "ap-southeast-12"]
        {
            assert!(is_region(region), "{region}");
        }
        for other in
            ["", "eu-west-1a", "\"eu-west-1\"", "EU-WEST-1", "eu-west", "west-1", "eu--1", "-a-1", "frankfurt", "1"]
        {
            assert!(!is_region(other), "{other}");
        }
        assert!(!is_region(&format!("{}-1", "a-".repeat(40))));
        for (text, meant) in [
            ("us-wset-2", Some("us-west-2")),
            ("ap-notheast-1", Some("ap-northeast-1")),
            ("us-gov-eas-1", Some("us-gov-east-1")),
            ("xy-new-9", None),
            ("us-west-2", None),
            ("cn-northwest-1", None),
            ("us-wset-2a", None),
        ] {
            assert_eq!(meant_region(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn only_what_looks_like_a_name_is_shown() {
        let unknown = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            unknown_words(&list, &LOG_DRIVERS)
        };
        let word = |shown: &str, meant| (shown.to_owned(), meant);
        assert_eq!(unknown(&["json-file", "awslogs"]), []);
        assert_eq!(unknown(&["json-file", "awslog"]), [word("`awslog`", Some("awslogs"))]);
        assert_eq!(unknown(&["AWSLOGS"]), [word("`AWSLOGS`", Some("awslogs"))]);
        assert_eq!(unknown(&["local", "none", "loki"]), [word("`local`", None), word("`loki`", None)]);
        let plugin = "grafana/loki-docker-driver:latest";
        assert_eq!(unknown(&[plugin]), [word(&format!("`{plugin}`"), None)]);
        assert_eq!(unknown(&[&plugin.repeat(2)]), [word("number 1 of the list", None)], "it is too long");
        assert_eq!(unknown(&["none", "hunter2"]), [word("number 2 of the list", None)]);
        assert_eq!(unknown(&["", "Local", "a b", "local\n"]).len(), 4);
        assert_eq!(unknown(&["x"; 100]).len(), MAX_UNKNOWN);
        assert_eq!(meant_word("efsauth", &PLUGIN_CAPABILITIES), Some("efsAuth"));
        assert_eq!(meant_word(&"efsAuth".repeat(1000), &PLUGIN_CAPABILITIES), None);
    }

    #[test]
    fn a_refused_cluster_comes_with_the_reason() {
        for (text, reason) in [
            ("prod # main", "a comment needs a line of its own"),
            ("prod\t#main", "a comment needs a line of its own"),
            ("$(hostname)", "nothing is expanded here"),
            ("${A}", "nothing is expanded here"),
            ("`id`", "nothing is expanded here"),
            ("a\0b", "a control character"),
            ("a\u{1b}b", "a control character"),
            ("my cluster", "a blank"),
            ("a#b", ""),
            ("a.b", ""),
        ] {
            let found = not_a_cluster(text);
            assert!(found.ends_with(reason) && found.is_empty() == reason.is_empty(), "{text}: {found}");
        }
    }

    /// Each limit at and beyond its end.
    #[test]
    fn attributes_and_tags_that_ecs_refuses() {
        let long = |length: usize| "x".repeat(length);
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let many = |count: usize| (0..count).map(|n| (format!("n{n}"), String::new())).collect::<Vec<_>>();
        let table = [
            // (pairs, refused as attributes, refused as tags)
            (pair("stack.a/b\\c_d-1", "a@b:c d"), None, Some("the key `stack.a/b\\c_d-1`")),
            (pair("a", ""), None, None),
            (pair("", "a"), Some("the name ``"), Some("the key ``")),
            (pair("a b", "c"), Some("the name `a b`"), None),
            (pair("a:b", "c"), Some("the name `a:b`"), None),
            (pair("a", " c"), Some("the value of `a`"), None),
            (pair("a", "c+d"), Some("the value of `a`"), None),
            (pair("a", "c#d"), Some("the value of `a`"), Some("the value of `a`")),
            (pair("AWS:x", "c"), Some("the name `AWS:x`"), Some("the key `AWS:x`")),
            (pair("a", "aWs:x"), None, Some("the value of `a`")),
            (pair("aws", "aws"), None, None),
            (pair(&long(128), &long(128)), None, None),
            (pair(&long(129), "a"), Some("the name of 129 characters"), Some("the key of 129 characters")),
            (pair("a", &long(129)), Some("the value of `a`"), None),
            (pair("a", &long(256)), Some("the value of `a`"), None),
            (pair("a", &long(257)), Some("the value of `a`"), Some("the value of `a`")),
            (many(10), None, None),
            (many(11), Some("11 attributes"), None),
            (many(50), Some("50 attributes"), None),
            (many(51), Some("51 attributes"), Some("51 tags")),
            (many(0), None, None),
            (
                [pair("a b", "c"), pair("aws:x", "y"), pair("ok", "#")].concat(),
                Some("the name `a b`, the name `aws:x`, the value of `ok`"),
                Some("the key `aws:x`, the value of `ok`"),
            ),
            (
                "abcdefg".chars().map(|c| (c.to_string(), "#".to_owned())).collect(),
                Some(
                    "the value of `a`, the value of `b`, the value of `c`, the value of `d`, the value of `e`, 2 more",
                ),
                Some(
                    "the value of `a`, the value of `b`, the value of `c`, the value of `d`, the value of `e`, 2 more",
                ),
            ),
        ];
        for (pairs, attribute, tag) in table {
            let pairs = || pairs.iter().map(|(name, value)| (name, value));
            assert_eq!(refused_attributes(pairs()).as_deref(), attribute, "{:?}", pairs().next());
            assert_eq!(refused_tags(pairs()).as_deref(), tag, "{:?}", pairs().next());
        }
    }
}
