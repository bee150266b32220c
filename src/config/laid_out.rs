//! One finding for each setting whose JSON is laid out over several lines: what happened, and what to do.

use super::continued::Continued;
use super::keys::find;
use super::problem::{Problem, Severity};
use super::source::{LINE_IGNORED, Source};

/// Says of each such setting, in one finding, what happened and what to do.
pub(super) fn report(sources: &[&dyn Source], settled: &[&str], problems: &mut Vec<Problem>) {
    for Continued { place, variable, last } in sources.iter().flat_map(|source| source.continued()) {
        // Of a setting without effect, it need not be said how to write it.
        if settled.contains(&place.as_str()) {
            continue;
        }
        let shape = format!("JSON that goes on to line {last}, and a value ends with its line");
        let mut about = problems.iter_mut().filter(|problem| problem.place == *place);
        let Some(problem) = about.next() else {
            let expected = find(variable).map_or_else(|| "it".to_owned(), |key| key.kind.expected());
            problems.push(Problem {
                variable: (*variable).to_owned(),
                place: place.clone(),
                shape,
                expected: format!("{expected}{ON_ONE_LINE}"),
                instead: "only what its own line holds is used".to_owned(),
                severity: Severity::Changes,
            });
            continue;
        };
        let is_about_value = problem.variable == *variable && problem.instead != LINE_IGNORED;
        problem.shape = if is_about_value { shape } else { format!("{}; {shape}", problem.shape) };
        problem.expected.push_str(ON_ONE_LINE);
    }
}

/// What is expected of such JSON.
const ON_ONE_LINE: &str = ", all on one line (`jq -c .` prints JSON so)";
