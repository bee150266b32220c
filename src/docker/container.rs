//! Create, start, stop, remove, inspect, inventory: one method each.
//!
//! Owns the order of calls within an operation and what counts as success. This module does not retry: the core does, with its
//! own backoff. Invariant: each operation may be repeated at any time; a state that is already reached is success.

use super::api::error::DockerError;
use super::create::log;
use super::create::{CreateContext, LABEL_CLUSTER, LABEL_TASK, body};
use super::{Docker, observe};
use ecs_core::model::{
    ContainerKind, ContainerNetwork, ContainerSpec, CreateRequest, Failure, Observation, OpError, OwnerMark, Protocol,
    SecretValues, Span,
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::time::Duration;

const INSPECT_ERROR: &str = "CannotInspectContainerError";
/// How many containers an inventory inspects at the same time.
const INSPECTS_AT_ONCE: usize = 8;

/// The result of inspecting a container.
enum Inspection {
    /// A container of this agent.
    Ours(Box<Observation>),
    /// A container that this agent does not own.
    Foreign,
    /// There is no such container.
    Gone,
}

/// The observed container is the one requested: same task, same name in the task.
fn matches_request(request: &CreateRequest, seen: &Observation) -> bool {
    seen.task == request.task && seen.container == request.spec.name
}

/// The failure for an answer that cannot be read; another inspection may succeed.
fn unreadable(what: &str) -> Failure {
    Failure::retryable(INSPECT_ERROR, format!("unreadable answer of the Docker daemon: {what}"))
}

/// The error of an inspection that follows a change: the change was accepted, but its result was not seen, so the outcome is
/// unknown.
fn outcome_unknown(error: OpError) -> OpError {
    let (OpError::Failed(failure) | OpError::Unknown(failure)) = error;
    OpError::Unknown(failure)
}

impl Docker {
    /// Creates a container with the values that it refers to. The observation holds the digest of its image. If the name is
    /// taken by the same container of the same task, that container is the result.
    ///
    /// # Errors
    /// Fails if the settings are invalid, if the pause image, a host port or the API version that the container needs is not
    /// available, or if the engine does not create the container. [`OpError::Unknown`]: the container may have been created.
    pub async fn create(&self, request: &CreateRequest, values: &SecretValues) -> Result<Observation, OpError> {
        if request.spec.kind == ContainerKind::Pause {
            self.ensure_pause_image().await?;
        }
        // If the image is missing, the create below fails with the proper error. If the image cannot be inspected, nothing is
        // created: a health check that it brings may harm the engine.
        let image = self.image_present(&request.spec.image).await?.unwrap_or_default();
        let cgroup_parent = self.cgroup_parent(request).await?;
        let selinux = self.labels_files(request).await?;
        // A container in the namespace of another one publishes no ports.
        let publishes = request.network == ContainerNetwork::Configured;
        let ports = if publishes { self.host_ports(&request.spec)? } else { (Vec::new(), Vec::new()) };
        let (host_ports, range_starts) = ports;
        let context = CreateContext {
            cluster: &self.settings.cluster,
            owner: self.owner.as_ref(),
            region: self.settings.region.as_deref(),
            image_env: &image.env_keys,
            image_health_check: image.health_check.as_ref(),
            host_ports: &host_ports,
            cgroup_parent: cgroup_parent.as_deref(),
            range_starts: &range_starts,
            pause_labels: &self.settings.pause_labels,
            nvidia_runtime: &self.settings.nvidia_runtime,
            requests_gpus: self.settings.requests_gpus,
            selinux,
            ipv6_only: self.settings.ipv6_only,
            log_driver: log::Driver { is_async: self.settings.log_router_async, server: &self.server_version() },
        };
        let body = body(request, values, &context)?;
        let body = serde_json::to_value(body)
            .map_err(|_| Failure::permanent("DockerClientConfigError", "the settings cannot be written as JSON"))?;
        let wanted = &request.spec.engine_settings.api_version;
        if self.versions.create(wanted).is_none() {
            let text = format!("docker client factory: client not found for docker version: {wanted}");
            return Err(Failure::permanent("CannotGetDockerClientVersionError", text).into());
        }
        let limit = self.settings.create_timeout.into();
        let event = self.changes.expect(&request.runtime_name, "create");
        let created = match self.changer.create(&request.runtime_name, wanted, &body, limit).await {
            // Inspected by its name, since after a restart the agent finds it by its name, too.
            Ok(_) => match self.inspect_after_change(&request.runtime_name).await? {
                seen if matches_request(request, &seen) => {
                    event.observed();
                    Ok(seen)
                }
                _ => Err(OpError::Unknown(unreadable("another container has the name of the one created"))),
            },
            Err(error) => {
                let failure = error.failure("CannotCreateContainerError", "created");
                match &error {
                    DockerError::Daemon { status: 409, message } if message.contains("already in use") => {
                        self.adopt(request, failure).await
                    }
                    _ => Err(error.to_single_try_error("CannotCreateContainerError", "created")),
                }
            }
        };
        created.map(|seen| Observation { image_digest: image.repo_digest, ..seen })
    }

    /// Handles a name that is taken, by an earlier create of the same container or by another container.
    async fn adopt(&self, request: &CreateRequest, taken: Failure) -> Result<Observation, OpError> {
        match self.inspect_any(&request.runtime_name).await {
            Ok(Inspection::Ours(seen)) if matches_request(request, &seen) => Ok(*seen),
            Ok(Inspection::Ours(_) | Inspection::Foreign) => Err(OpError::Failed(taken)),
            // The name is taken and the container does not exist yet: an earlier create is still under way.
            Ok(Inspection::Gone) | Err(_) => Err(OpError::Unknown(taken)),
        }
    }

    /// The host port of each mapping, and the first host port of each range.
    fn host_ports(&self, spec: &ContainerSpec) -> Result<(Vec<u16>, Vec<u16>), Failure> {
        // Chosen ports are not bound yet, so a search that wraps around would find them free.
        let mut taken: Vec<u16> = spec.ports.iter().map(|mapping| mapping.host_port).collect();
        let mut choose = |count: u16, protocol: Protocol| {
            let first = self.ports.choose(count, protocol, &taken).map_err(|cause| {
                Failure::permanent("HostConfigError", format!("error retrieving docker port map: {cause}"))
            })?;
            taken.extend(first..=first + (count - 1));
            Ok(first)
        };
        let single = spec.ports.iter().map(|mapping| match mapping.host_port {
            0 => choose(1, mapping.protocol),
            port => Ok(port),
        });
        let single = single.collect::<Result<_, _>>()?;
        let ranges = spec.port_ranges.iter().map(|range| choose(range.count(), range.protocol));
        Ok((single, ranges.collect::<Result<_, _>>()?))
    }

    /// Starts a container. If it is already running, that is success.
    ///
    /// # Errors
    /// Fails if the engine does not start the container. [`OpError::Unknown`]: it may have started, because there was no answer,
    /// or because the inspection afterwards failed.
    pub async fn start(&self, name: &str) -> Result<Observation, OpError> {
        let limit = self.settings.start_timeout.into();
        let event = self.changes.expect(name, "start");
        self.changer
            .post(&["containers", name, "start"], &[], limit)
            .await
            .map_err(|error| error.to_single_try_error("CannotStartContainerError", "started"))?;
        let seen = self.inspect_after_change(name).await?;
        event.observed();
        Ok(seen)
    }

    /// Stops a container: sends SIGTERM (or the container's own stop signal), waits for `grace`, then sends SIGKILL. `None`:
    /// there is no such container.
    ///
    /// # Errors
    /// Fails if the engine does not stop the container. [`OpError::Unknown`]: there was no answer to the stop, or the inspection
    /// afterwards failed.
    pub async fn stop(&self, name: &str, grace: Span) -> Result<Option<Observation>, OpError> {
        let seconds = i32::try_from(grace.0.div_ceil(1000)).unwrap_or(i32::MAX).to_string();
        let limit = Duration::from(grace) + self.settings.limits.stop_margin;
        let event = self.changes.expect(name, "stop");
        match self.changer.post(&["containers", name, "stop"], &[("t", &seconds)], limit).await {
            Ok(_) => {
                let seen = self.inspect(name).await.map_err(outcome_unknown)?;
                event.observed();
                Ok(seen)
            }
            Err(error) if error.is_no_container() => Ok(None),
            Err(error) => Err(error.to_change_error("CannotStopContainerError", "stopped")),
        }
    }

    /// Removes a stopped container with its anonymous volumes. A container that does not exist is success. A container of that
    /// name that this agent does not own is left alone, which is success as well.
    ///
    /// # Errors
    /// Fails if the container cannot be inspected, or if the engine does not remove it. [`OpError::Unknown`]: there was no
    /// answer to the removal, or another removal is under way.
    pub async fn remove(&self, name: &str) -> Result<(), OpError> {
        let Inspection::Ours(seen) = self.inspect_any(name).await? else { return Ok(()) };
        match self.changer.delete(&["containers", &seen.runtime_id.0], &[("v", "1")], self.settings.limits.remove).await
        {
            Ok(()) => Ok(()),
            Err(error) if error.is_no_container() => Ok(()),
            // Another removal is under way; its outcome is not known yet.
            Err(error @ DockerError::Daemon { status: 409, .. })
                if error.to_string().contains("already in progress") =>
            {
                Err(OpError::Unknown(error.failure("CannotRemoveContainerError", "removing")))
            }
            Err(error) => Err(error.to_change_error("CannotRemoveContainerError", "removing")),
        }
    }

    /// Inspects a container, by name or id. `None`: it does not exist, or this agent does not own it.
    ///
    /// # Errors
    /// Fails if there is no answer in time, an error, or an answer that does not describe the container.
    pub async fn inspect(&self, name: &str) -> Result<Option<Observation>, OpError> {
        match self.inspect_any(name).await? {
            Inspection::Ours(seen) => Ok(Some(*seen)),
            Inspection::Gone | Inspection::Foreign => Ok(None),
        }
    }

    /// Inspects a container, whether or not this agent owns it.
    async fn inspect_any(&self, name: &str) -> Result<Inspection, OpError> {
        match self.reader.get(&["containers", name, "json"], &[], self.settings.limits.inspect).await {
            Ok(answer) => observe::from_inspect(&answer, name, &self.settings.cluster)
                .map(|seen| seen.filter(|seen| self.owners.owns(seen.owner.as_ref())))
                .map(|seen| seen.map_or(Inspection::Foreign, |seen| Inspection::Ours(Box::new(seen))))
                .map_err(|observe::Unreadable(what)| OpError::Failed(unreadable(what))),
            Err(error) if error.is_no_container() => Ok(Inspection::Gone),
            Err(error) => Err(error.to_read_error(INSPECT_ERROR, "inspecting")),
        }
    }

    /// The inspection at the end of a create or start. The change has happened; if the inspection fails, its outcome is unknown.
    async fn inspect_after_change(&self, name: &str) -> Result<Observation, OpError> {
        self.inspect(name).await.map_err(outcome_unknown)?.ok_or_else(|| {
            let text = format!("Error response from daemon: No such container: {name}");
            OpError::Unknown(Failure::permanent(INSPECT_ERROR, text))
        })
    }

    /// The marks of all agents that have containers of this cluster's tasks on this engine, running or not.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub async fn owner_marks(&self) -> Result<Vec<OwnerMark>, OpError> {
        let mut marks: Vec<OwnerMark> =
            self.list().await?.iter().filter_map(|entry| observe::owner_mark(&entry["Labels"])).collect();
        marks.sort();
        marks.dedup();
        Ok(marks)
    }

    /// All containers of this agent, in any state. A container that cannot be inspected is described by its list entry, so that
    /// it never seems to be missing.
    ///
    /// # Errors
    /// Fails if the containers cannot be listed.
    pub async fn inventory(&self) -> Result<Vec<Observation>, OpError> {
        let entries = self.list().await?;
        let entries = entries.into_iter().filter(|entry| self.owners.owns(observe::owner(&entry["Labels"]).as_ref()));
        let inspections = entries.map(|entry| self.inspect_listed(entry));
        Ok(stream::iter(inspections).buffer_unordered(INSPECTS_AT_ONCE).filter_map(std::future::ready).collect().await)
    }

    /// The list entries of all containers of this cluster's tasks, whichever agent owns them.
    async fn list(&self) -> Result<Vec<Value>, OpError> {
        let filters = serde_json::json!({"label": [LABEL_TASK, format!("{LABEL_CLUSTER}={}", self.settings.cluster)]});
        let query = [("all", "1"), ("filters", &filters.to_string())];
        let list = self
            .reader
            .get(&["containers", "json"], &query, self.settings.limits.list)
            .await
            .map_err(|error| error.to_read_error("CannotListContainersError", "listing"))?;
        let Value::Array(entries) = list else {
            let failure = Failure::retryable("CannotListContainersError", "the list of containers is not an array");
            return Err(OpError::Failed(failure));
        };
        Ok(entries)
    }

    /// Inspects a container of the list.
    async fn inspect_listed(&self, entry: Value) -> Option<Observation> {
        let listed = observe::from_list(&entry, &self.settings.cluster)?;
        let seen = self.inspect(&listed.id).await.unwrap_or_else(|error| {
            tracing::warn!(dockerId = listed.id, error = %error.into_failure(), "a container cannot be inspected; using its list entry");
            listed.seen
        });
        seen.map(|seen| Observation { outline: listed.outline, ..seen })
    }
}
