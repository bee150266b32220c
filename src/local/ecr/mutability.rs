//! Which tags of a repository may be moved to another image.

use super::error::EcrError;
use super::policy::is_match;

/// Maximum number of filters, as in ECR.
const MAX_FILTERS: usize = 5;
/// The longest filter, in bytes, as in ECR.
const MAX_FILTER: usize = 128;
/// Maximum number of wildcards in a filter, as in ECR.
const MAX_WILDCARDS: usize = 2;

/// Which tags may be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutability {
    is_mutable: bool,
    /// Tags for which it is the other way round: patterns with `*`.
    filters: Vec<String>,
}

impl Default for Mutability {
    /// All tags may be moved.
    fn default() -> Self {
        Self { is_mutable: true, filters: Vec::new() }
    }
}

impl Mutability {
    /// Reads a setting of ECR, such as `IMMUTABLE`, and its filters.
    ///
    /// # Errors
    /// When the setting is unknown, or the filters do not belong to it.
    pub(crate) fn new(name: &str, filters: Vec<String>) -> Result<Self, EcrError> {
        let (is_mutable, has_filters) = match name {
            "MUTABLE" => (true, false),
            "IMMUTABLE" => (false, false),
            "MUTABLE_WITH_EXCLUSION" => (true, true),
            "IMMUTABLE_WITH_EXCLUSION" => (false, true),
            _ => {
                let constraint = "Member must satisfy enum value set: [IMMUTABLE, MUTABLE, MUTABLE_WITH_EXCLUSION, IMMUTABLE_WITH_EXCLUSION]";
                return Err(EcrError::invalid("imageTagMutability", constraint));
            }
        };
        let wrong = |constraint: String| Err(EcrError::invalid("imageTagMutabilityExclusionFilters", constraint));
        if filters.is_empty() == has_filters {
            let not = if has_filters { "can't be null" } else { "must be null" };
            return wrong(format!("ImageTagMutabilityExclusionFilters {not} when imageTagMutability is set as {name}"));
        }
        if filters.len() > MAX_FILTERS {
            return wrong(format!("Member must have length less than or equal to {MAX_FILTERS}"));
        }
        let is_letter = |c: u8| c.is_ascii_alphanumeric() || b"._*-".contains(&c);
        let is_filter = |filter: &String| {
            (1..=MAX_FILTER).contains(&filter.len())
                && filter.bytes().all(is_letter)
                && filter.matches('*').count() <= MAX_WILDCARDS
        };
        match filters.iter().all(is_filter) {
            true => Ok(Self { is_mutable, filters }),
            false => wrong(format!(
                "Member must satisfy regular expression pattern: ^[0-9a-zA-Z._*-]{{1,{MAX_FILTER}}}$, with at most {MAX_WILDCARDS} wildcards"
            )),
        }
    }

    /// The setting as ECR names it.
    pub(crate) fn name(&self) -> &'static str {
        match (self.is_mutable, self.filters.is_empty()) {
            (true, true) => "MUTABLE",
            (false, true) => "IMMUTABLE",
            (true, false) => "MUTABLE_WITH_EXCLUSION",
            (false, false) => "IMMUTABLE_WITH_EXCLUSION",
        }
    }

    /// The patterns of the tags for which it is the other way round.
    pub(crate) fn filters(&self) -> &[String] {
        &self.filters
    }

    /// This tag may be moved.
    pub(crate) fn may_move(&self, tag: &str) -> bool {
        self.is_mutable != self.filters.iter().any(|filter| is_match(filter, tag))
    }

    /// Tags that may not be moved are so because of a filter.
    pub(crate) fn is_by_filter(&self) -> bool {
        self.is_mutable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_exceptions() {
        let filters = || vec!["latest".to_owned(), "dev-*".to_owned()];
        for (name, filters, movable, fixed) in [
            ("MUTABLE", vec![], &["latest", "1.0"][..], &[][..]),
            ("IMMUTABLE", vec![], &[], &["latest", "1.0"]),
            ("IMMUTABLE_WITH_EXCLUSION", filters(), &["latest", "dev-1"], &["1.0", "dev"]),
            ("MUTABLE_WITH_EXCLUSION", filters(), &["1.0"], &["latest", "dev-2"]),
        ] {
            let mutability = Mutability::new(name, filters).unwrap();
            assert_eq!(mutability.name(), name);
            assert!(movable.iter().all(|tag| mutability.may_move(tag)), "{name}");
            assert!(!fixed.iter().any(|tag| mutability.may_move(tag)), "{name}");
        }
    }

    #[test]
    fn settings_and_filters_belong_together() {
        let text = |filter: &str, count: usize| vec![filter.to_owned(); count];
        for (name, filters) in [
            ("mutable", vec![]),
            ("IMMUTABLE", text("a", 1)),
            ("IMMUTABLE_WITH_EXCLUSION", vec![]),
            ("IMMUTABLE_WITH_EXCLUSION", text("a", 6)),
            ("MUTABLE_WITH_EXCLUSION", text("a/b", 1)),
            ("MUTABLE_WITH_EXCLUSION", text("a*b*c*", 1)),
            ("MUTABLE_WITH_EXCLUSION", text("", 1)),
            ("MUTABLE_WITH_EXCLUSION", text(&"a".repeat(129), 1)),
        ] {
            assert_eq!(Mutability::new(name, filters).unwrap_err().code(), "InvalidParameterException", "{name}");
        }
    }
}
