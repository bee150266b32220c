//! The fuzzer's entry points to the bodies that containers send.

use super::fault::body::{Kind, Verb, operation};
use super::protection;
use ecs_core::model::fault::{Destination, Fault, FaultOperation};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Reads the body of a request about a fault. The first byte chooses the type of the fault and the operation.
///
/// # Panics
/// An error is no clean text, or a value is accepted that no program of the host takes as one word.
pub fn fault_body(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let kind = [Kind::Blackhole, Kind::Latency, Kind::Loss][usize::from(choice % 3)];
    let verb = [Verb::Start, Verb::Stop, Verb::Status][usize::from(choice / 3 % 3)];
    let operation = match operation(kind, verb, &String::from_utf8_lossy(body)) {
        Ok(operation) => operation,
        Err(error) => return crate::input::fuzz::assert_clean(&error),
    };
    let FaultOperation::Start(fault) = operation else { return };
    match fault {
        Fault::Blackhole { spared, .. } => assert_words(&spared),
        Fault::Latency { traffic, delay, jitter } => {
            assert!(delay > 0 || jitter > 0, "no latency");
            assert_traffic(&traffic);
        }
        Fault::Loss { traffic, percent } => {
            assert!((1..=100).contains(&percent), "{percent} %");
            assert_traffic(&traffic);
        }
    }
}

fn assert_traffic(traffic: &ecs_core::model::fault::Traffic) {
    assert!((1..=100).contains(&traffic.flows_percent), "{} %", traffic.flows_percent);
    assert!(!traffic.to.is_empty(), "no destination");
    assert_words(&traffic.to);
    assert_words(&traffic.spared);
}

fn assert_words(destinations: &[Destination]) {
    for destination in destinations {
        let text = destination.as_str();
        let address = text.split('/').next().unwrap_or_default();
        let address: std::net::IpAddr = address.parse().expect("an address");
        assert_eq!(address.is_ipv6(), destination.is_ipv6(), "{text}");
        assert!(!text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    }
}

/// Reads the body of a change of the protection of a task.
///
/// # Panics
/// A body is accepted that is no object, or has another member.
pub fn protection_body(data: &[u8]) {
    let body = String::from_utf8_lossy(data);
    if protection::decoded(&body).is_none() {
        return;
    }
    // Only names are looked at: a member that a later one replaces may be a number that no parser takes.
    let mut values = serde_json::Deserializer::from_str(&body);
    let members = Option::<BTreeMap<String, Box<RawValue>>>::deserialize(&mut values);
    let known = ["protectionenabled", "expiresinminutes"];
    let members = members.expect("it is an object or null").unwrap_or_default();
    assert!(members.keys().all(|name| known.contains(&name.to_lowercase().as_str())), "{body}");
}
