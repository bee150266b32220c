//! The capability attributes of the instance, in the order of the Go agent (spec `registration.md` §6).
//!
//! Owns the condition of every attribute; the caller supplies the facts of the host as [`Capabilities`]. It makes no calls. The
//! invariant: only features of this version of the agent are advertised, so ECS never places a task that would be refused. A
//! new feature adds its line here in the same change.

/// The Docker API versions that ECS has attributes for, oldest first. 1.26, 1.27 and 1.31 never had one.
const ADVERTISED_API_VERSIONS: [&str; 13] =
    ["1.17", "1.18", "1.19", "1.20", "1.21", "1.22", "1.23", "1.24", "1.25", "1.28", "1.29", "1.30", "1.32"];

/// Log drivers, each with the Docker API version that it needs.
const LOG_DRIVERS: [(&str, &str); 10] = [
    ("json-file", "1.18"),
    ("syslog", "1.18"),
    ("journald", "1.19"),
    ("gelf", "1.20"),
    ("fluentd", "1.20"),
    ("awslogs", "1.21"),
    ("splunk", "1.22"),
    ("logentries", "1.25"),
    ("sumologic", "1.29"),
    ("none", "1.19"),
];

/// Attributes of every instance that runs this agent.
const ALWAYS: [&str; 11] = [
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    "ecs.capability.ecr-endpoint",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.container-ordering",
    "ecs.capability.full-sync",
    "ecs.capability.env-files.s3",
    "ecs.capability.network.container-port-range",
    "ecs.capability.container-restart-policy",
];

/// The attribute of volumes of S3 Files.
const S3_FILES: &str = "ecs.capability.storage.s3-files";
/// The volume plugin of ecs-init, which mounts S3 Files.
const VOLUME_PLUGIN: &str = "amazon-ecs-volume-plugin";

/// Attributes of FireLens, with those of EFS and S3 Files in the position where the Go agent has them.
const LOG_ROUTER_AND_FILES: [&str; 9] = [
    "ecs.capability.firelens.fluentd",
    "ecs.capability.firelens.fluentbit",
    "com.amazonaws.ecs.capability.logging-driver.awsfirelens",
    "ecs.capability.logging-driver.awsfirelens.log-driver-buffer-limit",
    "ecs.capability.firelens.non-root-user",
    "ecs.capability.efs",
    S3_FILES,
    "ecs.capability.firelens.options.config.file",
    "ecs.capability.firelens.options.config.s3",
];

/// Attributes that an external instance never has.
const NOT_EXTERNAL: [&str; 12] = [
    "task-eni",
    "cni-plugin-version",
    "task-eni.ipv6",
    "task-eni-block-instance-metadata",
    "task-eni-trunking",
    "aws-appmesh",
    "task-eia",
    "task-eia.optimized-cpu",
    "service-connect-v1",
    "storage.ebs-task-volume-attach",
    "storage.ebsta-non-root-user",
    "fault-injection",
];

/// The version of the Go agent's plugins for interfaces, and for interfaces that are VLANs. This agent needs no plugins: it sends its
/// own version. Whether ECS reads the values is not known.
const PLUGIN_VERSION: &str = "ecs.capability.cni-plugin-version";
const BRANCH_PLUGIN_VERSION: &str = "ecs.capability.branch-cni-plugin-version";
/// The version of the driver of the host's GPUs.
const GPU_DRIVER_VERSION: &str = "ecs.capability.gpu-driver-version";

/// Features of a processor that the attribute `task-eia.optimized-cpu` stands for, by the kernel's names.
pub const OPTIMIZED_CPU: [&str; 4] = ["avx", "avx2", "sse4_1", "sse4_2"];

/// Prefix of this program's own attributes. They inform people; they affect placement only if an operator writes a constraint.
pub(super) const OWN: &str = "ecs-agent.";
/// Name of the attribute that distinguishes this program from the Go agent, which has no such attribute.
const IMPLEMENTATION: &str = "ecs-agent.implementation";
/// The value of the attribute [`IMPLEMENTATION`].
const IMPLEMENTATION_NAME: &str = "ecs-agent-rust";
/// Name of the attribute with the version of this program. It is sent with every registration, so that it follows an upgrade.
const VERSION: &str = "ecs-agent.version";

/// The facts of the host and the settings of the operator that decide which attributes are advertised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Docker API versions the daemon supports, in any order, e.g. `1.41`.
    pub docker_api_versions: Vec<String>,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`, in the operator's order.
    pub log_drivers: Vec<String>,
    /// True: privileged containers are refused (`ECS_DISABLE_PRIVILEGED`).
    pub privileged_disabled: bool,
    /// True: containers may use SELinux labels (`ECS_SELINUX_CAPABLE`).
    pub selinux: bool,
    /// True: containers may use AppArmor profiles (`ECS_APPARMOR_CAPABLE`).
    pub apparmor: bool,
    /// True: the CPU and memory of a whole task can be limited.
    pub task_limits: bool,
    /// True: the processors have the features [`OPTIMIZED_CPU`].
    pub optimized_cpu: bool,
    /// Names of the volume drivers besides `local`.
    pub volume_drivers: Vec<String>,
    /// The capabilities of the volume plugin (`ECS_VOLUME_PLUGIN_CAPABILITIES`), e.g. `efsAuth`.
    pub volume_plugin: Vec<String>,
    /// True: health checks of containers are not offered to ECS (`ECS_DISABLE_DOCKER_HEALTH_CHECK`).
    pub health_check_disabled: bool,
    /// `ECS_DETAILED_OS_FAMILY`; empty: the attribute is left out.
    pub os_family_detailed: String,
    /// True: the host is not an EC2 instance (`ECS_EXTERNAL`).
    pub external: bool,
    /// Version of the driver of the host's GPUs; empty: tasks get no GPUs.
    pub gpu_driver: String,
    /// True: an image for the pause container is available, so containers of a task may share namespaces.
    pub pause_image: bool,
    /// Version of this program, sent in addition to the version of the Go agent that it replaces; empty: the attribute is left
    /// out.
    pub agent_version: String,
    /// True: tasks may have a task role, except in network mode host (`ECS_ENABLE_TASK_IAM_ROLE`).
    pub task_roles: bool,
    /// True: tasks in network mode host may have a task role (`ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST`).
    pub task_roles_in_host_network: bool,
    /// True: the awslogs driver may use the task execution role (`ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE`).
    pub awslogs_with_execution_role: bool,
    /// True: credential specs work on this host, and it is joined to a domain.
    pub gmsa: bool,
    /// True: domainless credential specs work on this host.
    pub gmsa_domainless: bool,
    /// True: network faults work on this host.
    pub fault_injection: bool,
    /// What tasks with network interfaces of their own may have; `None`: no such task runs on this host (`ECS_ENABLE_TASK_ENI`).
    pub task_networks: Option<TaskNetworks>,
}

/// What tasks with network interfaces of their own may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskNetworks {
    /// The interfaces may be VLANs of a trunk interface (`ECS_ENABLE_HIGH_DENSITY_ENI`).
    pub trunking: bool,
    /// The tasks may have a proxy.
    pub proxy: bool,
    /// The tasks do not reach the instance metadata service (`ECS_AWSVPC_BLOCK_IMDS`).
    pub blocks_metadata: bool,
    /// Id of the VPC of the instance.
    pub vpc_id: String,
    /// Id of the subnet of the instance.
    pub subnet_id: String,
}

/// One attribute of the container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The name of the attribute.
    pub name: String,
    /// The value; `None` for a capability that has only a name.
    pub value: Option<String>,
}

impl Attribute {
    /// Whether the attribute only identifies this program, so that ECS and tasks do not need it.
    pub(super) fn is_own(&self) -> bool {
        self.name.starts_with(OWN)
    }

    /// An attribute with a value.
    pub fn with_value(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }
}

/// All attributes in order: first the capabilities, then those of the operating system, and last those of this program.
pub fn attributes(capabilities: &Capabilities) -> Vec<Attribute> {
    let supports = |version: &str| capabilities.docker_api_versions.iter().any(|known| known == version);
    let mut names: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
    if !capabilities.privileged_disabled {
        names.push("com.amazonaws.ecs.capability.privileged-container".to_owned());
    }
    let versions = ADVERTISED_API_VERSIONS.into_iter().filter(|version| supports(version));
    names.extend(versions.map(|version| format!("com.amazonaws.ecs.capability.docker-remote-api.{version}")));
    for driver in &capabilities.log_drivers {
        if LOG_DRIVERS.iter().any(|(known, needs)| known == driver && supports(needs)) {
            names.push(format!("com.amazonaws.ecs.capability.logging-driver.{driver}"));
        }
    }
    let labels = [("selinux", capabilities.selinux), ("apparmor", capabilities.apparmor)];
    let labels = labels.into_iter().filter(|(_, is_capable)| *is_capable);
    names.extend(labels.map(|(name, _)| format!("com.amazonaws.ecs.capability.{name}")));
    names.extend(task_roles(capabilities).filter(|_| supports("1.19")));
    if capabilities.task_limits {
        names.push("ecs.capability.task-cpu-mem-limit".to_owned());
        names.push("ecs.capability.increased-task-cpu-limit".to_owned());
    }
    names.extend(task_networks(capabilities).map(str::to_owned));
    if supports("1.19") {
        names.push("com.amazonaws.ecs.capability.ecr-auth".to_owned());
        names.push("ecs.capability.execution-role-ecr-pull".to_owned());
    }
    if supports("1.24") && !capabilities.health_check_disabled {
        names.push("ecs.capability.container-health-check".to_owned());
    }
    if capabilities.awslogs_with_execution_role {
        names.push("ecs.capability.execution-role-awslogs".to_owned());
    }
    names.extend(volume_drivers(capabilities));
    let driver = &capabilities.gpu_driver;
    if !driver.is_empty() {
        names.push(format!("ecs.capability.nvidia-driver-version.{driver}"));
        names.push(GPU_DRIVER_VERSION.to_owned());
    }
    if capabilities.pause_image {
        names.push("ecs.capability.pid-ipc-namespace-sharing".to_owned());
    }
    if capabilities.task_networks.as_ref().is_some_and(|networks| networks.proxy) {
        names.push("ecs.capability.aws-appmesh".to_owned());
    }
    // Elastic Inference has ended; a task that still names such a device only needs to start.
    names.push("ecs.capability.task-eia".to_owned());
    if capabilities.optimized_cpu {
        names.push("ecs.capability.task-eia.optimized-cpu".to_owned());
    }
    let files = LOG_ROUTER_AND_FILES.into_iter().filter(|name| *name != S3_FILES || has_volume_plugin(capabilities));
    names.extend(files.map(str::to_owned));
    let gmsa = [("gmsa", capabilities.gmsa), ("gmsa-domainless", capabilities.gmsa_domainless)];
    let gmsa = gmsa.into_iter().filter(|(_, is_offered)| *is_offered);
    names.extend(gmsa.map(|(name, _)| format!("ecs.capability.{name}")));
    names.extend(capabilities.volume_plugin.iter().map(|name| format!("ecs.capability.{name}")));
    if capabilities.external {
        names.push("ecs.capability.external".to_owned());
        names.retain(|name| !NOT_EXTERNAL.contains(&name.strip_prefix("ecs.capability.").unwrap_or(name)));
    } else if capabilities.fault_injection {
        names.push("ecs.capability.fault-injection".to_owned());
    }
    let value = |name: &str| match name {
        PLUGIN_VERSION | BRANCH_PLUGIN_VERSION => Some(capabilities.agent_version.clone()),
        GPU_DRIVER_VERSION => Some(driver.clone()),
        _ => None,
    };
    let capability = |name: String| Attribute { value: value(&name), name };
    names.into_iter().map(capability).chain(not_capabilities(capabilities)).collect()
}

/// The capabilities of tasks with network interfaces of their own.
fn task_networks(capabilities: &Capabilities) -> impl Iterator<Item = &'static str> {
    let networks = capabilities.task_networks.as_ref();
    let (trunking, blocks) = networks.map(|networks| (networks.trunking, networks.blocks_metadata)).unwrap_or_default();
    let all = [
        ("ecs.capability.task-eni", networks.is_some()),
        ("ecs.capability.task-eni.ipv6", networks.is_some()),
        (PLUGIN_VERSION, networks.is_some()),
        ("ecs.capability.task-eni-block-instance-metadata", blocks),
        ("ecs.capability.task-eni-trunking", trunking),
        (BRANCH_PLUGIN_VERSION, trunking),
    ];
    all.into_iter().filter(|(_, is_offered)| *is_offered).map(|(name, _)| name)
}

/// The attributes of the operating system and of this program.
fn not_capabilities(capabilities: &Capabilities) -> Vec<Attribute> {
    let mut list = Vec::new();
    if let Some(networks) = &capabilities.task_networks {
        list.push(Attribute::with_value("ecs.vpc-id", &networks.vpc_id));
        list.push(Attribute::with_value("ecs.subnet-id", &networks.subnet_id));
    }
    list.push(Attribute::with_value("ecs.os-type", "linux"));
    list.push(Attribute::with_value("ecs.os-family", "LINUX"));
    if !capabilities.os_family_detailed.is_empty() {
        list.push(Attribute::with_value("ecs.os-type-detailed", &capabilities.os_family_detailed));
    }
    if capabilities.external {
        list.push(Attribute::with_value("ecs.cpu-architecture", cpu_architecture()));
    }
    if !capabilities.agent_version.is_empty() {
        list.push(Attribute::with_value(IMPLEMENTATION, IMPLEMENTATION_NAME));
        list.push(Attribute::with_value(VERSION, &capabilities.agent_version));
    }
    list
}

/// The name of the CPU architecture: EC2's name where the Go agent uses it, otherwise Go's name.
fn cpu_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "x86") {
        "i386"
    } else {
        "x86_64"
    }
}

/// The attributes of task roles.
fn task_roles(capabilities: &Capabilities) -> impl Iterator<Item = String> {
    let roles = [
        ("task-iam-role", capabilities.task_roles),
        ("task-iam-role-network-host", capabilities.task_roles_in_host_network),
    ];
    let offered = roles.into_iter().filter(|(_, is_offered)| *is_offered);
    offered.map(|(name, _)| format!("com.amazonaws.ecs.capability.{name}"))
}

/// Whether the volume plugin is on this host. The Go agent always offers S3 Files, since its package brings the plugin; without it
/// such a task would only fail here.
fn has_volume_plugin(capabilities: &Capabilities) -> bool {
    let names = [&capabilities.volume_drivers, &capabilities.volume_plugin].into_iter().flatten();
    names.into_iter().any(|name| name == VOLUME_PLUGIN || name == "efsAuth")
}

/// The volume drivers: `local` and those of Docker's plugins.
fn volume_drivers(capabilities: &Capabilities) -> impl Iterator<Item = String> {
    let plugins = capabilities.volume_drivers.iter().map(|driver| driver.replace(':', "."));
    ["local".to_owned()].into_iter().chain(plugins).map(|driver| format!("ecs.capability.docker-plugin.{driver}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::report::tests::golden;

    fn recorded_host() -> Capabilities {
        let minor = 17..=41;
        Capabilities {
            docker_api_versions: minor.map(|minor| format!("1.{minor}")).collect(),
            log_drivers: ["json-file", "awslogs", "none"].map(str::to_owned).to_vec(),
            task_limits: true,
            task_roles: true,
            task_roles_in_host_network: true,
            optimized_cpu: true,
            os_family_detailed: "LINUX".to_owned(),
            ..Capabilities::default()
        }
    }

    /// Attributes that the recorded Go agent advertised and this version does not, with the reason.
    const NOT_YET: &[(&str, &str)] = &[
        ("ecs.capability.aws-appmesh", "it needs interfaces of tasks, which are off in the recording"),
        (S3_FILES, "it needs the volume plugin, which is not on this host"),
    ];
    const NOT_YET_EITHER: &[(&str, &str)] = &[
        ("ecs.capability.storage.ebsta-non-root-user", "EBS volumes are refused"),
        ("ecs.capability.ipv6-only", "IPv6-only instances are not served"),
    ];

    #[test]
    fn the_recorded_attributes_that_exist_keep_their_order() {
        let missing: Vec<&str> = NOT_YET.iter().chain(NOT_YET_EITHER).map(|(name, _)| *name).collect();
        let golden = golden("register_container_instance");
        let recorded: Vec<(String, Option<String>)> = golden["body"]["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (a["name"].as_str().unwrap().to_owned(), a["value"].as_str().map(str::to_owned)))
            .filter(|(name, _)| name != "rack")
            .collect();
        for name in &missing {
            assert!(recorded.iter().any(|(known, _)| known == name), "{name} is not in the recording");
        }
        let expected: Vec<_> = recorded.into_iter().filter(|(name, _)| !missing.contains(&name.as_str())).collect();
        let ours: Vec<_> = attributes(&recorded_host()).into_iter().map(|a| (a.name, a.value)).collect();
        assert_eq!(ours, expected);
    }

    #[test]
    fn tasks_with_interfaces_are_offered_as_recorded() {
        let body = golden("awsvpc/register_container_instance")[0].clone();
        let recorded = body["attributes"].as_array().unwrap().iter();
        let missing = [S3_FILES, "ecs.capability.storage.ebsta-non-root-user", "ecs.capability.ipv6-only"];
        let recorded = recorded.filter(|attribute| !missing.contains(&attribute["name"].as_str().unwrap()));
        let own = |name: &str| (name == PLUGIN_VERSION || name == BRANCH_PLUGIN_VERSION).then(|| "0.1.0".to_owned());
        let recorded = recorded.map(|attribute| {
            let (name, value) = (attribute["name"].as_str().unwrap(), attribute["value"].as_str().map(str::to_owned));
            assert_eq!(own(name).is_some(), value.as_deref() == Some("be52143-v1.3-32-gbe52143"), "{name}");
            (name.to_owned(), own(name).or(value))
        });
        let networks = TaskNetworks {
            trunking: true,
            proxy: true,
            blocks_metadata: false,
            vpc_id: "vpc-0123456789abcdef0".to_owned(),
            subnet_id: "subnet-0123456789abcdef0".to_owned(),
        };
        let host = |networks: Option<TaskNetworks>| Capabilities {
            task_networks: networks,
            pause_image: true,
            optimized_cpu: false,
            fault_injection: true,
            agent_version: "0.1.0".to_owned(),
            ..recorded_host()
        };
        let list = |networks: Option<TaskNetworks>| -> Vec<_> {
            let list = attributes(&host(networks)).into_iter().filter(|attribute| !attribute.is_own());
            list.map(|attribute| (attribute.name, attribute.value)).collect()
        };
        assert_eq!(list(Some(networks.clone())), recorded.collect::<Vec<_>>());
        let names = |networks: &TaskNetworks| -> Vec<String> {
            let without: Vec<_> = list(None);
            let added = list(Some(networks.clone())).into_iter().filter(|attribute| !without.contains(attribute));
            added.map(|(name, _)| name.trim_start_matches("ecs.").replace("capability.", "")).collect()
        };
        let trunk = ["task-eni-trunking", "branch-cni-plugin-version"];
        let all = names(&networks);
        assert_eq!(all.iter().filter(|name| trunk.contains(&name.as_str())).count(), 2);
        let less = TaskNetworks { trunking: false, blocks_metadata: true, ..networks };
        let wanted = ["task-eni", "task-eni.ipv6", "cni-plugin-version", "task-eni-block-instance-metadata"];
        assert_eq!(names(&less), [&wanted[..], &["aws-appmesh", "vpc-id", "subnet-id"]].concat());
        let less = TaskNetworks { proxy: false, ..less };
        assert_eq!(names(&less), [&wanted[..], &["vpc-id", "subnet-id"]].concat());
    }

    #[test]
    fn attributes_of_this_program_follow_the_recorded_ones() {
        for version in ["0.1.0", "2.0.0-rc.1"] {
            let host = Capabilities { agent_version: version.to_owned(), ..recorded_host() };
            let mut wanted = attributes(&recorded_host());
            wanted.push(Attribute::with_value("ecs-agent.implementation", "ecs-agent-rust"));
            wanted.push(Attribute::with_value("ecs-agent.version", version));
            assert_eq!(attributes(&host), wanted);
        }
    }

    #[test]
    fn volume_drivers_gmsa_and_plugin_capabilities_are_offered() {
        let host = Capabilities {
            volume_drivers: vec!["x".to_owned(), "x:latest".to_owned()],
            volume_plugin: vec!["efsAuth".to_owned()],
            gmsa: true,
            gmsa_domainless: true,
            ..recorded_host()
        };
        let wanted = [
            "docker-plugin.local",
            "docker-plugin.x",
            "docker-plugin.x.latest",
            "efs",
            "gmsa",
            "gmsa-domainless",
            "efsAuth",
        ];
        let list = attributes(&host);
        let at = |name: &str| list.iter().position(|attribute| attribute.name == format!("ecs.capability.{name}"));
        assert!(wanted.map(at).iter().all(Option::is_some) && wanted.map(at).is_sorted(), "{list:?}");
    }

    /// The recording of a host with the volume plugin has only the names, in the order of the alphabet.
    #[test]
    fn a_host_with_the_volume_plugin_offers_what_was_recorded() {
        let plugin = Capabilities {
            volume_drivers: vec![VOLUME_PLUGIN.to_owned()],
            volume_plugin: vec!["efsAuth".to_owned()],
            ..recorded_host()
        };
        let missing = NOT_YET.iter().chain(NOT_YET_EITHER).map(|(name, _)| *name).filter(|name| *name != S3_FILES);
        let missing: Vec<&str> = missing.collect();
        let recorded = golden("efs/register_attributes");
        let recorded = recorded.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        let recorded: Vec<String> = recorded.filter(|name| !missing.contains(&name.as_str())).collect();
        let mut ours: Vec<String> = attributes(&plugin).into_iter().map(|attribute| attribute.name).collect();
        ours.sort();
        assert_eq!(ours, recorded);
        for host in [
            Capabilities { volume_plugin: Vec::new(), ..plugin.clone() },
            Capabilities { volume_drivers: Vec::new(), ..plugin },
        ] {
            assert!(attributes(&host).iter().any(|attribute| attribute.name == S3_FILES));
        }
    }

    #[test]
    fn roles_are_offered_as_the_operator_says() {
        let offered = |host: Capabilities| -> Vec<String> {
            let names = attributes(&host).into_iter().map(|attribute| attribute.name);
            names.filter(|name| name.contains("iam-role") || name.contains("awslogs")).collect()
        };
        let none = Capabilities { task_roles: false, task_roles_in_host_network: false, ..recorded_host() };
        let driver = "com.amazonaws.ecs.capability.logging-driver.awslogs";
        assert_eq!(offered(none.clone()), [driver]);
        let role = "com.amazonaws.ecs.capability.task-iam-role";
        assert_eq!(offered(Capabilities { task_roles: true, ..none.clone() }), [driver, role]);
        let on_host = Capabilities { task_roles_in_host_network: true, ..none.clone() };
        assert_eq!(offered(on_host), [driver, "com.amazonaws.ecs.capability.task-iam-role-network-host"]);
        let logs = Capabilities { awslogs_with_execution_role: true, ..none };
        assert_eq!(offered(logs.clone()), [driver, "ecs.capability.execution-role-awslogs"]);
        let old = Capabilities { docker_api_versions: vec!["1.18".to_owned()], ..logs };
        assert_eq!(offered(Capabilities { task_roles: true, task_roles_in_host_network: true, ..old }).len(), 1);
    }

    #[test]
    fn an_external_instance_advertises_itself_and_its_cpu() {
        let names = |external: bool| {
            let host = Capabilities { external, ..recorded_host() };
            attributes(&host).into_iter().map(|attribute| attribute.name).collect::<Vec<_>>()
        };
        let (inside, outside) = (names(false), names(true));
        let more: Vec<_> = outside.iter().filter(|name| !inside.contains(name)).collect();
        assert_eq!(more, ["ecs.capability.external", "ecs.cpu-architecture"]);
        for name in NOT_EXTERNAL {
            assert!(!outside.contains(&format!("ecs.capability.{name}")), "{name}");
        }
    }

    #[test]
    fn faults_are_offered_last_and_not_outside_of_ec2() {
        let names = |external, fault_injection| {
            let host = Capabilities { external, fault_injection, ..recorded_host() };
            attributes(&host).into_iter().map(|attribute| attribute.name).collect::<Vec<_>>()
        };
        let with = names(false, true);
        let at = with.iter().position(|name| name == "ecs.capability.fault-injection").unwrap();
        assert_eq!(with[at + 1], "ecs.os-type");
        assert_eq!(with.len(), names(false, false).len() + 1);
        assert_eq!(names(true, true), names(true, false));
    }

    #[test]
    fn gpus_and_shared_namespaces_follow_the_volume_drivers() {
        let host = Capabilities { gpu_driver: "535.1".to_owned(), pause_image: true, ..recorded_host() };
        let list = attributes(&host);
        let at = list.iter().position(|attribute| attribute.name == "ecs.capability.docker-plugin.local").unwrap();
        let plain = |name: &str| Attribute { name: name.to_owned(), value: None };
        let wanted = [
            plain("ecs.capability.nvidia-driver-version.535.1"),
            Attribute::with_value("ecs.capability.gpu-driver-version", "535.1"),
            plain("ecs.capability.pid-ipc-namespace-sharing"),
        ];
        assert_eq!(list[at + 1..at + 4], wanted);
    }

    #[test]
    fn flags_and_versions_switch_attributes() {
        let has = |capabilities: &Capabilities, name: &str| attributes(capabilities).iter().any(|a| a.name == name);
        let host = recorded_host();
        let table: [(&str, Capabilities, bool); 12] = [
            ("ecs.capability.gmsa", host.clone(), false),
            ("ecs.capability.gmsa", Capabilities { gmsa_domainless: true, ..host.clone() }, false),
            ("ecs.capability.task-cpu-mem-limit", Capabilities { task_limits: false, ..host.clone() }, false),
            ("com.amazonaws.ecs.capability.privileged-container", host.clone(), true),
            (
                "com.amazonaws.ecs.capability.privileged-container",
                Capabilities { privileged_disabled: true, ..host.clone() },
                false,
            ),
            ("com.amazonaws.ecs.capability.selinux", Capabilities { selinux: true, ..host.clone() }, true),
            ("com.amazonaws.ecs.capability.apparmor", Capabilities { apparmor: true, ..host.clone() }, true),
            ("com.amazonaws.ecs.capability.apparmor", host.clone(), false),
            (
                "ecs.capability.container-health-check",
                Capabilities { health_check_disabled: true, ..host.clone() },
                false,
            ),
            (
                "com.amazonaws.ecs.capability.ecr-auth",
                Capabilities { docker_api_versions: vec!["1.18".to_owned()], ..host.clone() },
                false,
            ),
            (
                "com.amazonaws.ecs.capability.logging-driver.splunk",
                Capabilities { log_drivers: vec!["splunk".to_owned(), "awsfirelens".to_owned()], ..host.clone() },
                true,
            ),
            ("ecs.os-type-detailed", Capabilities { os_family_detailed: String::new(), ..host }, false),
        ];
        for (name, capabilities, expected) in table {
            assert_eq!(has(&capabilities, name), expected, "{name}");
        }
    }
}
