//! Spans as the body of a request, in the JSON form of OTLP. Ids are hexadecimal there, numbers of 64 bits are texts, enumerations
//! are numbers. Also reads the answer.

use super::span::{Span, Value};
use ecs_core::model::text::cleaned;
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// The kind "internal": a span without a remote end.
const INTERNAL: u8 = 1;
/// The status "error".
const ERROR: u8 = 2;

/// The body of a request with these spans. `resource` describes the sender.
pub(super) fn request(resource: &[(String, String)], version: &str, spans: &[Span]) -> String {
    let resource: Vec<Json> =
        resource.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect();
    // Each span becomes text at once: the tree of a whole batch would take some ten times the memory.
    let spans: Vec<String> = spans.iter().map(|each| span(each).to_string()).collect();
    let (resource, spans) = (Json::from(resource), spans.join(","));
    let scope = json!({"name": "ecs-agent", "version": version});
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":{resource}}},"scopeSpans":[{{"scope":{scope},"spans":[{spans}]}}]}}]}}"#
    )
}

fn span(span: &Span) -> Json {
    let attributes = span.attributes.iter().map(|(key, value)| json!({"key": key, "value": value_of(value)}));
    let mut encoded = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": nanos(span.start_millis),
        "endTimeUnixNano": nanos(span.end_millis),
        "attributes": attributes.collect::<Vec<_>>(),
    });
    if let Some(parent) = &span.parent {
        encoded["parentSpanId"] = hex(parent).into();
    }
    if let Some(error) = &span.error {
        encoded["status"] = json!({"code": ERROR, "message": error});
    }
    encoded
}

fn value_of(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
    }
}

fn nanos(millis: u64) -> String {
    (u128::from(millis) * 1_000_000).min(u128::from(u64::MAX)).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The number of spans that the collector refused although it accepted the request, and why.
pub(super) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Json = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let number = partial.get("rejectedSpans")?;
    let number = number.as_u64().or_else(|| number.as_str()?.parse().ok()).filter(|number| *number > 0)?;
    Some((number, cleaned(partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_otlp_wants_them() {
        let failed = Span {
            trace: [0x0a; 16],
            id: [1; 8],
            parent: Some([0xff; 8]),
            name: "pull",
            start_millis: 1_795_303_000_025,
            end_millis: u64::MAX,
            error: Some("no \"such\" image".to_owned()),
            attributes: vec![("container.name", Value::Text("app".to_owned())), ("attempts", Value::Number(2))],
        };
        let root = Span { parent: None, error: None, attributes: Vec::new(), ..failed.clone() };
        let resource = [("service.name".to_owned(), "ecs-agent".to_owned())];
        let body: Json = serde_json::from_str(&request(&resource, "1.2.3", &[root, failed])).unwrap();
        let common = json!({
            "traceId": "0a".repeat(16), "spanId": "01".repeat(8), "name": "pull", "kind": 1,
            "startTimeUnixNano": "1795303000025000000", "endTimeUnixNano": u64::MAX.to_string(), "attributes": [],
        });
        let mut failed = common.clone();
        failed["parentSpanId"] = "ff".repeat(8).into();
        failed["status"] = json!({"code": 2, "message": "no \"such\" image"});
        failed["attributes"] = json!([
            {"key": "container.name", "value": {"stringValue": "app"}},
            {"key": "attempts", "value": {"intValue": "2"}},
        ]);
        let wanted = json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "ecs-agent"}}]},
            "scopeSpans": [{"scope": {"name": "ecs-agent", "version": "1.2.3"}, "spans": [common, failed]}],
        }]});
        assert_eq!(body, wanted);
    }

    #[test]
    fn a_partial_success_names_the_number_and_the_reason() {
        for (answer, wanted) in [
            ("", None),
            ("{}", None),
            (r#"{"partialSuccess":{}}"#, None),
            (r#"{"partialSuccess":{"rejectedSpans":"0","errorMessage":"only a warning"}}"#, None),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too\nold"}}"#, Some((3, "too old".to_owned()))),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, Some((2, String::new()))),
            (r#"{"partialSuccess":{"rejectedSpans":-1}}"#, None),
        ] {
            assert_eq!(refused(answer.as_bytes()), wanted, "{answer}");
        }
    }
}
