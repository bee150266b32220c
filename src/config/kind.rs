//! The kinds of values that a variable can have, each with a parser from the operator's text to a canonical text.
//!
//! `envy` turns the canonical text into the typed [`Config`](super::Config): `true`/`false`, decimal numbers, milliseconds,
//! comma lists of ports, compact JSON. Kinds do not know variables or sources. Invariant: a parser never panics and never
//! fails silently; every difference from the operator's text is part of the result.

use super::lists::{cidrs, headers, list, local_address, map, mirrors, names, pairs, ports};
use super::parsed::Parsed::{self, Adjusted, Doubtful, Rejected, Reset, Unset, Value as Accepted};
use super::quoting::{bare, without_comment};
use super::{duration, names as ecs_names};
use crate::input::endpoint;

/// The form of a value (spec `config.md` §2, "Parsers").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, unchanged.
    Text,
    /// Text without white space around it.
    Trimmed,
    /// The name of an AWS region; white space around it is ignored. Another text is used, too.
    Region,
    /// An absolute path. Another text is used unchanged, too.
    Path,
    /// The same for files of the AWS SDK, where a path may also begin with `~/`.
    HomePath,
    /// The name or the ARN of a cluster; white space around it is ignored.
    Cluster,
    /// Text in which empty is a value, different from "not set".
    TextOrEmpty,
    /// Text that must never be shown.
    Secret,
    /// A JSON document that must never be shown. Kept verbatim.
    SecretJson,
    /// True or false; false is a value like true.
    Switch,
    /// True or false; false counts as not set, so that true in a lower source takes precedence.
    Flag,
    /// A Go duration; limits are in milliseconds.
    Duration(Limit),
    /// A whole number.
    Integer(Limit),
    /// A whole number; white space around it is ignored.
    TrimmedInteger(Limit),
    /// A whole number from 0 to 65535.
    Unsigned16,
    /// A number with a fraction.
    Decimal,
    /// JSON array of port numbers.
    Ports,
    /// JSON array of strings.
    Names,
    /// JSON object of strings.
    Map,
    /// JSON object: the host of a registry, and its mirror, a host with or without a path.
    Mirrors,
    /// JSON array of network ranges.
    Cidrs,
    /// An address of the link between the instance and a task, with a length.
    LocalAddress,
    /// Comma-separated list; white space is kept.
    List,
    /// Comma-separated `key=value`, percent-encoded.
    Pairs,
    /// The same for HTTP headers, whose values must never be shown.
    Headers,
    /// One of these words, exactly.
    Choice(&'static [&'static str]),
    /// One of these words, exactly; white space around it is ignored.
    TrimmedChoice(&'static [&'static str]),
    /// One of these words, in any case; white space around it is ignored.
    AnyCase(&'static [&'static str]),
    /// `steady,burst`, in requests a second.
    Rates,
    /// A port range, `N-M` or `N`.
    PortRange,
    /// Name or address of a host. Another text is used, too, and does not work.
    Host,
    /// URL of an HTTP service; a bare host gets `https://`.
    Endpoint,
    /// The same for a service that has no TLS: a bare host gets `http://`.
    PlainEndpoint,
    /// Address of Docker, `unix://path` or `tcp://host:port`.
    DockerHost,
    /// URL of a proxy, which may hold a password; a bare host gets `http://`.
    Proxy,
}

/// The range of a number, and the treatment of a number outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Zero and every positive number is used.
    Any,
    /// Negative numbers are used too.
    Signed,
    /// A smaller number is raised to this one.
    AtLeast(i64),
    /// For a smaller number the default is used.
    DefaultBelow(i64),
    /// For a number outside this range the default is used.
    DefaultOutside(i64, i64),
}

const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE: [&str; 6] = ["0", "f", "F", "FALSE", "false", "False"];

/// The expected form of a [`Kind::Host`].
pub const HOST: &str = "a host name or address, without scheme and port";

impl Kind {
    /// Parses a text. `default` is the variable's default in the table: for most variables zero counts as not set, which is
    /// reported if the table has a default other than zero.
    pub(super) fn parse(self, raw: &str, default: &str) -> Parsed {
        if raw.is_empty() && self != Self::TextOrEmpty {
            return Unset;
        }
        match self {
            Self::Text | Self::TextOrEmpty | Self::Secret => Accepted(raw.to_owned()),
            Self::Trimmed => text(raw.trim()),
            Self::Region => region(raw.trim()),
            Self::Path => path(raw, &["/"]),
            Self::HomePath => path(raw, &["/", "~/"]),
            Self::Cluster => cluster(raw.trim()),
            Self::SecretJson => secret_json(raw),
            Self::Switch | Self::Flag => switch(raw.trim()),
            Self::Duration(limit) => span(raw, limit, default),
            Self::Integer(limit) => integer(raw, limit, default),
            Self::TrimmedInteger(limit) => integer(raw.trim(), limit, default),
            Self::Unsigned16 => unsigned16(raw),
            Self::Decimal => decimal(raw),
            Self::Ports => ports(raw, default),
            Self::Names => names(raw, default),
            Self::Map => map(raw),
            Self::Mirrors => mirrors(raw),
            Self::Cidrs => cidrs(raw),
            Self::LocalAddress => local_address(raw.trim()),
            Self::List => list(raw),
            Self::Pairs => pairs(raw),
            Self::Headers => headers(raw),
            Self::Choice(words) => choice(raw, words),
            Self::TrimmedChoice(words) => choice(raw.trim(), words),
            Self::AnyCase(words) => choice(&raw.trim().to_ascii_lowercase(), words),
            Self::Rates => rates(raw),
            Self::PortRange => port_range(raw),
            Self::Endpoint => http_url(raw.trim(), "https://", &["http", "https"]),
            Self::PlainEndpoint => http_url(raw.trim(), "http://", &["http", "https"]),
            Self::Host => host(raw),
            Self::DockerHost => docker_host(raw),
            // The HTTP clients of this agent are built without SOCKS.
            Self::Proxy => http_url(raw.trim(), "http://", &["http", "https"]),
        }
    }

    /// White space around a value of this kind is removed.
    pub(super) fn trims(self) -> bool {
        matches!(
            self,
            Self::Trimmed
                | Self::Region
                | Self::Cluster
                | Self::Switch
                | Self::Flag
                | Self::TrimmedInteger(_)
                | Self::TrimmedChoice(_)
                | Self::AnyCase(_)
                | Self::LocalAddress
                | Self::Endpoint
                | Self::PlainEndpoint
                | Self::Proxy
        )
    }

    /// A value of this kind may hold a secret: a wrong one is never shown, and one in effect only without its password.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretJson | Self::Headers | Self::Proxy)
    }

    /// The expected form, for problems and for the reference page.
    pub fn expected(self) -> String {
        match self {
            Self::Text | Self::Trimmed | Self::Secret => "a string".to_owned(),
            Self::TextOrEmpty => "a string, possibly empty".to_owned(),
            Self::Region => "a region such as eu-west-1".to_owned(),
            Self::Path => "an absolute path".to_owned(),
            Self::HomePath => "an absolute path, or one that begins with ~/".to_owned(),
            Self::Cluster => ecs_names::CLUSTER.to_owned(),
            Self::SecretJson => "a JSON document without quotation marks around it".to_owned(),
            Self::Switch | Self::Flag => "true or false".to_owned(),
            Self::Duration(limit) => {
                format!("a duration such as 90s or 1h30m{}", limit.describe(duration::show_millis))
            }
            Self::Integer(limit) | Self::TrimmedInteger(limit) => {
                format!("a whole number{}", limit.describe(|n| n.to_string()))
            }
            Self::Unsigned16 => "a whole number from 0 to 65535".to_owned(),
            Self::Decimal => "a number such as 5 or 0.5".to_owned(),
            Self::Ports => "a JSON array of ports such as [22,80]".to_owned(),
            Self::Names => "a JSON array of strings such as [\"a\",\"b\"]".to_owned(),
            Self::Map => "a JSON object of strings such as {\"key\":\"value\"}".to_owned(),
            Self::Mirrors => {
                "a JSON object of registry hosts such as {\"docker.io\":\"mirror.example.com/hub\"}".to_owned()
            }
            Self::Cidrs => "a JSON array of network ranges such as [\"10.0.0.0/8\"]".to_owned(),
            Self::LocalAddress => "an address from 169.254.172.2/22 to 169.254.175.254/22".to_owned(),
            Self::List => "a comma-separated list without spaces".to_owned(),
            Self::Pairs => "a list such as key=value,other=value, percent-encoded".to_owned(),
            Self::Headers => "a list of HTTP headers such as name=value,other=value, percent-encoded".to_owned(),
            Self::Choice(words) | Self::TrimmedChoice(words) | Self::AnyCase(words) => {
                format!("one of {}", words.join(", "))
            }
            Self::Rates => "two whole numbers above 0 such as 40,60".to_owned(),
            Self::PortRange => "a port range such as 32768-60999".to_owned(),
            Self::Host => HOST.to_owned(),
            Self::Endpoint | Self::PlainEndpoint => "an http or https URL, or a host".to_owned(),
            Self::DockerHost => "unix://PATH or tcp://HOST:PORT".to_owned(),
            Self::Proxy => "an http or https proxy URL such as http://proxy:3128".to_owned(),
        }
    }
}

impl Limit {
    fn describe(self, show: impl Fn(i64) -> String) -> String {
        match self {
            Self::Any => ", not negative".to_owned(),
            Self::Signed => String::new(),
            Self::AtLeast(min) | Self::DefaultBelow(min) => format!(", at least {}", show(min)),
            Self::DefaultOutside(min, max) => format!(", from {} to {}", show(min), show(max)),
        }
    }
}

fn text(trimmed: &str) -> Parsed {
    if trimmed.is_empty() { Unset } else { Accepted(trimmed.to_owned()) }
}

fn region(name: &str) -> Parsed {
    match name {
        "" => Unset,
        _ if ecs_names::is_region(name) && ecs_names::meant_region(name).is_none() => Accepted(name.to_owned()),
        _ => Doubtful { value: name.to_owned(), instead: "it is used, but no region has such a name" },
    }
}

fn host(text: &str) -> Parsed {
    if is_host(text) {
        Accepted(text.to_owned())
    } else {
        Doubtful { value: text.to_owned(), instead: "nothing can be asked there" }
    }
}

/// The text is the name or the address of a host, and nothing else. An IPv6 address may be in brackets.
pub fn is_host(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) => name.chars().all(is_of_name),
        Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => true,
        Err(_) => text.parse::<std::net::Ipv6Addr>().is_ok(),
    }
}

/// A path is used unchanged, as by the Go agent: quotation marks, white space and comments would be part of it.
fn path(raw: &str, beginnings: &[&str]) -> Parsed {
    let is_absolute = beginnings.iter().any(|beginning| raw.starts_with(beginning));
    if is_absolute && bare(raw) == raw && without_comment(raw).is_none() {
        Accepted(raw.to_owned())
    } else {
        Doubtful { value: raw.to_owned(), instead: "it is used as it is written" }
    }
}

fn cluster(name: &str) -> Parsed {
    match name {
        "" => Unset,
        _ if ecs_names::is_cluster(name) => Accepted(name.to_owned()),
        _ => Rejected,
    }
}

fn secret_json(raw: &str) -> Parsed {
    match serde_json::from_str::<serde::de::IgnoredAny>(raw) {
        Ok(_) => Accepted(raw.to_owned()),
        Err(_) if raw.trim().is_empty() => Unset,
        Err(_) => Rejected,
    }
}

fn switch(word: &str) -> Parsed {
    match word {
        "" => Unset,
        _ if TRUE.contains(&word) => Accepted("true".to_owned()),
        _ if FALSE.contains(&word) => Accepted("false".to_owned()),
        _ => Rejected,
    }
}

/// Converts a duration to milliseconds, rounded up so that no non-zero duration becomes zero.
fn span(raw: &str, limit: Limit, default: &str) -> Parsed {
    let Some(nanos) = duration::parse_nanos(raw) else { return Rejected };
    let millis = i128::from(nanos);
    let millis = if millis > 0 { (millis + 999_999) / 1_000_000 } else { millis / 1_000_000 - i128::from(millis < 0) };
    match i64::try_from(millis) {
        // Limits apply to the exact value: 999.9999ms is below one second.
        Ok(millis) => bounded(millis, i128::from(nanos), 1_000_000, limit, default, duration::show_millis),
        Err(_) => Rejected,
    }
}

fn integer(raw: &str, limit: Limit, default: &str) -> Parsed {
    match raw.parse::<i64>() {
        Ok(number) => bounded(number, i128::from(number), 1, limit, default, |n| n.to_string()),
        Err(_) => Rejected,
    }
}

/// Applies a limit. `exact` is the same number before it was rounded, in a unit that is `scale` times smaller.
fn bounded(number: i64, exact: i128, scale: i128, limit: Limit, default: &str, show: impl Fn(i64) -> String) -> Parsed {
    if exact == 0 {
        // In the Go agent zero counts as not set. This is reported if the operator must have meant something else.
        return match limit {
            Limit::DefaultOutside(min, _) if min > 0 => Reset,
            _ if matches!(default, "" | "0" | "0s") => Unset,
            _ => Rejected,
        };
    }
    let below = |min: i64| exact < i128::from(min) * scale;
    let above = |max: i64| exact > i128::from(max) * scale;
    match limit {
        Limit::Any if exact < 0 => Rejected,
        Limit::AtLeast(min) if below(min) => {
            Adjusted { value: min.to_string(), instead: format!("the minimum of {} is used", show(min)) }
        }
        Limit::DefaultBelow(min) if below(min) => Reset,
        Limit::DefaultOutside(min, max) if below(min) || above(max) => Reset,
        Limit::Any | Limit::Signed | Limit::AtLeast(_) | Limit::DefaultBelow(_) | Limit::DefaultOutside(..) => {
            Accepted(number.to_string())
        }
    }
}

fn unsigned16(raw: &str) -> Parsed {
    // Rust accepts a plus sign here, Go does not.
    match raw.parse::<u16>() {
        Ok(0) => Unset,
        Ok(number) if !raw.starts_with('+') => Accepted(number.to_string()),
        Ok(_) | Err(_) => Rejected,
    }
}

fn decimal(raw: &str) -> Parsed {
    match raw.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Accepted(number.to_string()),
        Ok(_) | Err(_) => Rejected,
    }
}

fn choice(word: &str, words: &[&str]) -> Parsed {
    match word {
        "" => Unset,
        _ if words.contains(&word) => Accepted(word.to_owned()),
        _ => Rejected,
    }
}

fn rates(raw: &str) -> Parsed {
    let Some((steady, burst)) = raw.split_once(',') else { return Rejected };
    match (steady.trim().parse::<i64>(), burst.trim().parse::<i64>()) {
        (Ok(steady), Ok(burst)) if steady > 0 && burst > 0 => Accepted(format!("{steady},{burst}")),
        (Ok(_), Ok(_)) => Reset,
        _ => Rejected,
    }
}

fn port_range(raw: &str) -> Parsed {
    let (first, last) = raw.split_once('-').unwrap_or((raw, raw));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Accepted(format!("{first},{last}")),
        _ => Rejected,
    }
}

/// `scheme` is put in front of a text without a scheme; `schemes` are the accepted ones.
fn http_url(raw: &str, scheme: &str, schemes: &[&str]) -> Parsed {
    if raw.is_empty() {
        return Unset;
    }
    let full = if raw.contains("://") { raw.to_owned() } else { format!("{scheme}{raw}") };
    match url::Url::parse(&full) {
        // A valid URL may still not fit into a request, for instance if it has more than 65,534 bytes.
        Ok(url) if url.as_str().parse::<http::Uri>().is_err() => Rejected,
        // `http//proxy` is no host of this name.
        Ok(url) if !raw.contains("://") && matches!(url.host_str(), Some("http" | "https")) => Rejected,
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Accepted(endpoint::normalized(&url).to_owned()),
        Ok(_) | Err(_) => Rejected,
    }
}

fn docker_host(raw: &str) -> Parsed {
    let path = raw.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
    let host = ["tcp://", "http://"].iter().find_map(|scheme| raw.strip_prefix(scheme));
    if path || host.is_some_and(is_http_authority) { Accepted(raw.to_owned()) } else { Rejected }
}

/// The text is a host, with or without a port, to which requests can be sent.
fn is_http_authority(text: &str) -> bool {
    let text = text.trim_end_matches('/');
    let url = url::Url::parse(&format!("http://{text}/"));
    let fits = url.is_ok_and(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none());
    fits && !text.contains('/') && format!("http://{text}/").parse::<http::Uri>().is_ok()
}
