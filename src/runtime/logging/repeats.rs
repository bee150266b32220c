//! Limits repeated log lines.
//!
//! Owns the counts of the current second, for each place in the program that logs. Invariant: every line that is left out is
//! counted, and the count is logged within about a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::Level;

/// Upper limit of equal lines per second from one place.
const MAX_SAME: u32 = 5;
/// Upper limit of different lines per second from one place.
const MAX_DIFFERENT: u32 = 1000;
/// Number of different lines that are remembered for a place at a time.
const DISTINCT: usize = 8;
const WINDOW: Duration = Duration::from_secs(1);
/// Upper limit, in bytes, of the example that is logged with the count.
const EXAMPLE: usize = 240;

/// The counts of all places that have logged within the last second.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    places: HashMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    ends: Instant,
    lines: u32,
    /// Hashes of recent lines, each with its number of occurrences.
    recent: Vec<(u64, u32)>,
    left_out: Option<LeftOut>,
}

/// The lines of one place that were left out within one second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The level of the first line that was left out.
    pub(super) level: Level,
    /// The target (the module) of these lines.
    pub(super) target: String,
    /// Number of lines that were left out.
    pub(super) count: u64,
    /// The beginning of the first line that was left out.
    pub(super) example: String,
}

impl Repeats {
    /// Counts a line of a place. Returns false if the line is to be left out. `same` is equal for equal lines.
    pub(super) fn admits(&mut self, place: u64, same: u64, now: Instant, line: &super::line::Line) -> bool {
        let fresh = || Place { ends: now + WINDOW, lines: 0, recent: Vec::new(), left_out: None };
        let place = self.places.entry(place).or_insert_with(fresh);
        if place.ends <= now && place.left_out.is_none() {
            *place = fresh();
        }
        place.lines = place.lines.saturating_add(1);
        let index = place.recent.iter().position(|(hash, _)| *hash == same).unwrap_or_else(|| {
            if place.recent.len() == DISTINCT {
                place.recent.remove(0);
            }
            place.recent.push((same, 0));
            place.recent.len() - 1
        });
        let count = &mut place.recent[index].1;
        *count = count.saturating_add(1);
        if *count <= MAX_SAME && place.lines <= MAX_DIFFERENT {
            return true;
        }
        let left_out = place.left_out.get_or_insert_with(|| LeftOut {
            level: line.level(),
            target: line.target().to_owned(),
            count: 0,
            example: ecs_core::model::text::cut(line.example(), EXAMPLE),
        });
        left_out.count += 1;
        false
    }

    /// The time when the next count can be logged; `None` if no line was left out.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.places.values().filter(|place| place.left_out.is_some()).map(|place| place.ends).min()
    }

    /// Takes the counts of the seconds that are over; all counts at the end of the process (`now` is `None`).
    pub(super) fn ended(&mut self, now: Option<Instant>) -> Vec<LeftOut> {
        let mut ended = Vec::new();
        self.places.retain(|_, place| {
            let is_over = now.is_none_or(|now| place.ends <= now);
            if is_over {
                ended.extend(place.left_out.take());
            }
            !is_over
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::super::line::Line;
    use super::*;
    use std::time::SystemTime;

    fn line(text: &str) -> Line {
        let mut line = Line::new(Form::Logfmt, SystemTime::now(), Level::WARN, "ecs_agent::test");
        line.message(text);
        line
    }

    #[test]
    fn a_line_is_written_five_times_a_second_and_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let taken = (0..268).filter(|_| repeats.admits(1, 7, start, &line("no such task"))).count();
        assert_eq!(taken, 5);
        assert!(repeats.admits(1, 8, start, &line("another line of the same place")));
        assert!(repeats.admits(2, 7, start, &line("the same line of another place")));
        assert_eq!(repeats.next_end(), Some(start + WINDOW));
        assert_eq!(repeats.ended(Some(start)), [], "the second is not over");
        let example = "no such task".to_owned();
        let wanted = LeftOut { level: Level::WARN, target: "ecs_agent::test".into(), count: 263, example };
        assert_eq!(repeats.ended(Some(start + WINDOW)), [wanted]);
        assert_eq!((repeats.next_end(), repeats.places.len()), (None, 0), "nothing stays behind");
        assert!(repeats.admits(1, 7, start + WINDOW, &line("no such task")), "a new second");
    }

    #[test]
    fn different_lines_have_a_limit_as_well() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let taken = (0..5000).filter(|n| repeats.admits(1, *n, start, &line("task n"))).count();
        assert_eq!(taken, 1000);
        assert_eq!(repeats.places[&1].recent.len(), DISTINCT, "what is remembered is bounded");
        assert_eq!(repeats.ended(None).first().map(|left_out| left_out.count), Some(4000));
    }

    #[test]
    fn one_line_a_second_is_no_repeat() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert!((0..3600).all(|n| repeats.admits(1, 7, start + n * WINDOW, &line("still waiting"))));
        assert_eq!(repeats.next_end(), None);
    }
}
