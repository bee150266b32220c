//! Finds out, once at the start, what this host offers to tasks besides running containers.
//!
//! Owns the consequence if the host cannot limit tasks: the agent refuses to start if the operator has asked for limits;
//! otherwise it logs a warning and goes on without them (spec `resources.md` §2, `registration.md` §6). Unlike the Go agent, it
//! tries again if the host did not answer, and does not treat that as a refusal.

use super::container_form::ContainerForm;
use super::instance::Instance;
use super::settings::{cgroups, networks};
use crate::backoff::{Backoff, Shape};
use crate::cgroup::{CgroupError, Cgroups};
use crate::config::Config;
use crate::docker::{self, Docker};
use crate::host::fault;
use crate::host::gpu::{self, Gpus};
use crate::host::lanes::files;
use crate::host::program::Programs;
use crate::network;
use crate::runtime::Fatal;
use ecs_core::model::{OpError, with_causes};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// The oldest version of Docker's API with which a container can be put into a control group, as task limits require.
const MIN_API_FOR_LIMITS: &str = "1.22";

/// The oldest version of Docker's API with which ecs-init offers the network mode `awsvpc`.
const MIN_API_FOR_NETWORKS: &str = "1.25";

/// Pauses between attempts to find out whether the host can limit tasks, while it does not answer.
const PROBE_PAUSES: Shape =
    Shape { initial: Duration::from_secs(1), max: Duration::from_secs(8), factor: 2.0, jitter: 0.2 };
/// No attempt begins later than this after the first one.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// The host's control groups, and everything it offers to tasks.
#[derive(Debug)]
pub(crate) struct Host {
    /// Control groups of tasks. Existing ones can be removed even if no more are created.
    pub(crate) cgroups: Cgroups,
    /// Everything that the agent offers to ECS.
    pub(crate) offers: Offers,
}

/// The abilities of this host that the agent offers to ECS.
#[derive(Debug)]
pub(crate) struct Offers {
    /// Versions of Docker's API that both sides support.
    pub(crate) docker_api_versions: Vec<String>,
    /// CPU and memory limits of new tasks are enforced.
    pub(crate) task_limits: bool,
    /// Volume drivers besides `local`.
    pub(crate) volume_drivers: Vec<String>,
    /// The host's GPUs; empty if they are not enabled for tasks.
    pub(crate) gpus: Gpus,
    /// Docker's version, such as `20.10.24`.
    pub(crate) docker_version: String,
    /// The operator's archive of the pause image exists.
    pub(crate) pause_archive: bool,
    /// gMSA is enabled, and the socket of a credentials fetcher exists.
    pub(crate) credentials_fetcher: bool,
    /// Tasks may start network faults.
    pub(crate) fault_injection: bool,
    /// What tasks may have of a network of their own.
    pub(crate) networks: Networks,
}

/// What tasks may have of a network of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    /// Network interfaces. Without them there is none of the rest.
    pub(crate) any: bool,
    /// These may be VLANs of a trunk interface.
    pub(crate) trunking: bool,
    /// A proxy (App Mesh).
    pub(crate) proxy: bool,
}

impl Host {
    /// Prepares the control groups and finds out what the host offers.
    ///
    /// # Errors
    /// The host cannot do what the operator has asked for, or does not answer.
    pub(crate) async fn probe(
        config: &Config,
        docker: &Docker,
        form: &ContainerForm,
        instance: &Instance,
    ) -> Result<Self, Fatal> {
        form.check_data_dir(config).await;
        // Docker answered a moment ago, so a missing answer is an error: starting again is better than offering less in some
        // runs.
        let driver = docker.cgroup_driver().await.map_err(|error| match error {
            OpError::Failed(failure) | OpError::Unknown(failure) => Fatal::restartable(failure.to_string()),
        })?;
        let cgroups = Cgroups::new(cgroups::settings(config, driver)).await;
        // What the container lacks for limits is logged already; an operator who requires them gets the error.
        let is_known = form.lacks_limits() && config.task_limits.is_none();
        let task_limits = !is_known && limits(config, docker, &cgroups).await?;
        let networks = task_networks(config, docker, instance, form).await;
        Ok(Self { cgroups, offers: Offers::with(task_limits, networks, config, docker).await? })
    }
}

impl Offers {
    /// The offers according to the configuration; nothing is prepared on the host.
    ///
    /// # Errors
    /// The list of GPUs cannot be read.
    pub(crate) async fn assumed(config: &Config, docker: &Docker, instance: &Instance) -> Result<Self, Fatal> {
        let networks = task_networks(config, docker, instance, &ContainerForm::default()).await;
        let task_limits = config.task_limits != Some(false) && supports(docker, MIN_API_FOR_LIMITS);
        Self::with(task_limits, networks, config, docker).await
    }

    async fn with(task_limits: bool, networks: Networks, config: &Config, docker: &Docker) -> Result<Self, Fatal> {
        // While Docker answers, the programs for faults do.
        let (volume_drivers, fault_injection) = tokio::join!(volume_drivers(docker), can_inject_faults(config));
        Ok(Self {
            docker_api_versions: docker.api_versions(),
            task_limits,
            volume_drivers,
            fault_injection,
            networks,
            gpus: gpus(config).await?,
            docker_version: docker.server_version(),
            pause_archive: exists(&config.pause_archive).await,
            credentials_fetcher: config.gmsa && exists(&config.credentials_fetcher).await,
        })
    }
}

/// Whether network faults work on this host. ECS offers them on EC2 instances only.
async fn can_inject_faults(config: &Config) -> bool {
    if config.external {
        return false;
    }
    let obstacle = fault::probe::obstacle(&Programs::default(), fault::Runner::for_this_process()).await;
    if let Some(reason) = &obstacle {
        tracing::info!(reason, "Fault injection capability not enabled");
    }
    obstacle.is_none()
}

/// The host's GPUs; none if the operator has not enabled them for tasks.
async fn gpus(config: &Config) -> Result<Gpus, Fatal> {
    if !config.gpus {
        return Ok(Gpus::default());
    }
    gpu::listed().await.map_err(|error| Fatal::restartable(with_causes(&error)))
}

/// Whether the path exists. A path that cannot be checked counts as missing.
async fn exists(path: &Path) -> bool {
    let (file, shown) = (path.to_owned(), path.display().to_string());
    files().run(&shown, move || file.exists()).await.unwrap_or(false)
}

fn supports(docker: &Docker, api_version: &str) -> bool {
    docker.api_versions().iter().any(|version| version == api_version)
}

/// What tasks may have of a network of their own. Compat: where the instance is in no VPC, that is nothing. If something else is
/// missing, the Go agent does not start; this agent runs the other tasks.
async fn task_networks(config: &Config, docker: &Docker, instance: &Instance, form: &ContainerForm) -> Networks {
    if !config.task_eni {
        return Networks::default();
    }
    let mut found = network::Obstacles::default();
    let processes = networks::settings(config).processes;
    let has_pause_image = docker::can_build_pause_image() || exists(&config.pause_archive).await;
    let obstacle = match instance {
        _ if config.external => Some("this host is not an EC2 instance".to_owned()),
        Instance { vpc_id, .. } if vpc_id.is_empty() => Some("this instance is not in a VPC".to_owned()),
        Instance { subnet_id, .. } if subnet_id.is_empty() => Some("the subnet of this instance is unknown".to_owned()),
        _ if form.has_own_network() => {
            Some("the agent's container has a network of its own, without --network=host".to_owned())
        }
        _ if form.has_own_processes() && processes == Path::new("/proc") => Some(
            "the agent's container has processes of its own, without --pid=host or --volume=/proc:/host/proc:ro"
                .to_owned(),
        ),
        _ if !has_pause_image => Some("there is no image for the pause container".to_owned()),
        _ if !supports(docker, MIN_API_FOR_NETWORKS) => Some(format!("it needs Docker's API {MIN_API_FOR_NETWORKS}")),
        _ => {
            found = network::obstacles(processes).await;
            found.any.take()
        }
    };
    if let Some(reason) = &obstacle {
        tracing::warn!(reason, "tasks in network mode awsvpc (ECS_ENABLE_TASK_ENI) will not be placed here");
    }
    if let Some(reason) = found.vlan.as_ref().filter(|_| config.eni_trunking) {
        tracing::warn!(reason, "the interfaces of tasks cannot be VLANs (ECS_ENABLE_HIGH_DENSITY_ENI)");
    }
    if let Some(reason) = &found.proxy {
        tracing::warn!(reason, "tasks with a proxy (App Mesh) will not be placed here");
    }
    let any = obstacle.is_none();
    let trunking = any && config.eni_trunking && found.vlan.is_none();
    Networks { any, trunking, proxy: any && found.proxy.is_none() }
}

async fn volume_drivers(docker: &Docker) -> Vec<String> {
    docker.volume_drivers().await.unwrap_or_else(|error| {
        let error = error.into_failure();
        tracing::warn!(%error, "Docker does not list its plugins; only the volume driver local is offered to ECS");
        Vec::new()
    })
}

/// Whether tasks can be limited on this host. Fails if the operator requires limits and they are impossible.
async fn limits(config: &Config, docker: &Docker, cgroups: &Cgroups) -> Result<bool, Fatal> {
    if config.task_limits == Some(false) {
        return Ok(false);
    }
    let refuse_or_warn = |why: String, fatal: fn(String) -> Fatal| {
        let text = format!("CPU and memory limits of tasks (ECS_ENABLE_TASK_CPU_MEM_LIMIT) cannot be enforced: {why}");
        if config.task_limits == Some(true) {
            return Err(fatal(text));
        }
        tracing::warn!("{text}; tasks run without them");
        Ok(false)
    };
    if !supports(docker, MIN_API_FOR_LIMITS) {
        return refuse_or_warn(format!("they need Docker's API {MIN_API_FOR_LIMITS}"), Fatal::restartable);
    }
    match probe_limits(|| cgroups.prepare()).await {
        Ok(()) => Ok(true),
        Err(error) => refuse_or_warn(with_causes(&error), fatal_for(&error)),
    }
}

/// Tries until the host answers whether it can limit tasks. Gives up after a while, because tasks wait for the agent.
async fn probe_limits<F>(open: impl Fn() -> F) -> Result<(), CgroupError>
where
    F: Future<Output = Result<(), CgroupError>>,
{
    let (began, mut pauses) = (Instant::now(), Backoff::new(PROBE_PAUSES));
    loop {
        let error = match open().await {
            Err(error) if error.is_temporary() => error,
            answer => return answer,
        };
        let pause = pauses.pause();
        if began.elapsed() + pause > PROBE_TIME {
            return Err(error);
        }
        let (error, attempt, retry_in_s) = (with_causes(&error), pauses.attempt(), crate::backoff::seconds(pause));
        tracing::warn!(
            error,
            attempt,
            retry_in_s,
            "this host does not answer whether it can limit tasks; trying again"
        );
        tokio::time::sleep(pause).await;
    }
}

/// A host that cannot limit tasks cannot do so after a restart either. A host that did not answer may.
fn fatal_for(error: &CgroupError) -> fn(String) -> Fatal {
    if error.is_temporary() { Fatal::restartable } else { Fatal::terminal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::LaneError;
    use std::cell::Cell;

    fn silent() -> CgroupError {
        CgroupError::Lane(LaneError::Hangs { what: "x".to_owned(), limit: Duration::ZERO })
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_answer_is_tried_again() {
        let asked = Cell::new(0);
        let later = probe_limits(async || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(silent()) } else { Ok(()) }
        });
        later.await.unwrap();
        assert_eq!(asked.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_answers_is_a_reason_to_restart() {
        let (asked, began) = (Cell::new(0), Instant::now());
        let never = probe_limits(async || {
            asked.set(asked.get() + 1);
            Err(silent())
        });
        let error = never.await.unwrap_err();
        assert_eq!(fatal_for(&error)(String::new()).code, 1);
        assert!((4..=7).contains(&asked.get()), "{}", asked.get());
        assert!(began.elapsed() <= PROBE_TIME, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_cannot_limit_tasks_is_tried_once() {
        let (asked, began) = (Cell::new(0), Instant::now());
        let cannot = probe_limits(async || {
            asked.set(asked.get() + 1);
            Err(CgroupError::NoController { controller: "memory", root: "/sys/fs/cgroup".into() })
        });
        let error = cannot.await.unwrap_err();
        assert_eq!((fatal_for(&error)(String::new()).code, asked.get()), (5, 1));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
