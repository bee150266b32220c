//! The defaults of a host's ECS service, below the operator's settings (`-service`; spec `config.md` §1.1, `ecs-init.md` §6, §9).
//!
//! On an EC2 instance, ecs-init gives its agent defaults that the agent itself does not have, and most installations rely on
//! them. This agent replaces both, so as a service it has these defaults too, below every setting of an operator. Defaults that
//! mean nothing here are left out: updates (the package manager does them), container labels, and the certificate directory, which is
//! that of the host. `efsAuth` is a default only where Amazon's volume plugin is installed, since it is not part of this agent. Invariant: without `-service` nothing here has an effect.

use super::keys::find;
use super::problem::{Problem, Severity};
use super::resolve::Values;
use super::source::{Class, Source};
use std::io::Read as _;
use std::path::Path;

/// The configuration file of the machine image's vendor and of the ECS Anywhere installer. `/etc/ecs/ecs.config` takes
/// precedence.
pub(super) const VENDOR_FILE: &str = "/var/lib/ecs/ecs.config";

/// The place of these defaults.
pub(super) const SERVICE: &str = "default of -service";

/// Default values by variable. The paths are the places on the host where ecs-init keeps the same files.
const DEFAULTS: [(&str, &str); 12] = [
    ("ECS_DATADIR", "/var/lib/ecs/data"),
    ("ECS_CHECKPOINT", "true"),
    ("ECS_AGENT_CONFIG_FILE_PATH", "/etc/ecs/ecs.config.json"),
    ("ECS_LOGFILE", "/var/log/ecs/ecs-agent.log"),
    ("ECS_AUDIT_LOGFILE", "/var/log/ecs/audit.log"),
    ("RuntimeStatsLogFile", "/var/log/ecs/agent-runtime-stats.log"),
    ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","syslog","awslogs","fluentd","none"]"#),
    ("ECS_ENABLE_TASK_IAM_ROLE", "true"),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true"),
    ("ECS_ENABLE_TASK_ENI", "true"),
    ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", "true"),
    ("CREDENTIALS_FETCHER_HOST_DIR", "/var/credentials-fetcher/socket/credentials_fetcher.sock"),
];

/// Directories in ecs-init's agent container, and the directories of the host that are mounted there. An `ecs.config` that was
/// written for ecs-init may contain paths below the first one of each pair.
const CONTAINER_PATHS: [(&str, &str); 2] = [("/data", "/var/lib/ecs/data"), ("/log", "/var/log/ecs")];
/// Variables whose values may be such paths.
const PATHS: [&str; 4] = ["ECS_DATADIR", "ECS_LOGFILE", "ECS_AUDIT_LOGFILE", "RuntimeStatsLogFile"];

/// Amazon's volume plugin, where the packages of ecs-init put it (on SUSE: the second).
const VOLUME_PLUGIN: [&str; 2] = ["/usr/libexec/amazon-ecs-volume-plugin", "/usr/sbin/amazon-ecs-volume-plugin"];
/// What the plugin can do.
const PLUGIN_CAPABILITIES: (&str, &str) = ("ECS_VOLUME_PLUGIN_CAPABILITIES", r#"["efsAuth"]"#);

/// Maximum number of bytes that are read of `/etc/os-release`, which has some hundred bytes.
const MAX_OS_RELEASE: u64 = 64 * 1024;

/// ecs-init's defaults as a source of values. Only the defaults of the table have lower precedence.
#[derive(Debug)]
pub(super) struct ServiceDefaults {
    os_family: String,
    has_volume_plugin: bool,
}

impl ServiceDefaults {
    /// The defaults for this host.
    pub(super) fn for_this_host() -> Self {
        let mut text = String::new();
        let file = std::fs::File::open("/etc/os-release");
        let _unknown = file.and_then(|file| file.take(MAX_OS_RELEASE).read_to_string(&mut text));
        let has_volume_plugin = VOLUME_PLUGIN.iter().any(|path| Path::new(path).exists());
        Self { has_volume_plugin, ..Self::with(&text) }
    }

    fn with(os_release: &str) -> Self {
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
        };
        let os_family = match (field("ID"), field("VERSION_ID")) {
            (Some(id), Some(version)) => format!("{id}_{version}"),
            _ => "linux".to_owned(),
        };
        Self { os_family, has_volume_plugin: false }
    }
}

/// The default of the service for a variable; `None`: it is that of the table, or depends on the host.
pub(super) fn service_default(name: &str) -> Option<&'static str> {
    DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Source for ServiceDefaults {
    fn get(&self, key: &str) -> Option<String> {
        if key == "ECS_DETAILED_OS_FAMILY" {
            return Some(self.os_family.clone());
        }
        if key == PLUGIN_CAPABILITIES.0 && self.has_volume_plugin {
            return Some(PLUGIN_CAPABILITIES.1.to_owned());
        }
        DEFAULTS.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned())
    }

    fn place(&self, _key: &str) -> String {
        SERVICE.to_owned()
    }

    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn class(&self) -> Class {
        Class::Defaults
    }
}

/// Replaces paths inside ecs-init's container with those of the host.
pub(super) fn host_paths(values: &mut Values, problems: &mut Vec<Problem>) {
    for name in PATHS {
        debug_assert!(find(name).is_some(), "{name} is not a row");
        let Some(value) = values.get_mut(name).filter(|value| value.class != Class::Defaults) else { continue };
        let Some(path) = on_host(Path::new(&value.canonical)) else { continue };
        problems.push(Problem {
            variable: value.name.to_owned(),
            place: value.place.clone().unwrap_or_default(),
            shape: "a path inside the container that ecs-init ran its agent in".to_owned(),
            expected: "a path of this host".to_owned(),
            instead: format!("{path} is used"),
            severity: Severity::Notice,
        });
        (value.shown, value.canonical) = (path.clone(), path);
    }
}

fn on_host(path: &Path) -> Option<String> {
    CONTAINER_PATHS.iter().find_map(|(inside, host)| {
        let rest = path.strip_prefix(inside).ok()?;
        Some(if rest.as_os_str().is_empty() { (*host).to_owned() } else { format!("{host}/{}", rest.display()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_a_row_and_can_be_used() {
        let defaults = ServiceDefaults::with("");
        for (name, value) in DEFAULTS {
            let key = find(name).unwrap();
            assert!(matches!(key.kind.parse(value, key.default), super::super::parsed::Parsed::Value(_)), "{name}");
            assert_eq!(defaults.get(name).as_deref(), Some(value));
        }
    }

    #[test]
    fn efs_auth_is_offered_where_the_plugin_is() {
        let (name, value) = PLUGIN_CAPABILITIES;
        let absent = ServiceDefaults::with("");
        assert_eq!(absent.get(name), None);
        let present = ServiceDefaults { has_volume_plugin: true, ..absent };
        assert_eq!(present.get(name).as_deref(), Some(value));
        let key = find(name).unwrap();
        assert!(matches!(key.kind.parse(value, key.default), super::super::parsed::Parsed::Value(_)));
    }

    #[test]
    fn the_operating_system_is_named_as_ecs_init_names_it() {
        for (text, family) in [
            ("NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nVERSION_ID=\"2023\"\n", "amzn_2023"),
            ("ID=debian\nVERSION_ID='12'\nVARIANT_ID=x\n", "debian_12"),
            ("ID=debian\n", "linux"),
            ("", "linux"),
        ] {
            assert_eq!(ServiceDefaults::with(text).os_family, family, "{text}");
        }
    }

    #[test]
    fn paths_inside_the_container_become_those_of_the_host() {
        for (inside, host) in [
            ("/data", Some("/var/lib/ecs/data")),
            ("/data/", Some("/var/lib/ecs/data")),
            ("/log/ecs-agent.log", Some("/var/log/ecs/ecs-agent.log")),
            ("/database", None),
            ("/srv/data", None),
        ] {
            assert_eq!(on_host(Path::new(inside)).as_deref(), host, "{inside}");
        }
    }
}
