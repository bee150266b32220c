//! What the rules of a lifecycle policy expire, as AWS documents it: all rules look at all images; then, lowest priority number
//! first, a rule expires the images that no earlier rule is about. Invariant: an image is expired by at most one rule, and one
//! that an index needs by none.

use super::document::{Limit, Rule, TagSelection};
use crate::ecr::policy::is_match;
use std::collections::BTreeSet;

/// A day in seconds.
const DAY: f64 = 24.0 * 3600.0;

/// An image, as rules look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) tags: &'a BTreeSet<String>,
    /// When it was pushed, in seconds since the epoch.
    pub(crate) pushed_at: f64,
}

/// The images to expire at `now`, oldest first: for each its index, and the priority of its rule. Images that an index needs are
/// not among the candidates.
pub(crate) fn evaluate(rules: &[Rule], images: &[Candidate<'_>], now: f64) -> Vec<(usize, u64)> {
    let mut youngest: Vec<usize> = (0..images.len()).collect();
    youngest.sort_by(|a, b| images[*b].pushed_at.total_cmp(&images[*a].pushed_at));
    // Images that the tags of an earlier rule select: later rules do not expire them, though they count them.
    let mut is_seen = vec![false; images.len()];
    let mut expired = Vec::new();
    for rule in rules {
        let selected: Vec<usize> = youngest.iter().copied().filter(|at| rule.tags.selects(images[*at].tags)).collect();
        let marked = selected
            .iter()
            .enumerate()
            .filter(|(number, at)| rule.limit.exceeds(*number, now - images[**at].pushed_at));
        expired.extend(marked.map(|(_, at)| *at).filter(|at| !is_seen[*at]).map(|at| (at, rule.priority)));
        selected.iter().for_each(|at| is_seen[*at] = true);
    }
    expired.sort_by(|(a, _), (b, _)| images[*a].pushed_at.total_cmp(&images[*b].pushed_at));
    expired
}

impl TagSelection {
    fn selects(&self, tags: &BTreeSet<String>) -> bool {
        match self {
            Self::Any => true,
            Self::Untagged => tags.is_empty(),
            Self::Tagged(patterns) => {
                !tags.is_empty() && patterns.iter().all(|pattern| tags.iter().any(|tag| is_match(pattern, tag)))
            }
        }
    }
}

impl Limit {
    /// An image of this age in seconds, before which there are `number` younger ones, is too many or too old.
    fn exceeds(self, number: usize, age: f64) -> bool {
        match self {
            Self::Count(max) => number as u64 >= max,
            Self::Days(days) => age > days as f64 * DAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule in short: selection, then limit.
    fn rule(priority: u64, selection: &str, limit: Limit) -> Rule {
        let tags = match selection {
            "any" => TagSelection::Any,
            "untagged" => TagSelection::Untagged,
            patterns => TagSelection::Tagged(patterns.split(' ').map(str::to_owned).collect()),
        };
        Rule { priority, tags, limit }
    }

    /// The expired images with their rules, such as `A1 B2`. Images are called A, B and so on; each has its tags and its age in
    /// days.
    fn expired(images: &[(&str, u32)], rules: &[Rule]) -> String {
        let now = 1000.0 * DAY;
        let tags: Vec<BTreeSet<String>> =
            images.iter().map(|(tags, _)| tags.split_whitespace().map(str::to_owned).collect()).collect();
        let candidates: Vec<Candidate<'_>> = images
            .iter()
            .zip(&tags)
            .map(|((_, age), tags)| Candidate { tags, pushed_at: now - f64::from(*age) * DAY })
            .collect();
        let name = |at: usize| char::from(b'A' + u8::try_from(at).unwrap());
        let found = evaluate(rules, &candidates, now);
        found.iter().map(|(at, rule)| format!("{}{rule}", name(*at))).collect::<Vec<_>>().join(" ")
    }

    /// The examples of AWS's user guide: "Filtering on multiple rules", A and B.
    #[test]
    fn examples_with_several_rules() {
        let images = [("beta-1 prod-1", 10), ("beta-2 prod-2", 9), ("beta-3", 8)];
        let (prod, beta) =
            (|priority| rule(priority, "prod*", Limit::Count(1)), |priority| rule(priority, "beta*", Limit::Count(1)));
        assert_eq!(expired(&images, &[prod(1), beta(2)]), "A1");
        assert_eq!(expired(&images, &[beta(1), prod(2)]), "A1 B1");
    }

    /// The examples of AWS's user guide: "Filtering on multiple tags in a single rule", A and B.
    #[test]
    fn examples_with_several_tags() {
        let images = [
            ("alpha-1", 12),
            ("beta-1", 11),
            ("alpha-2 beta-2", 10),
            ("alpha-3", 4),
            ("beta-3", 3),
            ("alpha-4 beta-4", 2),
        ];
        assert_eq!(expired(&images, &[rule(1, "alpha* beta*", Limit::Days(5))]), "C1");
        let images = [("alpha-1 beta-1 gamma-1", 10), ("alpha-2 beta-2", 9), ("alpha-3 beta-3 gamma-2", 8)];
        assert_eq!(expired(&images, &[rule(1, "alpha* beta*", Limit::Count(1))]), "A1 B1");
    }

    /// The examples of AWS's user guide: "Filtering on image age" and "… on image count", and rules for all images.
    #[test]
    fn examples_of_age_number_and_all_images() {
        for (images, rules, wanted) in [
            (&[("", 15), ("", 14), ("", 13), ("x", 20)][..], vec![rule(1, "untagged", Limit::Days(14))], "A1"),
            (&[("prod1", 15), ("prod", 3), ("dev", 15)], vec![rule(1, "prod*", Limit::Days(14))], "A1"),
            (&[("", 3), ("", 2), ("x", 1)], vec![rule(1, "untagged", Limit::Count(1))], "A1"),
            (
                &[("alpha-1", 4), ("beta-1", 3), ("", 2), ("alpha-2", 1)],
                vec![rule(1, "any", Limit::Count(1))],
                "A1 B1 C1",
            ),
            // The rule for all images counts those that an earlier rule is about, but does not expire them.
            (
                &[("alpha-1", 4), ("beta-1", 3), ("", 2), ("alpha-2", 1)],
                vec![rule(1, "alpha*", Limit::Count(1)), rule(2, "any", Limit::Count(1))],
                "A1 B2 C2",
            ),
            (
                &[("alpha-1", 4), ("beta-1", 3), ("", 2), ("alpha-2", 1)],
                vec![
                    rule(1, "alpha*", Limit::Count(2)),
                    rule(2, "untagged", Limit::Days(9)),
                    rule(3, "any", Limit::Count(1)),
                ],
                "B3",
            ),
        ] {
            assert_eq!(expired(images, &rules), wanted);
        }
    }

    #[test]
    fn patterns_match_anywhere_in_a_tag() {
        let images = [("v1.2-release", 9), ("v1.2", 8), ("release", 7)];
        assert_eq!(expired(&images, &[rule(1, "v*-release", Limit::Days(1))]), "A1");
        assert_eq!(expired(&images, &[rule(1, "*release", Limit::Days(1))]), "A1 C1");
    }

    #[test]
    fn an_image_of_the_future_is_not_old() {
        let tags = BTreeSet::new();
        let candidates = [Candidate { tags: &tags, pushed_at: 10.0 * DAY }];
        assert!(evaluate(&[rule(1, "any", Limit::Days(1))], &candidates, 0.0).is_empty());
        assert!(evaluate(&[rule(1, "any", Limit::Days(u64::MAX))], &candidates, 1e9 * DAY).is_empty());
    }
}
