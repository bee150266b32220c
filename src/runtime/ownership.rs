//! Which engine this agent works with, and which containers on it are its own: the lock before anything else, the identity after the state.
//!
//! Owns the order of these. What is locked how is in `docker_lock`, which identity may be taken over in [`crate::model::owner`]. Invariant:
//! nothing is written, registered or changed before the lock is held.

use super::docker_lock::{DockerLock, Held, Holder, Place, Places, Running, Trust, form};
use super::supervisor::PartResult;
use super::{Fatal, Options, data_dir, startup};
use crate::config::{Config, Role};
use crate::docker::Docker;
use crate::lane::{Lane, Settings};
use crate::model::ids::stable_hash;
use crate::model::{OpError, OwnerId, Owners, with_causes};
use crate::store::{Loaded, Store};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Looking at lock files takes no time; but a directory that anybody may write to can hold a file system that never answers. Each of the
/// two places has a thread and a limit of its own.
const LOCKS: Settings = Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// How often it is seen whether the lock file is still there; less and less often, up to the second, while it cannot be had.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const MAX_LOOK_EVERY: Duration = Duration::from_secs(600);

/// The lock of this agent, for as long as this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    lock: Arc<DockerLock>,
    holder: Holder,
    lane: Lane,
    /// The engine is reached by a socket of this host. Of others, agents on other hosts are not seen.
    is_local: bool,
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
        let data_dir = if config.checkpoint { config.data_dir.display().to_string() } else { "none".to_owned() };
        let (endpoint, is_service) = (config.docker_host.clone(), options.role == Role::Service);
        let look = move || {
            let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            (Trust::new(&endpoint), namespace, form(is_service, &mounts))
        };
        let looked = startup::files().run("the Docker socket", look).await;
        let (trust, namespace, form) = looked.map_err(|error| Fatal::restartable(with_causes(&error)))?;
        let holder = Holder {
            pid: std::process::id(),
            form,
            data_dir,
            cluster: startup::cluster(config),
            identities: BTreeSet::new(),
        };
        let is_local = config.docker_host.starts_with("unix://");
        let lock = Arc::new(DockerLock::new(Places::default(), trust, &engine, namespace));
        let this = Self { lock, holder, lane: Lane::new("docker lock", LOCKS), is_local };
        for place in [Place::Shared, Place::Open] {
            let holder = this.holder.clone();
            this.look(place, move |lock| lock.take_in(place, &holder)).await.transpose().map_err(refused)?;
        }
        Ok(this)
    }

    /// Finds out whose containers are this agent's, and tells Docker's edge.
    ///
    /// # Errors
    /// An agent in another network namespace has the same identity, or the containers cannot be listed.
    pub(super) async fn identify(
        &mut self,
        config: &Config,
        docker: Docker,
        mut store: Store,
        loaded: &Loaded,
    ) -> Result<(Docker, Store, Owners), Fatal> {
        self.describe(store.owners()).await;
        let live = self.others(store.owners()).await?;
        let place = match config.checkpoint {
            true => {
                let (path, shown) = (config.data_dir.clone(), config.data_dir.display().to_string());
                let found = startup::files().run(&shown, move || data_dir::place(&path)).await;
                found.map_err(|error| Fatal::restartable(with_causes(&error)))?
            }
            false => String::new(),
        };
        // With the state the identity may be lost: then the containers say which one this directory had.
        if loaded.host.lost && live.is_partial {
            tracing::warn!(
                "the identity of this data directory was lost, and it is not known which agents run: no containers are taken over"
            );
        } else if loaded.host.lost {
            let marks = docker.owner_marks().await.map_err(|error| failed(&error))?;
            let mut owners = store.owners().clone();
            let added = owners.take_over(&marks, &place, &live.identities);
            if !added.is_empty() {
                tracing::warn!(
                    identities = added.len(),
                    place,
                    "the identity of this data directory was lost; containers of an agent that had its data here are taken over"
                );
                let save = move || store.save_owners(owners).map(|()| store);
                let saved = startup::disk().run("the state", save).await;
                let saved = saved.map_err(|error| Fatal::restartable(with_causes(&error)))?;
                store = saved.map_err(|error| Fatal::restartable(with_causes(&error)))?;
                self.describe(store.owners()).await;
            }
        }
        let owners = store.owners().clone();
        Ok((docker.with_owner(owners.clone(), &place), store, owners))
    }

    /// Makes the lock file anew if somebody removes it, until `stop`.
    ///
    /// # Errors
    /// Never: an agent without its lock goes on, since its tasks need it.
    pub(super) async fn keep(&self, stop: CancellationToken) -> PartResult {
        let keeping = async {
            let mut wait = LOOK_EVERY;
            loop {
                tokio::time::sleep(wait).await;
                let holder = self.holder.clone();
                let renewed = self.look(Place::Shared, move |lock| lock.renew(&holder)).await;
                if let Some(Err(held)) = &renewed {
                    tracing::error!("the lock file of this agent was removed, and {held}");
                }
                let is_held = matches!(renewed, Some(Ok(true)));
                wait = if is_held { LOOK_EVERY } else { (wait * 2).min(MAX_LOOK_EVERY) };
            }
        };
        stop.run_until_cancelled(keeping).await;
        Ok(())
    }

    async fn describe(&mut self, owners: &Owners) {
        self.holder.identities = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        let holder = self.holder.clone();
        self.look(Place::Shared, move |lock| lock.describe(&holder)).await;
    }

    /// Agents with the same engine that run, in both places.
    async fn others(&self, owners: &Owners) -> Result<Running, Fatal> {
        let own: BTreeSet<OwnerId> = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        let mut running = Running::default();
        for place in [Place::Shared, Place::Open] {
            let own = own.clone();
            match self.look(place, move |lock| lock.others_in(place, &own)).await {
                Some(found) => {
                    let found = found.map_err(refused)?;
                    running.identities.extend(found.identities);
                    running.is_partial |= found.is_partial;
                }
                None => running.is_partial = true,
            }
        }
        Ok(running)
    }

    /// Identities of other agents that run with this engine; `None` if not all of them are known.
    pub(super) async fn running(&self) -> Option<BTreeSet<OwnerId>> {
        let running = self.others(&Owners::default()).await.ok()?;
        (self.is_local && !running.is_partial).then_some(running.identities)
    }

    /// Does with the lock what may never return; `None` if it does not, which is logged.
    async fn look<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&DockerLock) -> T + Send + 'static,
    ) -> Option<T> {
        let lock = self.lock.clone();
        let done = self.lane.run(place.name(), move || work(&lock)).await;
        if let Err(error) = &done {
            tracing::warn!(
                error = with_causes(error),
                "lock files of agents cannot be looked at; a second agent on this Docker engine may not be noticed"
            );
        }
        done.ok()
    }
}

fn refused(held: Held) -> Fatal {
    Fatal::restartable(held.to_string())
}

fn failed(error: &OpError) -> Fatal {
    match error {
        OpError::Failed(failure) | OpError::Unknown(failure) => Fatal::restartable(failure.to_string()),
    }
}
