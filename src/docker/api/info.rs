//! The engine's facts about itself (`GET /info`) that do not change while containers live.
//!
//! Owns the parsing of the answer. Invariant: where an answer lacks a member, the engine is assumed to behave like the oldest
//! engines.

use ecs_core::model::{CgroupDriver, text};
use serde_json::Value;

/// Facts about an engine that stay the same while its containers live.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Info {
    /// The driver that creates the containers' control groups: `cgroupfs` or systemd.
    pub(crate) driver: CgroupDriver,
    /// The engine's own id; empty if the answer has none.
    pub(crate) id: String,
}

/// Parses the answer to `GET /info`.
pub(crate) fn parse(answer: &Value) -> Info {
    let driver = match answer.get("CgroupDriver").and_then(Value::as_str) {
        Some("systemd") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    Info { driver, id: text::cleaned(answer.get("ID").and_then(Value::as_str).unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_members_mean_what_the_oldest_engines_do() {
        for (answer, driver, id) in [
            (json!({"CgroupDriver": "systemd", "ID": "ABCD:EFGH"}), CgroupDriver::Systemd, "ABCD:EFGH"),
            (json!({"CgroupDriver": "cgroupfs", "ID": "a\nb"}), CgroupDriver::Cgroupfs, "a b"),
            (json!({"CgroupDriver": "none", "ID": 7}), CgroupDriver::Cgroupfs, ""),
            (json!({}), CgroupDriver::Cgroupfs, ""),
            (json!(null), CgroupDriver::Cgroupfs, ""),
        ] {
            assert_eq!(parse(&answer), Info { driver, id: id.to_owned() }, "{answer}");
        }
    }
}
