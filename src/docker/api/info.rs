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
    /// The engine labels the files of containers for SELinux.
    pub(crate) selinux: bool,
}

/// Parses the answer to `GET /info`.
pub(crate) fn parse(answer: &Value) -> Info {
    let driver = match answer.get("CgroupDriver").and_then(Value::as_str) {
        Some("systemd") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let id = text::cleaned(answer.get("ID").and_then(Value::as_str).unwrap_or_default());
    Info { driver, id, has_containerd_store: has_containerd_store(answer), selinux: has_selinux(answer) }
}

/// Whether the images are in containerd's store, from the answer to `GET /info`.
pub(crate) fn has_containerd_store(answer: &Value) -> bool {
    answer["DriverStatus"].as_array().into_iter().flatten().any(|pair| {
        let [name, value] = [0, 1].map(|at| pair[at].as_str().unwrap_or_default());
        name == "driver-type" && value.starts_with("io.containerd.snapshotter.")
    })
}

/// Whether the engine uses SELinux. Older engines write `selinux`, newer ones `name=selinux`, perhaps with options. (The Go agent
/// knows only the older form.)
fn has_selinux(answer: &Value) -> bool {
    let options = answer["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    options
        .map(|option| option.split(',').next().unwrap_or_default())
        .any(|name| matches!(name, "selinux" | "name=selinux"))
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
            let id = id.to_owned();
            assert_eq!(parse(&answer), Info { driver, id, has_containerd_store: false, selinux: false }, "{answer}");
        }
        assert!(
            parse(&json!({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})).has_containerd_store
        );
        for (options, wanted) in [
            (json!(["name=seccomp,profile=default", "name=selinux"]), true),
            (json!(["selinux"]), true),
            (json!(["name=seccomp,profile=selinux"]), false),
            (json!(null), false),
        ] {
            assert_eq!(parse(&json!({"SecurityOptions": options})).selinux, wanted, "{options}");
        }
        assert!(!parse(&json!({"DriverStatus": [["Backing Filesystem", "extfs"]]})).has_containerd_store);
    }
}
