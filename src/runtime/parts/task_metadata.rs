//! The task metadata server on port 51679: what containers ask at `169.254.170.2`.
//!
//! Owns the translation of the configuration, and of the stored credentials, to what the server needs. Like the introspection
//! port, it opens with the registration, which is before the connection to ACS: the credentials of tasks that run already are
//! answered with 503 until ECS sends them again.

use crate::aws::identity::roles::RoleCredentials;
use crate::config::{Config, PeerCheck};
use crate::http::task_metadata::{
    Audit, AuditSink, Credentials, CredentialsLookup, PeerCheckMode, Rates, Sources, Tasks, Work,
};
use crate::runtime::execute::edges::Edges;
use crate::runtime::logging::audit::AuditFile;
use crate::store::Identity;
use ecs_core::model::view::View;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the server's answers come from.
pub(crate) fn sources(
    config: &Config,
    identity: &Identity,
    view: watch::Receiver<Arc<View>>,
    edges: &Arc<Edges>,
    work: Work,
) -> Sources {
    let audit = Audit {
        cluster: identity.cluster.clone(),
        container_instance: identity.container_instance_arn.clone(),
        sink: config.audit_log().map(|file| {
            let file = AuditFile::new(file);
            Arc::new(move |line| file.write(line)) as AuditSink
        }),
    };
    let rates = Rates { steady: config.task_metadata_rates.steady, burst: config.task_metadata_rates.burst };
    let peer_check = match config.credentials_peer_check {
        PeerCheck::Off => PeerCheckMode::Off,
        PeerCheck::Log => PeerCheckMode::Log,
        PeerCheck::Enforce => PeerCheckMode::Enforce,
    };
    Sources::new(Tasks::new(view), lookup(edges.clone()), work, audit, rates, peer_check)
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
