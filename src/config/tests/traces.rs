//! Where traces are sent: the variables of OpenTelemetry.

use super::*;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn traces(environment: &[(&str, &str)]) -> Option<TraceSettings> {
    config(environment).traces()
}

#[test]
fn there_are_no_traces_without_an_endpoint() {
    assert_eq!(traces(&[]), None);
    assert_eq!(traces(&[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=b")]), None);
    assert_eq!(traces(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), None);
    assert!(traces(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]).is_some());
}

#[test]
fn the_path_is_added_to_the_common_endpoint_alone() {
    let only = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    for (common, traces_only, url) in [
        ("http://c:4318", "", "http://c:4318/v1/traces"),
        ("http://c:4318/", "", "http://c:4318/v1/traces"),
        ("https://u:p@c/otlp/", "", "https://u:p@c/otlp/v1/traces"),
        ("http://c", "http://t/here", "http://t/here"),
        ("", "http://t", "http://t"),
    ] {
        let found = traces(&[(ENDPOINT.0, common), (only, traces_only)]).unwrap();
        assert_eq!(found.url, url);
    }
}

#[test]
fn headers_and_attributes_are_read_and_those_for_traces_win() {
    let found = traces(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=all"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=mine, x = a%20b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=lost,team=a%2Cb"),
        ("OTEL_SERVICE_NAME", "mine"),
    ]);
    let found = found.unwrap();
    assert_eq!(found.headers, [("api-key".to_owned(), "mine".into()), ("x".to_owned(), "a b".into())]);
    assert_eq!(found.timeout, Span::millis(2500));
    let attributes: Vec<_> = found.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("service.name", "mine"), ("team", "a,b")]);
    let loaded = from(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=2")]);
    assert!(loaded.problems.is_empty(), "both may be set: {:?}", texts(&loaded));
}

#[test]
fn a_bad_value_is_one_message_and_loses_nothing_else() {
    for (name, value, shown, instead) in [
        (ENDPOINT.0, "grpc://c:4317", "grpc://c:4317", "counts as not set"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "one of http/json", "the default `http/json` is used"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "one of http/json", "the default `http/json` is used"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a whole number, from 1 to 600000", "the default `10000` is used"),
        ("OTEL_EXPORTER_OTLP_HEADERS", MARKER, "a text of 19 characters", "counts as not set"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2", "a text of 11 characters", "counts as not set"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pair", "a list such as key=value", "counts as not set"),
        ("OTEL_SDK_DISABLED", "yes", "one of true, false", "the default `false` is used"),
    ] {
        let loaded = from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t"), (name, value)]);
        let found = texts(&loaded);
        assert!(found.len() == 1 && found[0].contains(name), "{name}={value}: {found:?}");
        assert!(found[0].contains(shown) && found[0].contains(instead), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
        assert!(loaded.config.unwrap().traces().is_some(), "{name}");
    }
}

#[test]
fn headers_are_never_shown() {
    let loaded = from(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2")]);
    let shown = format!("{:?}{:?}{:?}", loaded.effective, loaded.config, loaded.config.as_ref().unwrap().traces());
    assert!(!shown.contains("hunter2") && shown.contains("[set, not shown]"), "{shown}");
}
