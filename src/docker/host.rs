//! Facts about the engine: its cgroup driver, its volume drivers and its bridges.
//!
//! Owns the calls. Other modules decide what follows from the answers. Invariant: an engine that does not answer is an error,
//! never an engine without drivers or without a bridge.

use super::Docker;
use super::api::error::DockerError;
use super::api::info::{self, Info};
use ecs_core::model::cgroup::cgroup_parent;
use ecs_core::model::{Bridges, CgroupDriver, CreateRequest, OpError, text};
use serde_json::Value;

/// The directory in which the engine looks for the sockets of legacy plugins.
const PLUGIN_SOCKETS: &str = "/run/docker/plugins";
const PLUGIN_SPECS: [&str; 2] = ["/etc/docker/plugins", "/usr/lib/docker/plugins"];

/// An option of a bridge network: it is the default one.
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
/// An option of a bridge network: the name of its interface.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// How many bridges with a name of their own are known, at most: each has a rule in the firewall.
const MAX_NAMED: usize = 64;
/// Upper limit of an interface's name, in bytes: that of the kernel.
const MAX_INTERFACE: usize = 15;

impl Docker {
    /// The driver that creates the containers' control groups.
    ///
    /// # Errors
    /// The engine gave no answer, or an error.
    pub async fn cgroup_driver(&self) -> Result<CgroupDriver, OpError> {
        Ok(self.info().await?.driver)
    }

    /// The engine's own id, which does not depend on the endpoint; empty if the engine has none.
    ///
    /// # Errors
    /// The engine gave no answer, or an error.
    pub async fn engine_id(&self) -> Result<String, OpError> {
        Ok(self.info().await?.id.clone())
    }

    /// The engine's facts. They do not change while containers live, so the engine is asked once.
    async fn info(&self) -> Result<&Info, OpError> {
        let ask = async || {
            let answer = self.reader.get(&["info"], &[], self.settings.limits.info).await;
            answer
                .map(|answer| info::parse(&answer))
                .map_err(|error| error.to_read_error("CannotDescribeHostError", "info"))
        };
        self.info.get_or_try_init(ask).await
    }

    /// The engine labels the files of containers for SELinux, which matters if the container has a mount of the agent's files.
    pub(super) async fn labels_files(&self, request: &CreateRequest) -> Result<bool, OpError> {
        Ok(request.spec.metadata_file.is_some() && self.info().await?.selinux)
    }

    /// The parent control group of a container; `None` = the engine's default.
    pub(super) async fn cgroup_parent(&self, request: &CreateRequest) -> Result<Option<String>, OpError> {
        match request.in_task_cgroup {
            true => Ok(Some(cgroup_parent(self.cgroup_driver().await?, &request.task))),
            false => Ok(None),
        }
    }

    /// The interfaces of the bridges.
    ///
    /// # Errors
    /// The networks cannot be listed.
    pub async fn bridges(&self) -> Result<Bridges, DockerError> {
        let filters = [("filters", r#"{"driver":["bridge"]}"#)];
        Ok(bridges(&self.reader.get(&["networks"], &filters, self.settings.limits.info).await?))
    }

    /// The names of the volume drivers besides `local`, in the order in which they are registered with ECS: first the legacy
    /// plugins, then the managed ones. A managed plugin with the tag `:latest` is also listed without the tag, directly before.
    ///
    /// # Errors
    /// The plugins cannot be listed.
    pub async fn volume_drivers(&self) -> Result<Vec<String>, OpError> {
        let filters = r#"{"capability":{"volumedriver":true},"enabled":{"true":true}}"#;
        let answer = self.reader.get(&["plugins"], &[("filters", filters)], self.settings.limits.plugins).await;
        let answer = answer.map_err(|error| error.to_read_error("CannotListPluginsError", "listing plugins"))?;
        let legacy = self.files.run("the directories of Docker's plugins", legacy_plugins).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "Docker's plugin directories cannot be read; their plugins are not registered with ECS");
            Vec::new()
        });
        Ok(legacy.into_iter().chain(managed_plugins(&answer)).collect())
    }
}

/// The interfaces in a list of bridge networks. A network without a name in its options has the usual one, `br-…`.
fn bridges(networks: &Value) -> Bridges {
    let options = networks.as_array().into_iter().flatten().filter_map(|network| network.get("Options"));
    let mut found = Bridges::default();
    for options in options {
        let option = |name: &str| options.get(name).and_then(Value::as_str).map(text::cleaned);
        let Some(name) = option(BRIDGE_NAME).filter(|name| !name.is_empty()) else { continue };
        if option(DEFAULT_BRIDGE).as_deref() == Some("true") {
            found.default.get_or_insert(name);
        } else if found.named.len() < MAX_NAMED && name.len() <= MAX_INTERFACE {
            found.named.insert(name);
        }
    }
    found
}

/// The names of the managed plugins.
fn managed_plugins(answer: &Value) -> Vec<String> {
    let plugins = answer.as_array().into_iter().flatten();
    let names = plugins.filter_map(|plugin| plugin.get("Name")?.as_str());
    names.flat_map(|name| name.strip_suffix(":latest").into_iter().chain([name])).map(str::to_owned).collect()
}

/// The names of the legacy plugins. Each is a socket, possibly in a directory of its own, or a file that names the socket.
fn legacy_plugins() -> Vec<String> {
    let entries = |directory: &str| {
        let list = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<_> = list.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let mut names = Vec::new();
    for path in entries(PLUGIN_SOCKETS) {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let is_socket = path.extension().is_some_and(|end| end == "sock");
        if is_socket || path.join(&name).with_extension("sock").exists() {
            names.push(name);
        }
    }
    for path in PLUGIN_SPECS.into_iter().flat_map(entries) {
        if path.extension().is_some_and(|end| end == "spec" || end == "json") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_managed_plugin_is_known_without_the_tag_latest_too() {
        let answer = json!([{"Name": "rexray/ebs:latest"}, {"Name": "x:0.1"}, {"Name": 1}, {}]);
        assert_eq!(managed_plugins(&answer), ["rexray/ebs", "rexray/ebs:latest", "x:0.1"]);
        assert!(managed_plugins(&json!({"message": "no"})).is_empty());
    }

    #[test]
    fn the_default_bridge_is_the_one_marked_so() {
        let own = |name: &str| json!({"Options": {BRIDGE_NAME: name}});
        let marked = |value: &str| json!({"Options": {DEFAULT_BRIDGE: value, BRIDGE_NAME: "docker7"}});
        let found =
            bridges(&json!([own("mine"), {}, {"Options": null}, own(""), own("a-name-too-long0"), marked("true")]));
        assert_eq!(found, Bridges { default: Some("docker7".to_owned()), named: ["mine".to_owned()].into() });
        for answer in [json!([]), json!([own("mine")]), json!([marked("false")]), json!({"message": "no"}), json!(null)]
        {
            assert_eq!(bridges(&answer).default, None, "{answer}");
        }
        let many: Vec<Value> = (0..100).map(|number| own(&format!("b{number}"))).collect();
        assert_eq!(bridges(&json!(many)).named.len(), MAX_NAMED);
    }
}
