//! Translates the configuration and the host's offers into the settings of the core and of the edges.
//!
//! Besides the configuration, only the kernel is queried, and only for facts that it provides without waiting. Reading order:
//! this file (the core, Docker, ECS, resources), [`aws`], [`acs`], [`cgroups`].

pub(crate) mod acs;
pub(crate) mod aws;
pub(crate) mod cgroups;
pub(crate) mod networks;
pub(crate) mod traces;

use super::instance::Instance;
use super::offers::Offers;
use crate::config::{Config, ImagePullBehavior};
use crate::docker;
use crate::ecs::attributes::{Capabilities, OPTIMIZED_CPU, TaskNetworks};
use crate::ecs::register::{self, HostResources};
use crate::ecs::report;
use crate::host::gpu::Gpus;
use crate::host::kernel;
use crate::resources;
use crate::runtime::Fatal;
use crate::store::Identity;
use crate::version;
use ecs_core::model::{Owners, Span, with_causes};
use ecs_core::{Capacity, ImagePolicy, Policy, PullBehavior, UntrackedPolicy};
use std::ops::RangeInclusive;

/// The cluster of an instance whose operator names none.
const DEFAULT_CLUSTER: &str = "default";
/// The range of dynamic host ports if the kernel's own range cannot be read.
const DYNAMIC_PORTS: RangeInclusive<u16> = 49153..=65535;

/// The configured cluster, or `default`.
pub(crate) fn cluster(config: &Config) -> String {
    config.cluster.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_CLUSTER.to_owned())
}

/// Settings of the Docker edge.
pub(crate) fn docker(config: &Config, region: &str) -> docker::Settings {
    docker::Settings {
        endpoint: config.docker_host.clone(),
        cluster: cluster(config),
        region: Some(region.to_owned()),
        create_timeout: config.container_create_timeout,
        start_timeout: config.container_start_timeout,
        pull_timeout: config.image_pull_timeout,
        pull_inactivity: config.image_pull_inactivity_timeout,
        manifest_timeout: config.manifest_pull_timeout,
        dynamic_ports: dynamic_ports(config),
        pause_archive: config.pause_archive.clone(),
        pause_labels: config.pause_labels.clone(),
        nvidia_runtime: config.nvidia_runtime.clone(),
        requests_gpus: config.external && config.gpus,
        ipv6_only: false,
        log_router_async: config.firelens_async,
        limits: docker::Limits::default(),
    }
}

fn dynamic_ports(config: &Config) -> RangeInclusive<u16> {
    match config.dynamic_host_port_range {
        Some(range) => range.first..=range.last,
        None => kernel::ephemeral_ports().unwrap_or(DYNAMIC_PORTS),
    }
}

/// The capabilities of this host, as limited by its operator.
pub(crate) fn capabilities(config: &Config, offers: &Offers, instance: &Instance) -> Capabilities {
    Capabilities {
        docker_api_versions: offers.docker_api_versions.clone(),
        pause_image: docker::can_build_pause_image() || offers.pause_archive,
        gpu_driver: offers.gpus.driver.clone(),
        log_drivers: config.logging_drivers.clone(),
        privileged_disabled: config.privileged_disabled,
        selinux: config.selinux_capable,
        apparmor: config.apparmor_capable,
        task_limits: offers.task_limits,
        optimized_cpu: kernel::has_cpu_features(&OPTIMIZED_CPU),
        volume_drivers: offers.volume_drivers.clone(),
        volume_plugin: config.volume_plugin_capabilities.clone(),
        health_check_disabled: config.docker_health_check_disabled,
        os_family_detailed: config.detailed_os_family.clone(),
        agent_version: version::OWN.to_owned(),
        external: config.external,
        task_roles: config.task_roles,
        task_roles_in_host_network: config.task_roles_in_host_network,
        awslogs_with_execution_role: config.awslogs_with_execution_role,
        gmsa: config.gmsa_in_domain(),
        gmsa_domainless: config.gmsa && offers.credentials_fetcher,
        fault_injection: offers.fault_injection,
        task_networks: offers.networks.any.then(|| TaskNetworks {
            trunking: offers.networks.trunking,
            proxy: offers.networks.proxy,
            blocks_metadata: config.awsvpc_block_imds,
            vpc_id: instance.vpc_id.clone(),
            subnet_id: instance.subnet_id.clone(),
        }),
    }
}

/// The resources of this host that ECS may use for tasks.
pub(crate) fn host_resources(config: &Config) -> Result<HostResources, Fatal> {
    // Regardless of the agent's own CPU quota: its tasks have quotas of their own.
    let cpus = kernel::processors();
    let memory = register::memory_for_tasks(kernel::memory(), u32::from(config.reserved_memory_mib))
        .map_err(|error| Fatal { code: error.exit_code(), message: with_causes(&error) })?;
    Ok(HostResources {
        cpus,
        memory_mib: memory,
        tcp_ports: config.reserved_ports.clone(),
        udp_ports: config.reserved_ports_udp.clone(),
    })
}

/// Settings for the reports of state changes to ECS.
pub(crate) fn report(config: &Config, identity: &Identity) -> report::Settings {
    report::Settings {
        cluster: identity.cluster.clone(),
        exclude_ipv6_bindings: config.exclude_ipv6_port_binding,
        ipv6_only: false,
    }
}

/// Settings of the edge for secrets, environment files, log routers, Kerberos tickets and metadata files.
pub(crate) fn resources(config: &Config, identity: &Identity, instance: &Instance) -> resources::Settings {
    let [private_ipv4, public_ipv4] = instance.ipv4.clone();
    resources::Settings {
        data_dir: config.data_dir.clone(),
        cluster: identity.cluster.clone(),
        instance_id: instance.id.clone(),
        credentials_fetcher: config.credentials_fetcher.clone(),
        instance: resources::InstanceFacts {
            // Compat: the operator's cluster, not that of the registration.
            cluster: config.cluster.clone().unwrap_or_default(),
            container_instance: identity.container_instance_arn.clone(),
            availability_zone: identity.availability_zone.clone(),
            private_ipv4,
            public_ipv4,
        },
    }
}

/// The core's policy: its delays, limits and choices.
pub(crate) fn policy(config: &Config, gpus: &Gpus) -> Result<Policy, Fatal> {
    let host = host_resources(config)?;
    Ok(Policy {
        capacity: Capacity {
            cpu: u64::from(host.cpus) * 1024,
            memory: u64::from(host.memory_mib),
            reserved_tcp: host.tcp_ports.into_iter().collect(),
            reserved_udp: host.udp_ports.into_iter().collect(),
            gpus: gpus.ids.iter().cloned().collect(),
        },
        pull: match config.image_pull_behavior {
            ImagePullBehavior::Default => PullBehavior::Default,
            ImagePullBehavior::Always => PullBehavior::Always,
            ImagePullBehavior::Once => PullBehavior::Once,
            ImagePullBehavior::PreferCached => PullBehavior::PreferCached,
        },
        pull_upfront: config.pull_upfront,
        cleanup_wait: config.task_cleanup_wait,
        cleanup_jitter: config.task_cleanup_wait_jitter,
        inventory_every: Span::secs(300),
        images: image_policy(config),
        pause_cleanup_delay: config.pause_cleanup_delay,
        local_address: config.awsvpc_local_address,
        owners: Owners::default(), // known once the state has been read
    })
}

/// Images of agents, which are never cleaned up, whatever the configuration says (spec `images.md` §7.4): this agent's, as named
/// in `examples/docker/build`, and the Go agent's, to which an operator may want to return.
const AGENT_IMAGES: [&str; 2] = ["ecs-agent:latest", "amazon/amazon-ecs-agent:latest"];

fn image_policy(config: &Config) -> ImagePolicy {
    let excluded = config.exclude_untracked_images.iter().cloned();
    ImagePolicy {
        enabled: !config.image_cleanup_disabled,
        interval: config.image_cleanup_interval,
        minimum_age: config.image_minimum_cleanup_age,
        per_cycle: u32::try_from(config.images_per_cleanup).unwrap_or(u32::MAX),
        exclude: excluded.chain(AGENT_IMAGES.into_iter().chain([docker::pause_image()]).map(str::to_owned)).collect(),
        untracked: config.untracked_image_cleanup.then(|| UntrackedPolicy {
            // A negative number means none; to the Go agent it means all.
            containers_per_cycle: u32::try_from(config.containers_per_cleanup.max(0)).unwrap_or(u32::MAX),
            minimum_age: config.foreign_image_minimum_cleanup_age,
        }),
        disk: config.image_disk_high_percent.map(|high| {
            let low = config.image_disk_low_percent.unwrap_or(high);
            (high, low.min(high))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    #[test]
    fn images_of_agents_are_never_cleaned_up() {
        let build = include_str!("../../../examples/docker/build");
        let named = build.lines().find_map(|line| line.strip_prefix("image=\"${1:-")?.strip_suffix("}\""));
        for exclude in ["", "[\"mine:1\"]"] {
            let variables = [("AWS_DEFAULT_REGION", "us-west-2"), ("ECS_EXCLUDE_UNTRACKED_IMAGE", exclude)];
            let sources = crate::config::Sources::open(crate::config::Environment::new(variables), Role::Agent);
            let policy = image_policy(&sources.load(None).config.expect("the configuration is valid"));
            for name in
                [named.expect("the script has a default"), "amazon/amazon-ecs-agent:latest", docker::pause_image()]
            {
                assert!(policy.exclude.contains(name), "{name}: {:?}", policy.exclude);
            }
        }
    }
}
