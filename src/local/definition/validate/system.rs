//! Checks the settings for the kernel and the instance: namespaces, capabilities, devices, limits, GPUs, restarts.

use super::super::{ContainerDefinition, LinuxParameters, TaskDefinition};
use super::rule::Findings;
use std::collections::BTreeSet;

/// Names of ulimits (ECS API reference, Ulimit).
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Mount options of a tmpfs, without those that change its size or place (ECS API reference, Tmpfs).
const TMPFS_OPTIONS: [&str; 31] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
];

/// Checks settings of the task as a whole.
pub(super) fn task(found: &mut Findings, definition: &TaskDefinition) {
    let mut one_of = |name: &str, value: Option<&str>, allowed: &[&str]| {
        found.require(value.is_none_or(|word| allowed.contains(&word)), || {
            format!("`{name}` `{}` is invalid: use {}.", value.unwrap_or_default(), allowed.join(" or "))
        });
    };
    one_of("pidMode", definition.pid_mode.as_deref(), &["host", "task"]);
    one_of("ipcMode", definition.ipc_mode.as_deref(), &["host", "task", "none"]);
    if let Some(platform) = &definition.runtime_platform {
        one_of("cpuArchitecture", platform.cpu_architecture.as_deref(), &["X86_64", "ARM64"]);
        one_of("operatingSystemFamily", platform.operating_system_family.as_deref(), &["LINUX"]);
    }
    for constraint in &definition.placement_constraints {
        one_of("type", Some(constraint.kind.as_deref().unwrap_or_default()), &["memberOf"]);
    }
    found.require(definition.ephemeral_storage.is_none(), || {
        "`ephemeralStorage` is only supported for tasks on Fargate.".to_owned()
    });
    found.require(definition.inference_accelerators.is_empty(), || {
        "`inferenceAccelerators` is not supported: Amazon Elastic Inference has ended.".to_owned()
    });
    found.require(definition.proxy_configuration.is_none() || definition.network_mode() == "awsvpc", || {
        "`proxyConfiguration` needs network mode awsvpc.".to_owned()
    });
}

pub(super) fn container(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    let mut names = BTreeSet::new();
    for limit in c.ulimits.iter().flatten() {
        let name = limit.name.as_str();
        found.require(ULIMITS.contains(&name), || format!("Ulimit name `{name}` is invalid."));
        found.require(names.insert(name), || format!("Ulimit `{name}` is given more than once."));
        found.require(limit.hard_limit < 0 || limit.soft_limit <= limit.hard_limit, || {
            format!("Ulimit `{name}`: `softLimit` must not exceed `hardLimit`.")
        });
    }
    for control in c.system_controls.iter().flatten() {
        let name = control.namespace.as_deref().unwrap_or_default();
        found.require(!name.is_empty() && control.value.is_some(), || {
            "Each of `systemControls` needs a `namespace` and a `value`.".to_owned()
        });
        found.require(!(name.starts_with("net.") && definition.network_mode() == "host"), || {
            format!("System control `{name}` cannot be set in network mode host.")
        });
        let is_shared = matches!(definition.ipc_mode.as_deref(), Some("host"));
        found.require(!(is_shared && (name.starts_with("kernel.") || name.starts_with("fs.mqueue."))), || {
            format!("System control `{name}` cannot be set when `ipcMode` is host.")
        });
    }
    for spec in &c.credential_specs {
        let kind = spec.split_once(':').map(|(kind, _)| kind);
        found.require(matches!(kind, Some("credentialspec" | "credentialspecdomainless")), || {
            "A credential spec starts with `credentialspec:` or `credentialspecdomainless:`.".to_owned()
        });
    }
    let is_awsvpc = definition.network_mode() == "awsvpc";
    for (is_given, name) in [
        (c.hostname.is_some(), "hostname"),
        (c.dns_servers.as_ref().is_some_and(|list| !list.is_empty()), "dnsServers"),
        (c.dns_search_domains.as_ref().is_some_and(|list| !list.is_empty()), "dnsSearchDomains"),
        (c.extra_hosts.as_ref().is_some_and(|list| !list.is_empty()), "extraHosts"),
    ] {
        found.require(!(is_awsvpc && is_given), || format!("`{name}` is not supported in network mode awsvpc."));
    }
    requirements(found, c);
    restart(found, c);
    let swaps = c.linux_parameters.as_ref().is_some_and(|linux| linux.max_swap.is_some());
    found.require(!swaps || c.memory.is_some(), || "`maxSwap` needs the container's `memory`.".to_owned());
    if let Some(parameters) = &c.linux_parameters {
        linux(found, parameters);
    }
}

fn requirements(found: &mut Findings, c: &ContainerDefinition) {
    for requirement in &c.resource_requirements {
        let (kind, value) = (&requirement.kind, &requirement.value);
        found.require(kind == "GPU", || format!("Resource requirement `{kind}` is invalid: use GPU."));
        let count = value.parse::<u32>().ok().filter(|count| *count > 0);
        found.require(count.is_some(), || format!("GPU requirement `{value}` is invalid: give how many, as in \"1\"."));
    }
}

fn restart(found: &mut Findings, c: &ContainerDefinition) {
    let Some(policy) = &c.restart_policy else { return };
    found.require(policy.ignored_exit_codes.len() <= 50, || {
        "A restart policy can have at most 50 `ignoredExitCodes`.".to_owned()
    });
    found.require(policy.restart_attempt_period.is_none_or(|period| (60..=1800).contains(&period)), || {
        "`restartAttemptPeriod` must be 60 to 1800 seconds.".to_owned()
    });
    found.require(
        policy.enabled || (policy.ignored_exit_codes.is_empty() && policy.restart_attempt_period.is_none()),
        || {
            "A restart policy that is not enabled can have neither `ignoredExitCodes` nor `restartAttemptPeriod`."
                .to_owned()
        },
    );
}

fn linux(found: &mut Findings, parameters: &LinuxParameters) {
    for capability in
        parameters.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().chain(&capabilities.drop))
    {
        let is_name = !capability.is_empty() && capability.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        found.require(is_name && !capability.starts_with("CAP_"), || {
            format!("Capability `{capability}` is invalid: use its name without CAP_, as in NET_ADMIN, or ALL.")
        });
    }
    for device in &parameters.devices {
        found.require(device.host_path.starts_with('/'), || {
            format!("`hostPath` `{}` of a device must be an absolute path.", device.host_path)
        });
        for permission in &device.permissions {
            found.require(["read", "write", "mknod"].contains(&permission.as_str()), || {
                format!("Device permission `{permission}` is invalid: use read, write or mknod.")
            });
        }
    }
    for mount in &parameters.tmpfs {
        found.require(mount.container_path.starts_with('/') && mount.size > 0, || {
            "A tmpfs needs an absolute `containerPath` and a `size` of at least 1 MiB.".to_owned()
        });
        for option in &mount.mount_options {
            let name = option.split('=').next().unwrap_or_default();
            let is_known = TMPFS_OPTIONS.contains(&name)
                || ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "strictatime", "nostrictatime"]
                    .contains(&name);
            found.require(is_known, || format!("Tmpfs mount option `{option}` is invalid."));
        }
    }
    found.require(parameters.swappiness.is_none_or(|percent| percent <= 100), || {
        "`swappiness` must be 0 to 100.".to_owned()
    });
    found.require(parameters.shared_memory_size.is_none_or(|mib| mib > 0), || {
        "`sharedMemorySize` must be at least 1 MiB.".to_owned()
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{verdict, with_first};
    use serde_json::json;

    #[test]
    fn tasks_are_refused_with_a_reason() {
        for (member, value, expected) in [
            ("pidMode", json!("container"), "use host or task"),
            ("ipcMode", json!("private"), "use host or task or none"),
            ("runtimePlatform", json!({"cpuArchitecture": "MIPS"}), "use X86_64 or ARM64"),
            ("runtimePlatform", json!({"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}), "use LINUX"),
            ("placementConstraints", json!([{"type": "distinctInstance"}]), "use memberOf"),
            ("ephemeralStorage", json!({"sizeInGiB": 21}), "only supported for tasks on Fargate"),
            ("inferenceAccelerators", json!([{}]), "has ended"),
            ("proxyConfiguration", json!({"containerName": "a"}), "needs network mode awsvpc"),
        ] {
            let text = verdict(|definition| definition[member] = value);
            assert!(text.contains(expected), "{member}: {text}");
        }
        let good = verdict(|definition| {
            (definition["pidMode"], definition["ipcMode"]) = (json!("task"), json!("none"));
            definition["runtimePlatform"] = json!({"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"});
        });
        assert_eq!(good, "");
    }

    #[test]
    fn containers_are_refused_with_a_reason() {
        let linux = |member: &str, value: serde_json::Value| json!({"linuxParameters": {member: value}});
        for (container, expected) in [
            (json!({"ulimits": [{"name": "files", "softLimit": 1, "hardLimit": 1}]}), "Ulimit name `files`"),
            (json!({"ulimits": [{"name": "core", "softLimit": 2, "hardLimit": 1}]}), "must not exceed"),
            (json!({"systemControls": [{"namespace": "net.core.somaxconn"}]}), "needs a `namespace` and a `value`"),
            (json!({"credentialSpecs": ["file://x"]}), "starts with `credentialspec:`"),
            (json!({"resourceRequirements": [{"type": "TPU", "value": "1"}]}), "use GPU"),
            (json!({"resourceRequirements": [{"type": "GPU", "value": "0"}]}), "give how many"),
            (json!({"restartPolicy": {"enabled": true, "restartAttemptPeriod": 59}}), "60 to 1800"),
            (json!({"restartPolicy": {"enabled": false, "ignoredExitCodes": [1]}}), "not enabled"),
            (json!({"restartPolicy": {"enabled": true, "ignoredExitCodes": vec![0; 51]}}), "at most 50"),
            (linux("capabilities", json!({"add": ["CAP_SYS_ADMIN"]})), "without CAP_"),
            (linux("devices", json!([{"hostPath": "dev/zero"}])), "must be an absolute path"),
            (linux("devices", json!([{"hostPath": "/dev/zero", "permissions": ["rw"]}])), "use read, write or mknod"),
            (linux("tmpfs", json!([{"containerPath": "/t", "size": 0}])), "at least 1 MiB"),
            (
                linux("tmpfs", json!([{"containerPath": "/t", "size": 1, "mountOptions": ["size=9g"]}])),
                "`size=9g` is invalid",
            ),
            (linux("swappiness", json!(101)), "0 to 100"),
            (
                json!({"memory": null, "memoryReservation": 8, "linuxParameters": {"maxSwap": 1}}),
                "`maxSwap` needs the container's `memory`",
            ),
            (linux("sharedMemorySize", json!(0)), "at least 1 MiB"),
        ] {
            let text = with_first(container.clone());
            assert!(text.contains(expected), "{container}: {text}");
        }
    }

    #[test]
    fn settings_that_the_network_mode_forbids_are_refused() {
        let text = verdict(|definition| {
            definition["networkMode"] = json!("host");
            definition["containerDefinitions"][0]["systemControls"] =
                json!([{"namespace": "net.core.somaxconn", "value": "1"}]);
        });
        assert!(text.contains("cannot be set in network mode host"), "{text}");
        let text = verdict(|definition| {
            definition["networkMode"] = json!("awsvpc");
            definition["containerDefinitions"][0]["hostname"] = json!("h");
        });
        assert!(text.contains("not supported in network mode awsvpc"), "{text}");
    }
}
