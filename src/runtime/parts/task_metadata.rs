//! The task metadata server on port 51679: what containers ask at `169.254.170.2`.
//!
//! Owns the translation of the configuration, and of the stored credentials, to what the server needs. Like the introspection
//! port, it opens with the registration, which is before the connection to ACS: the credentials of tasks that run already are
//! answered with 503 until ECS sends them again.

use crate::aws::identity::roles::RoleCredentials;
use crate::config::{Config, PeerCheck};
use crate::ecs::tags::{self, TagsError};
use crate::http::task_metadata::{
    Audit, AuditSink, Credentials, CredentialsLookup, Metadata, PeerCheckMode, Place, Rates, Sources, TagLookup,
    TagsProblem, Tasks, Work,
};
use crate::runtime::execute::edges::Edges;
use crate::runtime::logging::plain::{PlainFile, Purpose};
use crate::runtime::parts::statistics::Statistics;
use crate::runtime::startup::instance::Instance;
use crate::store::Identity;
use ecs_core::model::view::View;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the server's answers come from.
pub(crate) fn sources(
    config: &Config,
    identity: &Identity,
    instance: &Instance,
    view: watch::Receiver<Arc<View>>,
    edges: &Arc<Edges>,
    work: Work,
    statistics: Arc<Statistics>,
) -> Sources {
    let audit = Audit {
        cluster: identity.cluster.clone(),
        container_instance: identity.container_instance_arn.clone(),
        sink: config.audit_log().map(|file| {
            let file = PlainFile::new(Purpose::Audit, file);
            Arc::new(move |line| file.write(line)) as AuditSink
        }),
    };
    let rates = Rates { steady: config.task_metadata_rates.steady, burst: config.task_metadata_rates.burst };
    let peer_check = match config.credentials_peer_check {
        PeerCheck::Off => PeerCheckMode::Off,
        PeerCheck::Log => PeerCheckMode::Log,
        PeerCheck::Enforce => PeerCheckMode::Enforce,
    };
    let clock = edges.clock.clone();
    let metadata = Metadata {
        place: place(config, identity, instance),
        wall: Arc::new(move |at| clock.wall(at)),
        tags: tags(edges.ecs.clone()),
        stats: Arc::new(move |container| statistics.lookup(container)),
    };
    Sources::new(Tasks::new(view), metadata, lookup(edges.clone()), work, audit, rates, peer_check)
}

/// The facts about this instance. An operator may want no availability zone to be shown.
fn place(config: &Config, identity: &Identity, instance: &Instance) -> Place {
    let zone = |zone: &str| if config.task_metadata_without_zone { String::new() } else { zone.to_owned() };
    Place {
        cluster: identity.cluster.clone(),
        container_instance: identity.container_instance_arn.clone(),
        availability_zone: zone(&identity.availability_zone),
        availability_zone_id: zone(&instance.zone_id),
        vpc_id: instance.vpc_id.clone(),
    }
}

/// Asks ECS for tags, with the credentials of the instance.
fn tags(ecs: aws_sdk_ecs::Client) -> TagLookup {
    Arc::new(move |question| {
        let ecs = ecs.clone();
        Box::pin(async move {
            let answer = tags::tags(&ecs, &question.resource, question.container.as_deref()).await;
            answer.map_err(|TagsError { code, message, status, request_id }| {
                let message = match code.as_str() {
                    "" => format!("GetResourceTags failed for {}: {message}", question.resource),
                    _ => message,
                };
                TagsProblem { code, message, status, request_id }
            })
        })
    })
}

fn lookup(edges: Arc<Edges>) -> CredentialsLookup {
    Arc::new(move |id| {
        let found = edges.roles.get(id)?;
        let RoleCredentials { role_arn, access_key_id, secret_access_key, session_token, expiration, .. } = &*found;
        Some(Credentials {
            role_arn: role_arn.clone(),
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            session_token: session_token.clone(),
            expiration: expiration.clone(),
        })
    })
}
