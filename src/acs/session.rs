//! The ACS session: the messages of ACS over a [`websocket`](crate::websocket) (spec `acs.md` §1, §2).
//!
//! Owns the address with its query. Connecting, reconnecting and the timers belong to the websocket.

use super::decode;
use super::{Frame, HostFacts, Incoming, Outgoing, ReceivedTask};
use crate::websocket::session::{self, EndpointError};
use crate::websocket::{Change, Protocol};
use ecs_core::model::ContainerSpec;
use std::future::Future;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The settings of the session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster: name or ARN.
    pub cluster: String,
    /// The ARN of the container instance.
    pub container_instance: String,
    /// The version of the agent.
    pub agent_version: String,
    /// The short commit hash of the agent's source.
    pub agent_hash: String,
    /// The version of the Docker server; `None` if it is unknown.
    pub docker_version: Option<String>,
    /// Facts of the host that affect the translation of tasks.
    pub host: HostFacts,
    /// The settings of the connection.
    pub connection: session::Settings,
}

/// The messages of ACS.
#[derive(Debug)]
struct Acs {
    host: HostFacts,
}

impl Protocol for Acs {
    type Incoming = Incoming;
    type Outgoing = Outgoing;

    const PEER: &'static str = "ACS";
    const OUTGOING_WAITS: bool = false;
    const CLOSES_SILENT: bool = false;

    fn read(&self, bytes: &[u8]) -> Frame {
        decode::frame(bytes, &self.host, &mut || uuid::Uuid::new_v4().to_string())
    }

    async fn write(&self, message: Outgoing) -> Vec<String> {
        decode::encode(&message)
    }

    /// The decoded tasks of a payload, without their texts: a container takes far more memory than its JSON.
    fn decoded_size(&self, message: &Incoming) -> usize {
        let Incoming::Payload { tasks, .. } = message else { return 0 };
        let containers = tasks.iter().map(|task| match task {
            ReceivedTask::Run(spec) => spec.containers.len(),
            _ => 0,
        });
        tasks.len() * size_of::<ReceivedTask>() + containers.sum::<usize>() * size_of::<ContainerSpec>()
    }

    fn notice(&self, change: Change) -> Option<Incoming> {
        Some(match change {
            Change::Connected => Incoming::Connected,
            Change::Deregistered => Incoming::Deregistered,
        })
    }
}

/// Runs until it is cancelled, or until the other end of `inbox` or `outbox` is dropped. `discover` yields the ACS endpoint.
pub async fn run<E, F>(
    settings: Settings,
    discover: E,
    inbox: mpsc::Sender<Incoming>,
    outbox: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
) where
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
{
    let protocol = Acs { host: settings.host.clone() };
    let address = |endpoint: &str, first| connect_url(&settings, endpoint, first);
    session::run(&settings.connection, protocol, discover, address, inbox, outbox, cancel).await;
}

/// The address of the websocket, with its query. With `send_credentials`, ACS sends the role credentials of all tasks again.
fn connect_url(settings: &Settings, endpoint: &str, send_credentials: bool) -> Result<Url, url::ParseError> {
    let slash = if endpoint.ends_with('/') { "" } else { "/" };
    let mut url = Url::parse(&format!("{endpoint}{slash}ws"))?;
    let mut query = url.query_pairs_mut();
    query
        .append_pair("agentHash", &settings.agent_hash)
        .append_pair("agentVersion", &settings.agent_version)
        .append_pair("clusterArn", &settings.cluster)
        .append_pair("containerInstanceArn", &settings.container_instance);
    if let Some(version) = &settings.docker_version {
        query.append_pair("dockerVersion", &format!("DockerVersion: {version}"));
    }
    query
        .append_pair("protocolVersion", "2")
        .append_pair("sendCredentials", if send_credentials { "true" } else { "false" })
        .append_pair("seqNum", "1");
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests;
