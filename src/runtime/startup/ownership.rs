//! The lock on the container engine, and the identity that marks this agent's containers on it.
//!
//! Owns the order of the two: the lock is taken as soon as Docker has answered, and the identity is chosen when the state has
//! been read. [`docker_lock`](crate::host::docker_lock) is the lock itself; [`ecs_core::model::owner`] decides which
//! identities may be taken over. Invariant: before the lock is held, nothing is written, registered or changed.

use super::settings;
use crate::config::{Config, Role};
use crate::docker::Docker;
use crate::host::data_dir;
use crate::host::docker_lock::{DockerLock, Held, Holder, Place, Places, Renewed, Running, Trust, form};
use crate::host::lanes::{disk, files};
use crate::lane::{Lane, Settings};
use crate::runtime::supervisor::PartResult;
use crate::runtime::{Fatal, Options};
use crate::store::{Loaded, Store};
use ecs_core::model::ids::stable_hash;
use ecs_core::model::{OpError, OwnerId, Owners, with_causes};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Threads that read and write lock files. That takes no time, unless a user mounts a file system that never answers in a
/// directory that every user may write to. Each of the two places has a thread and a time limit of its own.
const LOCKS: Settings = Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// Interval between checks that the lock file still exists.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// Upper limit of that interval, which doubles while a check does not end.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// While the lock is not held, the first, second, fourth, eighth… check is logged, and every check whose number is a multiple of
/// this.
const CHECKS_PER_LINE: u32 = 40;

/// The lock of this agent. It is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Ownership {
    lock: Arc<DockerLock>,
    /// The description of this agent in the lock files. A call reads it on the lane's thread, just before it writes it, so that
    /// an older description never replaces a newer one.
    holder: Arc<Mutex<Holder>>,
    lane: Lane,
    /// The engine is reached through a socket of this host. Otherwise agents on other hosts may use it, and their locks are not
    /// visible here.
    is_local: bool,
}

impl Ownership {
    /// Takes the lock for this engine and network namespace.
    ///
    /// # Errors
    /// Another agent holds the lock, or the engine does not answer.
    pub(crate) async fn take(config: &Config, options: Options, docker: &Docker) -> Result<Self, Fatal> {
        let engine = docker.engine_id().await.map_err(|error| engine_failed(&error))?;
        // An engine without an id is identified by its address. Only a hash is used, since the address may contain a password.
        let address_id = || format!("endpoint-{:016x}", stable_hash(&[&config.docker_host]));
        let engine = if engine.is_empty() { address_id() } else { engine };
        let data_dir = if config.checkpoint { config.data_dir.display().to_string() } else { "none".to_owned() };
        let (endpoint, is_service) = (config.docker_host.clone(), options.role == Role::Service);
        let inspect = move || {
            let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            (Trust::new(&endpoint), namespace, form(is_service, &mounts))
        };
        let inspected = files().run("the Docker socket", inspect).await;
        let (trust, namespace, form) = inspected.map_err(|error| Fatal::restartable(with_causes(&error)))?;
        let holder = Holder {
            pid: std::process::id(),
            form,
            data_dir,
            cluster: settings::cluster(config),
            identities: BTreeSet::new(),
        };
        let is_local = config.docker_host.starts_with("unix://");
        let lock = Arc::new(DockerLock::new(Places::default(), trust, &engine, namespace));
        let holder = Arc::new(Mutex::new(holder));
        let this = Self { lock, holder, lane: Lane::new("docker lock", LOCKS), is_local };
        for place in [Place::Shared, Place::Open] {
            let taken = this.with_lock(place, move |lock, holder| lock.take_in(place, holder)).await;
            let has_lock = taken.transpose().map_err(conflict)?;
            if place == Place::Open && has_lock == Some(false) {
                tracing::warn!(
                    "no lock file can be created: a second agent on this Docker engine would not be noticed"
                );
            }
        }
        Ok(this)
    }

    /// Determines which containers are this agent's, and passes that to the Docker edge.
    ///
    /// # Errors
    /// An agent in another network namespace has the same identity, or the containers cannot be listed.
    pub(crate) async fn identify(
        &self,
        config: &Config,
        docker: Docker,
        mut store: Store,
        loaded: &Loaded,
    ) -> Result<(Docker, Store, Owners), Fatal> {
        self.describe(store.owners()).await;
        let running = self.others(store.owners()).await?;
        let place = match config.checkpoint {
            true => {
                let (path, shown) = (config.data_dir.clone(), config.data_dir.display().to_string());
                let found = files().run(&shown, move || data_dir::place(&path)).await;
                found.map_err(|error| Fatal::restartable(with_causes(&error)))?
            }
            false => String::new(),
        };
        // The identity may have been lost with the state. The labels of containers then show which one this directory had.
        if loaded.host.lost && running.is_partial {
            tracing::warn!(
                "the identity of this data directory was lost, and it is not known which agents run: no containers are taken over"
            );
        } else if loaded.host.lost {
            let marks = docker.owner_marks().await.map_err(|error| engine_failed(&error))?;
            let mut owners = store.owners().clone();
            let added = owners.take_over(&marks, &place, &running.identities);
            if !added.is_empty() {
                tracing::warn!(
                    identities = added.len(),
                    place,
                    "the identity of this data directory was lost; containers of an agent that had its data here are taken over"
                );
                let save = move || store.save_owners(owners).map(|()| store);
                let saved = disk().run("the state", save).await;
                let saved = saved.map_err(|error| Fatal::restartable(with_causes(&error)))?;
                store = saved.map_err(|error| Fatal::restartable(with_causes(&error)))?;
                self.describe(store.owners()).await;
            }
        }
        let owners = store.owners().clone();
        Ok((docker.with_owner(owners.clone(), &place), store, owners))
    }

    /// Creates the lock file again whenever it was removed, until `stop` is cancelled.
    ///
    /// # Errors
    /// None: an agent that has lost its lock goes on, since its tasks need it.
    pub(crate) async fn keep(&self, stop: CancellationToken) -> PartResult {
        let keeping = async {
            let (mut wait, mut failures) = (CHECK_INTERVAL, 0);
            loop {
                tokio::time::sleep(wait).await;
                let renewed = self.with_lock(Place::Shared, |lock, holder| lock.renew(holder)).await;
                let (is_held, has_ended) =
                    (matches!(renewed, Some(Ok(Renewed::Unchanged | Renewed::Recreated))), renewed.is_some());
                failures = if is_held { 0 } else { failures + 1 };
                wait = if has_ended { CHECK_INTERVAL } else { (wait * 2).min(MAX_CHECK_INTERVAL) };
                log_renewed(renewed, failures);
            }
        };
        stop.run_until_cancelled(keeping).await;
        Ok(())
    }

    /// Writes this agent's identities into the lock files.
    async fn describe(&self, owners: &Owners) {
        let identities = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).identities = identities;
        self.with_lock(Place::Shared, |lock, holder| lock.describe(holder)).await;
    }

    /// The other running agents that use this engine, according to the lock files in both places.
    async fn others(&self, owners: &Owners) -> Result<Running, Fatal> {
        let own: BTreeSet<OwnerId> = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        let mut running = Running::default();
        for place in [Place::Shared, Place::Open] {
            let own = own.clone();
            match self.with_lock(place, move |lock, _| lock.others_in(place, &own)).await {
                Some(found) => {
                    let found = found.map_err(conflict)?;
                    running.identities.extend(found.identities);
                    running.is_partial |= found.is_partial;
                }
                None => running.is_partial = true,
            }
        }
        Ok(running)
    }

    /// Identities of the other running agents that use this engine; `None` if not all of them are known.
    pub(crate) async fn running(&self) -> Option<BTreeSet<OwnerId>> {
        if_complete(self.is_local, self.others(&Owners::default()).await.ok()?)
    }

    /// Runs `work` on a thread of the lane, since a lock file's file system may never answer. `None` if it does not answer in
    /// time; that is logged here.
    async fn with_lock<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&DockerLock, &Holder) -> T + Send + 'static,
    ) -> Option<T> {
        let (lock, holder) = (self.lock.clone(), self.holder.clone());
        let work = move || {
            let holder = holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
            work(&lock, &holder)
        };
        let done = self.lane.run(place.name(), work).await;
        if let Err(error) = &done {
            tracing::warn!(
                error = with_causes(error),
                "the agents' lock files cannot be accessed; a second agent on this Docker engine may not be noticed"
            );
        }
        done.ok()
    }
}

/// The identities of the running agents that were found; `None` if there may be others. An engine that is not reached through a
/// socket of this host may have agents on other hosts, whose locks are not visible here.
fn if_complete(is_local: bool, running: Running) -> Option<BTreeSet<OwnerId>> {
    (is_local && !running.is_partial).then_some(running.identities)
}

/// Logs the result of a check of the lock file. `failures` is the number of checks in a row after which the lock was not held.
fn log_renewed(renewed: Option<Result<Renewed, Held>>, failures: u32) {
    let is_due = failures.is_power_of_two() || failures.is_multiple_of(CHECKS_PER_LINE);
    match renewed {
        Some(Ok(Renewed::Recreated)) => {
            tracing::warn!("the lock file of this agent was removed while the agent was running; it was created again");
        }
        Some(Ok(Renewed::Missing)) if is_due => tracing::warn!(
            "the lock file of this agent was removed and cannot be created again: a second agent on this Docker engine would not \
             be noticed"
        ),
        Some(Err(held)) if is_due => tracing::error!("the lock file of this agent was removed, and {held}"),
        // `with_lock` has logged why there is no result.
        Some(_) | None => {}
    }
}

fn conflict(held: Held) -> Fatal {
    Fatal::restartable(held.to_string())
}

fn engine_failed(error: &OpError) -> Fatal {
    match error {
        OpError::Failed(failure) | OpError::Unknown(failure) => Fatal::restartable(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_agents_are_known_only_if_the_engine_is_on_this_host() {
        let ids = BTreeSet::from([OwnerId::from("a")]);
        for (is_local, is_partial, wanted) in [
            (true, false, Some(ids.clone())),
            (true, true, None),
            (false, false, None), // Docker over TCP: agents of other hosts are not seen
            (false, true, None),
        ] {
            let running = Running { identities: ids.clone(), is_partial };
            assert_eq!(if_complete(is_local, running), wanted, "{is_local} {is_partial}");
        }
        assert_eq!(if_complete(true, Running::default()), Some(BTreeSet::new()), "no other agent runs");
    }
}
