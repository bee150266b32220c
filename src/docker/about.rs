//! The engine's facts about itself (`GET /info`) that do not change while containers live.
//!
//! Owns the reading of the answer. Invariant: where an answer lacks a member, the engine is taken to do what the oldest engines
//! do.

use crate::model::{CgroupDriver, text};
use serde_json::Value;

/// Facts about an engine that stay the same while its containers live.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct About {
    /// The driver that makes the containers' control groups: `cgroupfs` or systemd.
    pub(super) driver: CgroupDriver,
    /// The engine's own id; empty if the answer has none.
    pub(super) id: String,
}

/// Reads the answer to `GET /info`.
pub(super) fn about(answer: &Value) -> About {
    let driver = match answer.get("CgroupDriver").and_then(Value::as_str) {
        Some("systemd") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    About { driver, id: text::cleaned(answer.get("ID").and_then(Value::as_str).unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_engine_does_not_say_is_what_the_oldest_do() {
        for (answer, driver, id) in [
            (json!({"CgroupDriver": "systemd", "ID": "ABCD:EFGH"}), CgroupDriver::Systemd, "ABCD:EFGH"),
            (json!({"CgroupDriver": "cgroupfs", "ID": "a\nb"}), CgroupDriver::Cgroupfs, "a b"),
            (json!({"CgroupDriver": "none", "ID": 7}), CgroupDriver::Cgroupfs, ""),
            (json!({}), CgroupDriver::Cgroupfs, ""),
            (json!(null), CgroupDriver::Cgroupfs, ""),
        ] {
            assert_eq!(about(&answer), About { driver, id: id.to_owned() }, "{answer}");
        }
    }
}
