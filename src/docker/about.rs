//! What an engine says about itself (`GET /info`), and does not change while containers live.
//!
//! Owns the reading of the answer. Invariant: what an engine does not say is what the oldest engines do.

use crate::model::{CgroupDriver, text};
use serde_json::Value;

/// What does not change of an engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Who makes the control groups of containers.
    pub(super) driver: CgroupDriver,
    /// What it calls itself; empty if it does not say.
    pub(super) id: String,
}

/// From the answer to `GET /info`.
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
