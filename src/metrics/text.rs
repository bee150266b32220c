//! The text that a scrape gets: Prometheus' own format, version 0.0.4, or OpenMetrics 1.0 for a client that wants it.
//!
//! Why no library, each measured in a small program with the settings of the release build: this encoder takes 4 KB.
//! `prometheus-client` 0.25 takes 45 KB and writes OpenMetrics only, in which a counter's `# TYPE` lacks the `_total` of its samples, so
//! `promtool check metrics` refuses it. `prometheus` 0.14 takes 127 KB, and keeps every value a second time.

use super::names::{Family, Kind};
use super::value::Histogram;
use std::fmt::Write as _;
use std::time::Duration;

/// The format of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Form {
    /// The form for a client with this `Accept` header. OpenMetrics only for a client that names it.
    pub fn accepted(accept: Option<&str>) -> Self {
        let is_wanted = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            is_named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if accept.unwrap_or_default().split(',').any(is_wanted) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Written without a fraction.
    Whole(u64),
    /// Any other number.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Duration> for Number {
    fn from(value: Duration) -> Self {
        Self::Real(value.as_secs_f64())
    }
}

/// A name and a value.
type Label<'a> = (&'a str, &'a str);

/// The page of one scrape.
#[derive(Debug)]
pub struct Page {
    form: Form,
    text: String,
}

impl Page {
    /// A page without metrics.
    pub fn new(form: Form) -> Self {
        // The usual length, so that the text is not moved while it grows.
        Self { form, text: String::with_capacity(64 * 1024) }
    }

    /// Begins a metric. Its samples are added to the result.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let name = match (self.form, family.kind) {
            (Form::OpenMetrics, Kind::Counter) => family.name.trim_end_matches("_total"),
            _ => family.name,
        };
        let kind = family.kind.as_str();
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        Samples { text: &mut self.text, name: family.name }
    }

    /// A metric with one sample, which has no label.
    pub fn single(&mut self, family: &'static Family, value: impl Into<Number>) {
        self.family(family).add(&[], value);
    }

    /// The text of the page.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// Adds a sample.
    pub fn add(&mut self, labels: &[Label<'_>], value: impl Into<Number>) {
        self.sample("", labels, None, value.into());
    }

    /// Adds a sample without labels, if there is a value.
    pub fn some(&mut self, value: Option<impl Into<Number>>) {
        value.into_iter().for_each(|value| self.add(&[], value));
    }

    /// Adds the samples of a histogram.
    pub fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        let observed = histogram.observed();
        for (bound, count) in observed.at_most {
            // Both formats read `1.0`, and OpenMetrics reads no other form of it.
            let bound = if bound.fract() == 0.0 { format!("{bound:.1}") } else { bound.to_string() };
            self.sample("_bucket", labels, Some(&bound), count.into());
        }
        self.sample("_bucket", labels, Some("+Inf"), observed.count.into());
        self.sample("_sum", labels, None, observed.sum.into());
        self.sample("_count", labels, None, observed.count.into());
    }

    fn sample(&mut self, end: &str, labels: &[Label<'_>], bound: Option<&str>, value: Number) {
        self.text.push_str(self.name);
        self.text.push_str(end);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in all {
            let _ = write!(self.text, "{separator}{name}=\"");
            escape(self.text, value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = match value {
            Number::Whole(value) => writeln!(self.text, " {value}"),
            Number::Real(value) => writeln!(self.text, " {value}"),
        };
    }
}

/// Adds the value of a label.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: Family = Family { name: "calls_total", kind: Kind::Counter, help: "Calls." };
    const SECONDS: Family = Family { name: "call_seconds", kind: Kind::Histogram, help: "Seconds." };

    fn page(form: Form) -> String {
        let histogram = Histogram::new(&[5, 1000]);
        histogram.observe(Duration::from_millis(250));
        let mut page = Page::new(form);
        page.family(&CALLS).add(&[("a", "\"\\\n"), ("b", "c")], 7_u64);
        page.family(&SECONDS).histogram(&[("a", "b")], &histogram);
        page.finish()
    }

    const BUCKETS: &str = "# HELP call_seconds Seconds.\n# TYPE call_seconds histogram\n\
        call_seconds_bucket{a=\"b\",le=\"0.005\"} 0\ncall_seconds_bucket{a=\"b\",le=\"1.0\"} 1\n\
        call_seconds_bucket{a=\"b\",le=\"+Inf\"} 1\ncall_seconds_sum{a=\"b\"} 0.25\ncall_seconds_count{a=\"b\"} 1\n";

    #[test]
    fn the_text_is_that_of_the_format() {
        let samples = "calls_total{a=\"\\\"\\\\\\n\",b=\"c\"} 7\n";
        let text = format!("# HELP calls_total Calls.\n# TYPE calls_total counter\n{samples}{BUCKETS}");
        assert_eq!(page(Form::Prometheus), text);
        let text = format!("# HELP calls Calls.\n# TYPE calls counter\n{samples}{BUCKETS}# EOF\n");
        assert_eq!(page(Form::OpenMetrics), text);
    }

    #[test]
    fn openmetrics_is_for_clients_that_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, form) in [
            (Some(prometheus), Form::OpenMetrics),
            (Some("text/plain, Application/OpenMetrics-Text ; q=1"), Form::OpenMetrics),
            (Some("application/openmetrics-text; q=0, */*"), Form::Prometheus),
            (Some("*/*"), Form::Prometheus),
            (None, Form::Prometheus),
        ] {
            assert_eq!(Form::accepted(accept), form, "{accept:?}");
        }
    }
}
