//! Which engine this agent works with, and which containers on it are its own: the lock before anything else, the identity after the state.
//!
//! Owns the order of these. What is locked how is in `docker_lock`, which identity may be taken over in [`crate::model::owner`]. Invariant:
//! nothing is written, registered or changed before the lock is held.

use super::docker_lock::{DockerLock, Held, Holder, Places, Trust, form};
use super::{Fatal, Options, data_dir, startup};
use crate::config::{Config, Role};
use crate::docker::Docker;
use crate::model::ids::stable_hash;
use crate::model::{OpError, OwnerId, Owners, with_causes};
use crate::store::{Loaded, Store};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// Looking at lock files takes no time; but a directory that anybody may write to can hold a file system that never answers.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// The lock of this agent, for as long as this lives; `None` if there is none, which was logged.
#[derive(Debug)]
pub(super) struct Ownership {
    lock: Option<Arc<DockerLock>>,
    holder: Holder,
}

impl Ownership {
    /// Takes the lock for this engine and network namespace.
    ///
    /// # Errors
    /// Another agent has it, or the engine does not say which one it is.
    pub(super) async fn take(config: &Config, options: Options, docker: &Docker) -> Result<Self, Fatal> {
        let engine = docker.engine_id().await.map_err(|error| failed(&error))?;
        // An engine that does not say is known by the way to it, which may hold a password.
        let way = || format!("endpoint-{:016x}", stable_hash(&[&config.docker_host]));
        let engine = if engine.is_empty() { way() } else { engine };
        let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let data_dir = if config.checkpoint { config.data_dir.display().to_string() } else { "none".to_owned() };
        let holder = Holder {
            pid: std::process::id(),
            form: form(options.role == Role::Service, &mounts),
            data_dir,
            cluster: startup::cluster(config),
            identities: BTreeSet::new(),
        };
        let (trust, said) = (Trust::new(&config.docker_host), holder.clone());
        let taken = beside(move || DockerLock::take(Places::default(), trust, &engine, namespace, &said)).await;
        let lock = taken.transpose().map_err(refused)?.map(Arc::new);
        Ok(Self { lock, holder })
    }

    /// Finds out whose containers are this agent's, and tells Docker's edge.
    ///
    /// # Errors
    /// An agent in another network namespace has the same identity, or the containers cannot be listed.
    pub(super) async fn identify(
        &mut self,
        config: &Config,
        docker: Docker,
        store: &mut Store,
        loaded: &Loaded,
    ) -> Result<(Docker, Owners), Fatal> {
        self.describe(store.owners());
        let live = self.others(store.owners()).await?;
        let place = if config.checkpoint { data_dir::place(&config.data_dir) } else { String::new() };
        // With the state the identity may be lost: then the containers say which one this directory had.
        if loaded.host.lost {
            let marks = docker.owner_marks().await.map_err(|error| failed(&error))?;
            let mut owners = store.owners().clone();
            let added = owners.take_over(&marks, &place, &live);
            if !added.is_empty() {
                tracing::warn!(
                    identities = added.len(),
                    place,
                    "the identity of this data directory was lost; containers of an agent that had its data here are taken over"
                );
                store.save_owners(owners).map_err(|error| Fatal::restartable(with_causes(&error)))?;
                self.describe(store.owners());
            }
        }
        let owners = store.owners().clone();
        Ok((docker.with_owner(owners.clone(), &place), owners))
    }

    fn describe(&mut self, owners: &Owners) {
        self.holder.identities = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        if let Some(lock) = &self.lock {
            lock.describe(&self.holder);
        }
    }

    async fn others(&self, owners: &Owners) -> Result<BTreeSet<OwnerId>, Fatal> {
        let Some(lock) = self.lock.clone() else { return Ok(BTreeSet::new()) };
        let own = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        let found = beside(move || lock.others(&own)).await;
        Ok(found.transpose().map_err(refused)?.unwrap_or_default())
    }
}

/// Runs on a thread of its own what may never return; `None` if it does not.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("docker lock".to_owned()).spawn(move || {
        let _gone = sender.send(work());
    });
    let done = match thread {
        Ok(_) => tokio::time::timeout(LOCK_LIMIT, answer).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    if done.is_none() {
        tracing::warn!(
            "the lock files of agents cannot be looked at; a second agent on this Docker engine may not be noticed"
        );
    }
    done
}

fn refused(held: Held) -> Fatal {
    Fatal::restartable(held.to_string())
}

fn failed(error: &OpError) -> Fatal {
    match error {
        OpError::Failed(failure) | OpError::Unknown(failure) => Fatal::restartable(failure.to_string()),
    }
}
