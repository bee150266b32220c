//! Every check of a request about a fault, and every text.

use super::*;

fn start(kind: Kind, body: &str) -> Result<Fault, String> {
    operation(kind, Verb::Start, body).map(|operation| match operation {
        FaultOperation::Start(fault) => fault,
        other => panic!("{other:?}"),
    })
}

fn blackhole_port() -> BlackholePort {
    BlackholePort { direction: Direction::Egress, protocol: Protocol::Tcp, port: 443 }
}

const BLACKHOLE: &str = r#"{"Port": 443, "Protocol": "tcp", "TrafficType": "egress"}"#;

#[test]
fn a_request_becomes_an_operation() {
    let destination = |text: &str| destination(text).unwrap();
    let spared = vec![destination("10.0.0.1"), destination("2001:db8::/32")];
    let body = r#"{"port": 443, "PROTOCOL": "tcp", "TrafficType": "egress", "x": 1,
        "SourcesToFilter": ["10.0.0.1", "2001:db8::/32"]}"#;
    let fault = Fault::Blackhole { port: blackhole_port(), spared };
    assert_eq!(start(Kind::Blackhole, body), Ok(fault));
    let id = FaultId::Blackhole(blackhole_port());
    assert_eq!(operation(Kind::Blackhole, Verb::Stop, BLACKHOLE), Ok(FaultOperation::Stop(id)));
    assert_eq!(operation(Kind::Blackhole, Verb::Status, BLACKHOLE), Ok(FaultOperation::Status(id)));
    let body = r#"{"DelayMilliseconds": 200, "JitterMilliseconds": 0, "Sources": ["0.0.0.0/0"]}"#;
    let traffic = Traffic { to: vec![destination("0.0.0.0/0")], spared: Vec::new(), flows_percent: 100 };
    assert_eq!(start(Kind::Latency, body), Ok(Fault::Latency { delay: 200, jitter: 0, traffic }));
    let body = r#"{"LossPercent": 100, "Sources": ["::/0"], "SourcesToFilter": ["::1"], "FlowsPercent": 1}"#;
    let traffic = Traffic { to: vec![destination("::/0")], spared: vec![destination("::1")], flows_percent: 1 };
    assert_eq!(start(Kind::Loss, body), Ok(Fault::Loss { percent: 100, traffic }));
}

#[test]
fn latency_and_loss_are_stopped_and_shown_without_a_body() {
    for body in ["", "nonsense", "{\"Sources\": 7}"] {
        for (kind, id) in [(Kind::Latency, FaultId::Latency), (Kind::Loss, FaultId::Loss)] {
            assert_eq!(operation(kind, Verb::Stop, body), Ok(FaultOperation::Stop(id)));
            assert_eq!(operation(kind, Verb::Status, body), Ok(FaultOperation::Status(id)));
            assert!(start(kind, body).is_err());
        }
        assert!(operation(Kind::Blackhole, Verb::Stop, body).is_err());
        assert!(operation(Kind::Blackhole, Verb::Status, body).is_err());
    }
}

#[test]
fn each_check_of_a_blackhole_has_its_text() {
    for (body, wanted) in [
        ("", "required request body is missing"),
        ("{", "unexpected EOF"),
        (
            r#"{"Port": "x", "Protocol": 1}"#,
            "json: cannot unmarshal string into Go struct field NetworkBlackholePortRequest.Port of type uint16",
        ),
        (r#"{"Protocol": "icmp", "TrafficType": "up"}"#, "required parameter Port is missing"),
        (r#"{"Port": 0}"#, "required parameter Protocol is missing"),
        (r#"{"Port": 0, "Protocol": ""}"#, "required parameter Protocol is missing"),
        (r#"{"Port": 0, "Protocol": "icmp"}"#, "required parameter TrafficType is missing"),
        (r#"{"Port": 0, "Protocol": "icmp", "TrafficType": "up"}"#, "invalid value icmp for parameter Protocol"),
        (r#"{"Port": 0, "Protocol": "TCP", "TrafficType": "egress"}"#, "invalid value TCP for parameter Protocol"),
        (r#"{"Port": 0, "Protocol": "udp", "TrafficType": "up"}"#, "invalid value up for parameter TrafficType"),
        (
            r#"{"Port": 0, "Protocol": "udp", "TrafficType": "ingress", "SourcesToFilter": ["10.0.0.1", "x"]}"#,
            "invalid value x for parameter SourcesToFilter",
        ),
        (
            r#"{"Port": 0, "Protocol": "udp", "TrafficType": "ingress", "SourcesToFilter": [null]}"#,
            "invalid value  for parameter SourcesToFilter",
        ),
    ] {
        for verb in [Verb::Start, Verb::Stop, Verb::Status] {
            assert_eq!(operation(Kind::Blackhole, verb, body), Err(wanted.to_owned()), "{body}");
        }
    }
    assert!(start(Kind::Blackhole, r#"{"Port": 0, "Protocol": "udp", "TrafficType": "ingress"}"#).is_ok());
    let long = format!(r#"{{"Port": 1, "Protocol": "{}", "TrafficType": "egress"}}"#, "x".repeat(60_000));
    assert!(start(Kind::Blackhole, &long).unwrap_err().len() < 400);
}

#[test]
fn each_check_of_latency_and_loss_has_its_text() {
    let shaping = [
        (r#""Sources": []"#, "required parameter Sources is missing"),
        (r#""Sources": null"#, "required parameter Sources is missing"),
        (r#""Sources": ["a"], "SourcesToFilter": ["b"]"#, "invalid value a for parameter Sources"),
        (r#""Sources": ["::1"], "SourcesToFilter": ["b"]"#, "invalid value b for parameter SourcesToFilter"),
        (r#""Sources": ["::1"], "FlowsPercent": 0"#, "invalid value 0 for parameter flowsPercent"),
        (r#""Sources": ["::1"], "FlowsPercent": 101"#, "invalid value 101 for parameter flowsPercent"),
        (r#""Sources": ["::1"], "FlowsPercent": -5"#, "invalid value -5 for parameter flowsPercent"),
    ];
    for (rest, wanted) in shaping {
        let latency = format!(r#"{{"DelayMilliseconds": 1, "JitterMilliseconds": 1, {rest}}}"#);
        let loss = format!(r#"{{"LossPercent": 1, {rest}}}"#);
        assert_eq!(start(Kind::Latency, &latency), Err(wanted.to_owned()));
        assert_eq!(start(Kind::Loss, &loss), Err(wanted.to_owned()));
    }
    for (kind, body, wanted) in [
        (Kind::Latency, "{}", "required parameter DelayMilliseconds is missing"),
        (Kind::Latency, r#"{"DelayMilliseconds": 0}"#, "required parameter JitterMilliseconds is missing"),
        (
            Kind::Latency,
            r#"{"DelayMilliseconds": 0, "JitterMilliseconds": 0}"#,
            "required either DelayMilliseconds or JitterMilliseconds to be non-zero",
        ),
        (
            Kind::Latency,
            r#"{"DelayMilliseconds": -1}"#,
            "json: cannot unmarshal number -1 into Go struct field NetworkLatencyRequest.DelayMilliseconds of type uint64",
        ),
        (Kind::Loss, "null", "required parameter LossPercent is missing"),
        (Kind::Loss, r#"{"LossPercent": 0}"#, "invalid value 0 for parameter LossPercent"),
        (Kind::Loss, r#"{"LossPercent": 101}"#, "invalid value 101 for parameter LossPercent"),
        (
            Kind::Loss,
            r#"{"LossPercent": 1, "Sources": "::1"}"#,
            "json: cannot unmarshal string into Go struct field NetworkPacketLossRequest.Sources of type []*string",
        ),
    ] {
        assert_eq!(start(kind, body), Err(wanted.to_owned()), "{body}");
    }
}

#[test]
fn a_destination_is_an_address_or_a_block() {
    for (text, wanted) in [
        ("10.1.2.3", Some(("10.1.2.3", false))),
        ("10.0.0.0/8", Some(("10.0.0.0/8", false))),
        ("10.0.0.0/08", Some(("10.0.0.0/8", false))),
        ("0.0.0.0/0", Some(("0.0.0.0/0", false))),
        ("2001:DB8::1", Some(("2001:DB8::1", true))),
        ("2001:db8::/32", Some(("2001:db8::/32", true))),
        ("::/0", Some(("::/0", true))),
        ("::ffff:10.1.2.3", Some(("10.1.2.3", false))),
        ("::ffff:10.1.2.0/120", Some(("10.1.2.0/24", false))),
        ("::ffff:10.1.2.0/95", None),
        ("::ffff:10.1.2.0/129", None),
        ("10.0.0.0/33", None),
        ("::/129", None),
        ("10.0.0.0/", None),
        ("10.0.0.0/+8", None),
        ("10.0.0.0/8/8", None),
        ("10.0.0.0/999", None),
        ("10.0.0", None),
        ("010.0.0.1", None),
        ("fe80::1%eth0", None),
        ("localhost", None),
        (" 10.0.0.1", None),
        ("10.0.0.1 -j ACCEPT", None),
        ("", None),
    ] {
        let found = destination(text);
        assert_eq!(found.as_ref().map(|found| (found.as_str(), found.is_ipv6())), wanted, "{text}");
    }
}
