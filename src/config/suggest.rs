//! Suggestions for misspelt names: the known name that an unknown one was probably meant to be.
//!
//! This module compares texts. It knows no variables, flags or sources. Invariant: a name that is far from all known ones gets no
//! suggestion.

/// The end of a sentence that suggests a name or a value.
pub(super) fn did_you_mean(name: impl std::fmt::Display) -> String {
    format!("; did you mean {name}?")
}

/// The name for which a short word of a command line was probably meant: a few edits away in any case, or the only one that
/// begins with the word.
pub(super) fn completed(word: &str, known: &[&'static str]) -> Option<&'static str> {
    const MIN_LENGTH: usize = 3;
    const MAX_LENGTH: usize = 40;
    let word = word.to_ascii_lowercase();
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&word.len()) {
        return None;
    }
    let mut longer = known.iter().copied().filter(|name| name.starts_with(&word));
    match (longer.next(), longer.next()) {
        (Some(name), None) => Some(name),
        // There are few words to choose from, so a second typing error leaves no doubt in all but a short word.
        _ => nearest(&word, known.iter().copied(), (1 + word.len() / 8).max(word.len() / 3)),
    }
}

/// The known name with the fewest edits, if there are few enough for a typing error.
pub(super) fn closest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    nearest(name, known, 1 + name.len() / 8)
}

/// The known word with which a longer word begins, such as `warn` for `warning`. Another known word that has more letters in common
/// with its beginning takes precedence: `dockerconfig` is `dockercfg` rather than `docker`.
pub(super) fn begun_by(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let word = letters(word);
    let in_common = |known: &str| letters(known).bytes().zip(word.bytes()).take_while(|(a, b)| a == b).count();
    let is_beginning = |known: &str| in_common(known) == letters(known).len();
    if !known.iter().any(|known| is_beginning(known)) {
        return None;
    }
    known.iter().copied().max_by_key(|known| (in_common(known), is_beginning(known)))
}

/// Of two names that are equally far away, the first in the alphabet.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>, max_edits: usize) -> Option<&'static str> {
    let (distance, known) = known.map(|known| (strsim::osa_distance(name, known), known)).min()?;
    (distance <= max_edits).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;

    #[test]
    fn typing_errors_are_recognised_and_other_names_are_not() {
        for (name, known) in [
            ("ECS_CLUSTR", Some("ECS_CLUSTER")),
            ("ECS_CLUSTRE", Some("ECS_CLUSTER")),
            ("ECS_CLUSTER_", Some("ECS_CLUSTER")),
            ("ECS_DATA_DIR", Some("ECS_DATADIR")),
            ("ECS_LOG_LEVEL", Some("ECS_LOGLEVEL")),
            ("ECS_ENGINE_AUTHDATA", Some("ECS_ENGINE_AUTH_DATA")),
            ("ECS_IMAGE_PULL_BEHAVIOUR", Some("ECS_IMAGE_PULL_BEHAVIOR")),
            ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGES", Some("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE")),
            ("ECS_COFFEE_MACHINE", None),
            ("ECS_", None),
        ] {
            assert_eq!(closest(name, KEYS.iter().map(|key| key.name)), known, "{name}");
        }
    }

    #[test]
    fn a_longer_word_begins_with_a_known_word() {
        let known = ["docker", "dockercfg", "warn"];
        for (word, meant) in [
            ("warning", Some("warn")),
            ("dockerhub", Some("docker")),
            ("docker_auth", Some("docker")),
            ("dockerconfig", Some("dockercfg")),
            ("docker-config.json", Some("dockercfg")),
            ("dock", None),
            ("podman", None),
            ("", None),
        ] {
            assert_eq!(begun_by(word, &known), meant, "{word}");
        }
    }

    #[test]
    fn words_of_a_command_line_are_completed() {
        let known = ["version", "check-config", "config-reference", "completion"];
        for (word, meant) in [
            ("verison", Some("version")),
            ("VERSION", Some("version")),
            ("vershun", Some("version")),
            ("nothing", None),
            ("check", Some("check-config")),
            ("chekconfig", Some("check-config")),
            ("co", None),
            ("com", Some("completion")),
            ("con", Some("config-reference")),
            ("start", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(completed(word, &known), meant, "{word}");
        }
        assert_eq!(completed(&"version".repeat(1000), &known), None);
    }
}
