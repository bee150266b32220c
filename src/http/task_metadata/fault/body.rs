//! The body of a request about a fault: its members, their checks in the order of the Go agent, and the texts of its errors
//! (spec `task-metadata.md` §9.1).

use crate::http::task_metadata::requests::{BodyError, Fields};
use ecs_core::model::Protocol;
use ecs_core::model::fault::{BlackholePort, Destination, Direction, Fault, FaultId, FaultOperation, Traffic};
use ecs_core::model::text::cut;
use std::net::IpAddr;

/// The type of a fault in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::task_metadata) enum Kind {
    Blackhole,
    Latency,
    Loss,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::task_metadata) enum Verb {
    Start,
    Stop,
    Status,
}

/// Upper limit of a wrong value as the answer shows it, in bytes.
const MAX_SHOWN: usize = 256;
/// The connections that are affected unless the request has a percentage.
const ALL_FLOWS: u8 = 100;

/// The operation in a request. The error is the text of the answer.
pub(in crate::http::task_metadata) fn operation(kind: Kind, verb: Verb, body: &str) -> Result<FaultOperation, String> {
    let id = match (kind, verb) {
        // Compat: only a blackhole needs its parameters to be stopped and shown.
        (Kind::Latency, Verb::Stop | Verb::Status) => FaultId::Latency,
        (Kind::Loss, Verb::Stop | Verb::Status) => FaultId::Loss,
        (Kind::Blackhole, _) | (_, Verb::Start) => {
            let fault = fault(kind, body)?;
            if verb == Verb::Start {
                return Ok(FaultOperation::Start(fault));
            }
            fault.id()
        }
    };
    Ok(if verb == Verb::Stop { FaultOperation::Stop(id) } else { FaultOperation::Status(id) })
}

fn fault(kind: Kind, body: &str) -> Result<Fault, String> {
    let name = match kind {
        Kind::Blackhole => "NetworkBlackholePortRequest",
        Kind::Latency => "NetworkLatencyRequest",
        Kind::Loss => "NetworkPacketLossRequest",
    };
    let fields = Fields::read(body, name).map_err(text)?;
    match kind {
        Kind::Blackhole => blackhole(&fields),
        Kind::Latency => latency(&fields),
        Kind::Loss => loss(&fields),
    }
}

fn text(error: BodyError) -> String {
    match error {
        BodyError::Empty => "required request body is missing".to_owned(),
        BodyError::Wrong(text) => text,
    }
}

fn missing(name: &str) -> String {
    format!("required parameter {name} is missing")
}

fn invalid(value: &str, name: &str) -> String {
    format!("invalid value {} for parameter {name}", cut(value, MAX_SHOWN))
}

fn blackhole(fields: &Fields<'_>) -> Result<Fault, String> {
    // Everything is decoded before anything is checked.
    let port: Option<u16> = fields.value("Port", "uint16").map_err(text)?;
    let protocol = fields.text("Protocol").map_err(text)?;
    let direction = fields.text("TrafficType").map_err(text)?;
    let spared = fields.texts("SourcesToFilter").map_err(text)?;
    let port = port.ok_or_else(|| missing("Port"))?;
    let required = [("Protocol", &protocol), ("TrafficType", &direction)];
    if let Some((name, _)) = required.into_iter().find(|(_, value)| value.is_empty()) {
        return Err(missing(name));
    }
    let protocol = match protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(invalid(other, "Protocol")),
    };
    let direction = match direction.as_str() {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        other => return Err(invalid(other, "TrafficType")),
    };
    let spared = destinations(&spared, "SourcesToFilter")?;
    Ok(Fault::Blackhole { port: BlackholePort { direction, protocol, port }, spared })
}

/// The members that latency and loss have in common, decoded.
struct Affected {
    to: Vec<String>,
    spared: Vec<String>,
    flows: Option<i64>,
}

impl Affected {
    fn read(fields: &Fields<'_>) -> Result<Self, String> {
        Ok(Self {
            to: fields.texts("Sources").map_err(text)?,
            spared: fields.texts("SourcesToFilter").map_err(text)?,
            flows: fields.value("FlowsPercent", "int").map_err(text)?,
        })
    }

    fn checked(&self) -> Result<Traffic, String> {
        if self.to.is_empty() {
            return Err(missing("Sources"));
        }
        let to = destinations(&self.to, "Sources")?;
        let spared = destinations(&self.spared, "SourcesToFilter")?;
        let flows_percent = match self.flows {
            None => ALL_FLOWS,
            // Compat: the name begins in lower case.
            Some(flows) => percent(flows).ok_or_else(|| invalid(&flows.to_string(), "flowsPercent"))?,
        };
        Ok(Traffic { to, spared, flows_percent })
    }
}

fn percent(number: i64) -> Option<u8> {
    u8::try_from(number).ok().filter(|number| (1..=100).contains(number))
}

fn latency(fields: &Fields<'_>) -> Result<Fault, String> {
    let delay: Option<u64> = fields.value("DelayMilliseconds", "uint64").map_err(text)?;
    let jitter: Option<u64> = fields.value("JitterMilliseconds", "uint64").map_err(text)?;
    let affected = Affected::read(fields)?;
    let delay = delay.ok_or_else(|| missing("DelayMilliseconds"))?;
    let jitter = jitter.ok_or_else(|| missing("JitterMilliseconds"))?;
    if (delay, jitter) == (0, 0) {
        return Err("required either DelayMilliseconds or JitterMilliseconds to be non-zero".to_owned());
    }
    Ok(Fault::Latency { delay, jitter, traffic: affected.checked()? })
}

fn loss(fields: &Fields<'_>) -> Result<Fault, String> {
    let lost: Option<u64> = fields.value("LossPercent", "uint64").map_err(text)?;
    let affected = Affected::read(fields)?;
    let lost = lost.ok_or_else(|| missing("LossPercent"))?;
    let percent = i64::try_from(lost).ok().and_then(percent);
    let percent = percent.ok_or_else(|| invalid(&lost.to_string(), "LossPercent"))?;
    Ok(Fault::Loss { percent, traffic: affected.checked()? })
}

fn destinations(texts: &[String], name: &str) -> Result<Vec<Destination>, String> {
    texts.iter().map(|text| destination(text).ok_or_else(|| invalid(text, name))).collect()
}

/// An address, or a block such as `10.0.0.0/8`; `None`: it is neither.
fn destination(text: &str) -> Option<Destination> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    // Decimal digits only: Rust also takes a sign.
    let is_number = |bits: &str| !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits: Option<u8> = match bits {
        Some(bits) if is_number(bits) => Some(bits.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    let (address, bits, max) = match address.parse().ok()? {
        IpAddr::V4(_) => (address.to_owned(), bits, 32),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            // To Go this is an IPv4 address, but no program takes this form of it.
            Some(v4) if bits.is_none_or(|bits| bits >= 96) => (v4.to_string(), bits.map(|bits| bits - 96), 32),
            Some(_) => return None,
            None => (address.to_owned(), bits, 128),
        },
    };
    if bits.is_some_and(|bits| bits > max) {
        return None;
    }
    let text = bits.map_or_else(|| address.clone(), |bits| format!("{address}/{bits}"));
    Destination::new(&text, max == 128)
}

#[cfg(test)]
mod tests;
