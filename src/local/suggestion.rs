//! Finds the name that a person probably meant. This module owns the measure of likeness. Invariant: a name that is too different
//! is not suggested.

/// ` Did you mean …?` for a wrong name, with a leading space; empty if no candidate is close.
pub(super) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(given, candidates).map(|name| format!(" Did you mean `{name}`?")).unwrap_or_default()
}

/// The candidate that is closest to a wrong name; `None` if none is close.
fn closest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = plain(given);
    let limit = (given.chars().count() / 3).clamp(1, 4);
    let rated = candidates.into_iter().map(|name| {
        let plain = plain(name);
        let is_beginning = given.len() >= 4 && plain.starts_with(&given);
        (if is_beginning { 1 } else { strsim::osa_distance(&given, &plain) }, name)
    });
    rated.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The letters and digits of a name in lower case, so that `container_definitions` is `containerDefinitions`.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_name_is_suggested_and_no_other() {
        let names = ["memory", "memoryReservation", "essential", "containerDefinitions", "cpu"];
        for (given, wanted) in [
            ("memroy", " Did you mean `memory`?"),
            ("Memory", " Did you mean `memory`?"),
            ("esential", " Did you mean `essential`?"),
            ("container_definitions", " Did you mean `containerDefinitions`?"),
            ("memReservation", " Did you mean `memoryReservation`?"),
            ("cup", " Did you mean `cpu`?"),
            ("container", " Did you mean `containerDefinitions`?"),
            ("replicas", ""),
            ("", ""),
        ] {
            assert_eq!(did_you_mean(given, names), wanted, "{given}");
        }
    }
}
