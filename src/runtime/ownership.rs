//! Which engine this agent works with, and which containers on it are its own: the lock before anything else, the identity after the state.
//!
//! Owns the order of these. What is locked how is in `docker_lock`, which identity may be taken over in [`crate::model::owner`]. Invariant:
//! nothing is written, registered or changed before the lock is held.

use super::docker_lock::{DockerLock, Held, Holder, Place, Places, Renewed, Running, Trust, form};
use super::lanes::{disk, files};
use super::supervisor::PartResult;
use super::{Fatal, Options, data_dir, settings};
use crate::config::{Config, Role};
use crate::docker::Docker;
use crate::lane::{Lane, Settings};
use crate::model::ids::stable_hash;
use crate::model::{OpError, OwnerId, Owners, with_causes};
use crate::store::{Loaded, Store};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Looking at lock files takes no time; but a directory that anybody may write to can hold a file system that never answers. Each of the
/// two places has a thread and a limit of its own.
const LOCKS: Settings = Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// Between two looks whether the lock file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The same while looking does not end: the wait doubles up to this.
const MAX_LOOK_EVERY: Duration = Duration::from_secs(600);
/// Looks between two lines about a lock that cannot be had for long.
const LOOKS_PER_LINE: u32 = 40;

/// The lock of this agent, for as long as this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    lock: Arc<DockerLock>,
    /// What the lock file says. It is read only when it is written there, so that an older one never replaces a newer one.
    holder: Arc<Mutex<Holder>>,
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
        let looked = files().run("the Docker socket", look).await;
        let (trust, namespace, form) = looked.map_err(|error| Fatal::restartable(with_causes(&error)))?;
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
            let taken = this.look(place, move |lock, holder| lock.take_in(place, holder)).await;
            let has_lock = taken.transpose().map_err(refused)?;
            if place == Place::Open && has_lock == Some(false) {
                tracing::warn!("no lock file can be made: a second agent on this Docker engine would not be noticed");
            }
        }
        Ok(this)
    }

    /// Finds out whose containers are this agent's, and tells Docker's edge.
    ///
    /// # Errors
    /// An agent in another network namespace has the same identity, or the containers cannot be listed.
    pub(super) async fn identify(
        &self,
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
                let found = files().run(&shown, move || data_dir::place(&path)).await;
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
                let saved = disk().run("the state", save).await;
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
            let (mut wait, mut failures) = (LOOK_EVERY, 0);
            loop {
                tokio::time::sleep(wait).await;
                let renewed = self.look(Place::Shared, |lock, holder| lock.renew(holder)).await;
                let (is_held, has_ended) =
                    (matches!(renewed, Some(Ok(Renewed::There | Renewed::Made))), renewed.is_some());
                failures = if is_held { 0 } else { failures + 1 };
                wait = if has_ended { LOOK_EVERY } else { (wait * 2).min(MAX_LOOK_EVERY) };
                log_renewed(renewed, failures);
            }
        };
        stop.run_until_cancelled(keeping).await;
        Ok(())
    }

    async fn describe(&self, owners: &Owners) {
        let identities = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).identities = identities;
        self.look(Place::Shared, |lock, holder| lock.describe(holder)).await;
    }

    /// Agents with the same engine that run, in both places.
    async fn others(&self, owners: &Owners) -> Result<Running, Fatal> {
        let own: BTreeSet<OwnerId> = owners.earlier.iter().chain([&owners.own]).cloned().collect();
        let mut running = Running::default();
        for place in [Place::Shared, Place::Open] {
            let own = own.clone();
            match self.look(place, move |lock, _| lock.others_in(place, &own)).await {
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
        known(self.is_local, self.others(&Owners::default()).await.ok()?)
    }

    /// Does with the lock what may never return; `None` if it does not, which is logged.
    async fn look<T: Send + 'static>(
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
                "lock files of agents cannot be looked at; a second agent on this Docker engine may not be noticed"
            );
        }
        done.ok()
    }
}

/// All identities of other agents that run; `None` if there may be more. Locks of other hosts are not seen, and an engine that is not
/// reached by a socket of this host may have agents there.
fn known(is_local: bool, running: Running) -> Option<BTreeSet<OwnerId>> {
    (is_local && !running.is_partial).then_some(running.identities)
}

/// Says what became of a lock file that was removed; `failures` is the number of looks in a row after which the lock was not held.
fn log_renewed(renewed: Option<Result<Renewed, Held>>, failures: u32) {
    let is_due = failures.is_power_of_two() || failures.is_multiple_of(LOOKS_PER_LINE);
    match renewed {
        Some(Ok(Renewed::Made)) => {
            tracing::warn!("the lock file of this agent was removed while it runs; it was made anew");
        }
        Some(Ok(Renewed::Missing)) if is_due => tracing::warn!(
            "the lock file of this agent was removed and cannot be made anew: a second agent on this Docker engine would not be noticed"
        ),
        Some(Err(held)) if is_due => tracing::error!("the lock file of this agent was removed, and {held}"),
        // An end of `look` without a result is logged there.
        Some(_) | None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_known_of_this_host_only() {
        let ids = BTreeSet::from([OwnerId::from("a")]);
        for (is_local, is_partial, wanted) in [
            (true, false, Some(ids.clone())),
            (true, true, None),
            (false, false, None), // Docker over TCP: agents of other hosts are not seen
            (false, true, None),
        ] {
            let running = Running { identities: ids.clone(), is_partial };
            assert_eq!(known(is_local, running), wanted, "{is_local} {is_partial}");
        }
        assert_eq!(known(true, Running::default()), Some(BTreeSet::new()), "nobody else runs");
    }
}
