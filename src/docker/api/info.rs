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
    /// The images are in containerd's store, the default of new installations from Docker 29 on.
    pub(crate) has_containerd_store: bool,
}

/// Parses the answer to `GET /info`.
pub(crate) fn parse(answer: &Value) -> Info {
    let driver = match answer.get("CgroupDriver").and_then(Value::as_str) {
        Some("systemd") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let id = text::cleaned(answer.get("ID").and_then(Value::as_str).unwrap_or_default());
    Info { driver, id, has_containerd_store: has_containerd_store(answer) }
}

/// Whether the images are in containerd's store, from the answer to `GET /info`.
pub(crate) fn has_containerd_store(answer: &Value) -> bool {
    answer["DriverStatus"].as_array().into_iter().flatten().any(|pair| {
        let [name, value] = [0, 1].map(|at| pair[at].as_str().unwrap_or_default());
        name == "driver-type" && value.starts_with("io.containerd.snapshotter.")
    })
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
            assert_eq!(parse(&answer), Info { driver, id: id.to_owned(), has_containerd_store: false }, "{answer}");
        }
        assert!(
            parse(&json!({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})).has_containerd_store
        );
        assert!(!parse(&json!({"DriverStatus": [["Backing Filesystem", "extfs"]]})).has_containerd_store);
    }
}
