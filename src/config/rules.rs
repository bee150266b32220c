//! Rules about variables that depend on each other (spec `config.md` §1.3, §2, §2.6, §4).
//!
//! This module works on canonical values between [`super::resolve`] and `envy`. Invariant: a rule only adds problems or fills in
//! values that follow from others; it parses no text of an operator.

use super::keys::find;
use super::names::{DEFAULT_CLUSTER, LOG_DRIVERS, unknown_words};
use super::problem::{NO_START, Problem, Severity};
use super::resolve::{CLUSTER, CONFIG_FILE, Resolved, Values};
use super::source::{Class, LINE_IGNORED, NOT_UTF8, Source};
use super::suggest::did_you_mean;
use std::collections::BTreeMap;
use std::path::Path;

/// The port of Prometheus metrics, which no task may use while they are served.
const PROMETHEUS_PORT: &str = "51680";

/// Applies every rule. `is_service`: the agent replaces ecs-init too.
pub(super) fn apply(values: &mut Values, sources: &[&dyn Source], is_service: bool, problems: &mut Vec<Problem>) {
    if is_service {
        super::defaults::host_paths(values, problems);
    }
    checkpoint(values);
    external(values, is_service, problems);
    log_drivers(values, is_service, problems);
    registry_auth(values, problems);
    access_keys(values, problems);
    polling(values, problems);
    domain(values, is_service);
    gmsa(values, problems);
    trunking_and_prometheus(values);
    proxies(values);
    file_names_itself(sources, problems);
    attributes_and_tags(values, problems);
}

/// The place of what no source has.
pub(super) const ALL_SOURCES: &str = "all sources";

/// The fatal problem that neither the operator nor the metadata service gives a region.
pub fn region_missing() -> Problem {
    Problem {
        variable: "AWS_DEFAULT_REGION".to_owned(),
        place: ALL_SOURCES.to_owned(),
        shape: "not set, and the instance metadata service gave no region".to_owned(),
        expected: "a region such as eu-central-1".to_owned(),
        instead: NO_START.to_owned(),
        severity: Severity::Fatal,
    }
}

/// The cluster that the agent joins; `None`: it does not start, so it joins none. Call this after [`lost_cluster`].
pub(super) fn joined_cluster<'a>(values: &'a Values, problems: &[Problem]) -> Option<&'a str> {
    let cluster = values.get(CLUSTER).map_or(DEFAULT_CLUSTER, |cluster| cluster.canonical.as_str());
    (!problems.iter().any(Problem::is_fatal)).then_some(cluster)
}

fn is_about_cluster(problem: &Problem) -> bool {
    [CLUSTER, "Cluster", "ClusterArn"].contains(&problem.variable.as_str())
}

/// An instance with a value that is no text would join `default` instead of its cluster, so it does not start.
pub(super) fn lost_cluster(values: &Values, problems: &mut [Problem]) {
    let is_set = values.contains_key(CLUSTER);
    for problem in problems.iter_mut().filter(|problem| !is_set && is_about_cluster(problem)) {
        if problem.shape.ends_with(NOT_UTF8) {
            *problem = problem.clone().fatal();
        }
    }
}

/// A cluster that is set to nothing is `default`. A cluster that is named in another notation, such as `export ECS_CLUSTER=…`, is a
/// problem of its line only: an instance with such a file is in `default` already. Call this when all other problems are known.
pub(super) fn cluster(values: &Values, sources: &[&dyn Source], problems: &mut Vec<Problem>) {
    let is_set = values.contains_key(CLUSTER);
    let is_known =
        !is_set && problems.iter().any(|found| is_about_cluster(found) && found.severity != Severity::Notice);
    if let Some(joined) = joined_cluster(values, problems) {
        let is_lost = |problem: &&mut Problem| is_about_cluster(problem) && problem.instead == LINE_IGNORED;
        for problem in problems.iter_mut().filter(is_lost) {
            problem.instead = format!("{LINE_IGNORED}, and the agent joins the cluster `{joined}`");
        }
    }
    let source = sources.iter().find(|source| source.get(CLUSTER).is_some()).filter(|_| !is_known && !is_set);
    problems.extend(source.map(|source| Problem {
        variable: CLUSTER.to_owned(),
        place: source.place(CLUSTER),
        shape: "set to nothing".to_owned(),
        expected: format!("{}, or no line", super::names::CLUSTER),
        instead: format!("the cluster `{DEFAULT_CLUSTER}` is used"),
        severity: Severity::Changes,
    }));
}

/// The consequence of attributes and tags that ECS refuses.
pub(super) const REFUSED: &str = "ECS refuses the registration";

/// Attributes and tags that ECS refuses. ECS decides, so the agent starts.
fn attributes_and_tags(values: &Values, problems: &mut Vec<Problem>) {
    use super::names::{ATTRIBUTE, TAG, refused_attributes, refused_tags};
    for (name, expected) in [("ECS_INSTANCE_ATTRIBUTES", ATTRIBUTE), ("ECS_CONTAINER_INSTANCE_TAGS", TAG)] {
        let Some(value) = values.get(name) else { continue };
        let members: BTreeMap<String, String> = serde_json::from_str(&value.canonical).unwrap_or_default();
        let refused = if expected == TAG { refused_tags(members.iter()) } else { refused_attributes(members.iter()) };
        problems.extend(refused.map(|shape| Problem {
            variable: value.name.to_owned(),
            place: value.place.clone().unwrap_or_default(),
            shape,
            expected: expected.to_owned(),
            instead: REFUSED.to_owned(),
            severity: Severity::Changes,
        }));
    }
}

/// A data directory turns the checkpoint on, unless the checkpoint was set. Compat: only the environment counts, for both
/// variables.
fn checkpoint(values: &mut Values) {
    let in_environment = |name: &str| values.get(name).filter(|value| value.class == Class::Environment);
    if let (None, Some(directory)) = (in_environment("ECS_CHECKPOINT"), in_environment("ECS_DATADIR")) {
        let shown = "true (since ECS_DATADIR is set)".to_owned();
        let checkpoint = Resolved { canonical: "true".to_owned(), shown, name: "ECS_CHECKPOINT", ..directory.clone() };
        values.insert("ECS_CHECKPOINT", checkpoint);
    }
}

/// Outside EC2 there is no instance metadata, so the operator must set the region, and there is no identity document. Compat: the
/// Go agent looks for the region before it reads its JSON file.
fn external(values: &mut Values, is_service: bool, problems: &mut Vec<Problem>) {
    if !is_true(values, "ECS_EXTERNAL") {
        return;
    }
    let region = values.get("AWS_DEFAULT_REGION");
    let early = values.get("ECS_EXTERNAL").is_some_and(|external| external.class == Class::Environment);
    if region.is_none_or(|region| early && region.class != Class::Environment) {
        let shape = "not set in the environment or in ecs.config, with ECS_EXTERNAL".to_owned();
        problems.push(Problem { shape, ..region_missing() });
    }
    force(values, "NoIID", "true", "since ECS_EXTERNAL is true");
    if is_service {
        force(values, "ECS_ENABLE_TASK_ENI", "false", "since ECS_EXTERNAL is true");
    }
}

/// Sets a switch to the value that follows from another variable.
fn force(values: &mut Values, name: &'static str, value: &str, why: &str) {
    let Some(resolved) = values.get_mut(name).filter(|resolved| resolved.canonical != value) else { return };
    resolved.canonical = value.to_owned();
    resolved.shown = format!("{value} ({why})");
}

/// Sets values that follow from other variables.
fn trunking_and_prometheus(values: &mut Values) {
    // The default has no effect then, and needs no line.
    let is_set = values.get("ECS_ENABLE_HIGH_DENSITY_ENI").is_some_and(|resolved| resolved.place.is_some());
    if is_set && !is_true(values, "ECS_ENABLE_TASK_ENI") {
        force(values, "ECS_ENABLE_HIGH_DENSITY_ENI", "false", "since ECS_ENABLE_TASK_ENI is not true");
    }
    let prometheus = is_true(values, "ECS_ENABLE_PROMETHEUS_METRICS");
    let Some(ports) = values.get_mut("ECS_RESERVED_PORTS").filter(|_| prometheus) else { return };
    if ports.canonical.split(',').all(|port| port != PROMETHEUS_PORT) {
        let own = Some(ports.canonical.as_str()).filter(|own| !own.is_empty());
        ports.canonical = own.into_iter().chain([PROMETHEUS_PORT]).collect::<Vec<_>>().join(",");
        ports.shown = format!("[{}] ({PROMETHEUS_PORT} since ECS_ENABLE_PROMETHEUS_METRICS is true)", ports.canonical);
    }
}

/// Finds out whether the host has joined a domain, as ecs-init does, if that matters and the operator has not set the variable.
fn domain(values: &mut Values, is_service: bool) {
    const JOINED: &str = "ECS_DOMAIN_JOINED_LINUX_INSTANCE";
    let is_set = values.get(JOINED).is_none_or(|value| value.place.is_some());
    if is_service && !is_set && is_true(values, "ECS_GMSA_SUPPORTED") && super::realm::is_joined() {
        force(values, JOINED, "true", "since `realm list` names a realm");
    }
}

/// Group managed service accounts need the credentials fetcher. Those of a domain also need a joined domain, or a secret instead
/// (spec `config.md` §2.3).
fn gmsa(values: &mut Values, problems: &mut Vec<Problem>) {
    if !is_true(values, "ECS_GMSA_SUPPORTED")
        || is_true(values, "ZZZ_SKIP_DOMAIN_JOIN_CHECK_NOT_SUPPORTED_IN_PRODUCTION")
    {
        return;
    }
    let text = |name: &str| values.get(name).map_or("", |value| value.canonical.as_str());
    let directory = text("CREDENTIALS_FETCHER_HOST_DIR");
    let secret = text("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA");
    let has_socket = !directory.is_empty() && Path::new(directory).exists();
    let (shape, expected, instead) = if !has_socket {
        ("true without the socket of CREDENTIALS_FETCHER_HOST_DIR", "the socket", "gMSA is off")
    } else if secret.is_empty() && !is_true(values, "ECS_DOMAIN_JOINED_LINUX_INSTANCE") {
        let shape = "true without a domain (ECS_DOMAIN_JOINED_LINUX_INSTANCE) or a secret in its place \
                     (CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA)";
        (shape, "one of them", "only domainless gMSA is offered")
    } else {
        return;
    };
    let place = values.get("ECS_GMSA_SUPPORTED").and_then(|value| value.place.clone()).unwrap_or_default();
    problems.push(Problem {
        variable: "ECS_GMSA_SUPPORTED".to_owned(),
        place,
        shape: shape.to_owned(),
        expected: expected.to_owned(),
        instead: instead.to_owned(),
        severity: Severity::Changes,
    });
    if !has_socket {
        force(values, "ECS_GMSA_SUPPORTED", "false", "since its conditions do not hold");
    }
}

/// Leaves out log drivers that ECS does not know, and says which. The Go agent does not start with such a driver, although tasks with
/// the others could run.
fn log_drivers(values: &mut Values, is_service: bool, problems: &mut Vec<Problem>) {
    const DRIVERS: &str = "ECS_AVAILABLE_LOGGING_DRIVERS";
    let Some(value) = values.get_mut(DRIVERS) else { return };
    let Some(place) = value.place.clone() else { return };
    let drivers: Vec<String> = serde_json::from_str(&value.canonical).unwrap_or_default();
    let unknown = unknown_words(&drivers, &LOG_DRIVERS);
    if unknown.is_empty() {
        return;
    }
    let known: Vec<&String> = drivers.iter().filter(|driver| LOG_DRIVERS.contains(&driver.as_str())).collect();
    let instead = if known.is_empty() {
        let service = super::defaults::service_default(DRIVERS).filter(|_| is_service);
        let default = service.or_else(|| find(DRIVERS).map(|key| key.default)).unwrap_or_default();
        default.clone_into(&mut value.canonical);
        (value.place, value.class) = (service.map(|_| super::defaults::SERVICE.to_owned()), Class::Defaults);
        format!("the default `{default}` is used")
    } else {
        value.canonical = serde_json::Value::from_iter(known.iter().map(|driver| driver.as_str())).to_string();
        "only the others are offered to ECS".to_owned()
    };
    value.shown.clone_from(&value.canonical);
    let words: Vec<&str> = unknown.iter().map(|(shown, _)| shown.as_str()).collect();
    let meant = unknown.iter().find_map(|(_, meant)| *meant).map_or_else(String::new, did_you_mean);
    let verb = if words.len() > 1 { "are no log drivers" } else { "is no log driver" };
    problems.push(Problem {
        variable: value.name.to_owned(),
        place,
        shape: format!("{} {verb} that ECS knows", words.join(", ")),
        expected: format!("log drivers from {}{meant}", LOG_DRIVERS.join(", ")),
        instead,
        severity: Severity::Changes,
    });
}

/// Reports registry settings of which only one half is set. A half that could not be used already has a problem of its own.
fn registry_auth(values: &Values, problems: &mut Vec<Problem>) {
    let (kind, data) = ("ECS_ENGINE_AUTH_TYPE", "ECS_ENGINE_AUTH_DATA");
    let (set, missing) = match (values.get(kind), values.get(data)) {
        (Some(set), None) => (set, data),
        (None, Some(set)) => (set, kind),
        _ => return,
    };
    if problems.iter().any(|problem| problem.variable == missing) {
        return;
    }
    problems.push(Problem {
        variable: set.name.to_owned(),
        place: set.place.clone().unwrap_or_default(),
        shape: format!("set without {missing}"),
        expected: "both or none".to_owned(),
        instead: "images are pulled without these credentials".to_owned(),
        severity: Severity::Changes,
    });
}

/// An access key, its secret and its token belong together: they are used only if they come from the same source, and only if
/// both key and secret are set. Otherwise the SDK's chain looks for credentials.
fn access_keys(values: &mut Values, problems: &mut Vec<Problem>) {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    // The places of one file differ in the line only, so the line is cut off.
    let source = |values: &Values, name: &str| {
        let place = values.get(name)?.place.clone()?;
        Some(place.rsplit_once(':').map_or(place.clone(), |(file, _)| file.to_owned()))
    };
    let sources = names.map(|name| source(values, name));
    let is_pair = sources[0].is_some() && sources[0] == sources[1];
    let missing = match (&sources[0], &sources[1]) {
        (None, None) => format!("{} and {} are missing", names[0], names[1]),
        (None, Some(_)) => format!("{} is missing", names[0]),
        (Some(_), None) => format!("{} is missing", names[1]),
        (Some(first), Some(second)) => format!("{} is from {first}, {} from {second}", names[0], names[1]),
    };
    let is_unused = |found: &Option<String>| found.is_some() && !(is_pair && *found == sources[0]);
    let unused = names.into_iter().zip(&sources).filter(|(_, found)| is_unused(found)).map(|(name, _)| name);
    let unused: Vec<&str> = unused.collect();
    let places: Vec<String> = unused.iter().filter_map(|name| values.remove(name)?.place).collect();
    // One mistake is one problem, whatever else is lost by it.
    let (Some(first), Some(place)) = (unused.first(), places.first()) else { return };
    let (shape, instead) = match unused[..] {
        [name] if name == names[2] && is_pair => {
            (format!("from another place than {}", names[0]), "this token is not used".to_owned())
        }
        [name] if name == names[2] => (missing, "this token is not used".to_owned()),
        [_] => (missing, format!("this key is not used{OTHERS}")),
        _ => (missing, format!("neither of them is used, nor a token beside them{OTHERS}")),
    };
    problems.push(Problem {
        variable: (*first).to_owned(),
        place: place.clone(),
        shape,
        expected: format!("{} and {} in one place", names[0], names[1]),
        instead,
        severity: Severity::Changes,
    });
}

/// The consequence of half a pair of keys.
const OTHERS: &str = ", and the AWS SDK looks for other credentials, such as the instance's role";

/// The polling interval has limits only while polling is on.
fn polling(values: &mut Values, problems: &mut Vec<Problem>) {
    if !is_true(values, "ECS_POLL_METRICS") {
        return;
    }
    let Some(wait) = values.get_mut("ECS_POLLING_METRICS_WAIT_DURATION") else { return };
    let millis: u64 = wait.canonical.parse().unwrap_or_default();
    let kept = millis.clamp(5_000, 20_000);
    if kept != millis {
        problems.push(Problem {
            variable: wait.name.to_owned(),
            place: wait.place.clone().unwrap_or_default(),
            shape: "out of range".to_owned(),
            expected: "5s to 20s when ECS_POLL_METRICS is true".to_owned(),
            instead: format!("{}s is used", kept / 1000),
            severity: Severity::Changes,
        });
        wait.canonical = kept.to_string();
        wait.shown = format!("{}s", kept / 1000);
    }
}

/// Fills in proxies that follow from other values.
fn proxies(values: &mut Values) {
    if let (Some(http), false) = (values.get("HTTP_PROXY"), values.contains_key("HTTPS_PROXY")) {
        let https = Resolved { name: "HTTPS_PROXY", ..http.clone() };
        values.insert("HTTPS_PROXY", https);
    }
    let docker = values.get("DOCKER_HOST").map_or_else(String::new, |host| host.canonical.clone());
    let list = values.get("NO_PROXY");
    let upper = list.filter(|list| list.name == "NO_PROXY").map(|list| list.canonical.as_str());
    let lower = list.filter(|list| list.name != "NO_PROXY").map(|list| list.canonical.as_str());
    let canonical = no_proxy(upper, lower, &docker);
    let place = list.and_then(|list| list.place.clone());
    let class = list.map_or(Class::Defaults, |list| list.class);
    values.insert("NO_PROXY", Resolved { shown: canonical.clone(), canonical, place, name: "NO_PROXY", class });
}

/// The list of hosts without a proxy. An operator's `NO_PROXY` is used unchanged. Otherwise the list has the addresses of the
/// metadata and credentials services and of Docker. The Go agent drops a lower-case `no_proxy` in that case; here its hosts are
/// first in the list.
fn no_proxy(upper: Option<&str>, lower: Option<&str>, docker_host: &str) -> String {
    if let Some(list) = upper {
        return list.to_owned();
    }
    let docker = docker_host.split_once("://").map_or(docker_host, |(_, address)| address);
    // A user and a password in the address are not part of the host.
    let docker = docker.rsplit_once('@').map_or(docker, |(_, host)| host);
    let ours = format!("169.254.169.254,169.254.170.2,{docker}");
    lower.map_or(ours.clone(), |list| format!("{list},{ours}"))
}

/// Reports `ECS_CONFIG_FILE` in a file: the file cannot name itself.
fn file_names_itself(sources: &[&dyn Source], problems: &mut Vec<Problem>) {
    if let Some(source) = sources.iter().skip(1).find(|source| source.get(CONFIG_FILE).is_some()) {
        problems.push(Problem {
            variable: CONFIG_FILE.to_owned(),
            place: source.place(CONFIG_FILE),
            shape: "set where it is not read".to_owned(),
            expected: "it in the environment: Environment= in the unit, or docker run --env".to_owned(),
            instead: "it is ignored".to_owned(),
            severity: Severity::Changes,
        });
    }
}

fn is_true(values: &Values, name: &str) -> bool {
    debug_assert!(find(name).is_some(), "{name} is not a row");
    values.get(name).is_some_and(|value| value.canonical == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_hosts_without_a_proxy() {
        let ours = "169.254.169.254,169.254.170.2,/var/run/docker.sock";
        let docker = "unix:///var/run/docker.sock";
        assert_eq!(no_proxy(None, None, docker), ours);
        assert_eq!(no_proxy(Some("a,b"), Some("c"), docker), "a,b");
        assert_eq!(no_proxy(None, Some("c"), docker), format!("c,{ours}"));
        assert_eq!(no_proxy(None, None, "tcp://10.0.0.1:2375"), "169.254.169.254,169.254.170.2,10.0.0.1:2375");
        assert_eq!(no_proxy(None, None, "tcp://u:p@10.0.0.1:1"), "169.254.169.254,169.254.170.2,10.0.0.1:1");
    }
}
