//! Data that all parts of a running server share: the state behind its lock, the options, the keys. This module owns the lock and
//! announces changes of the state. Invariant: no part holds the lock while it waits.

use super::bodies::MAX_LARGE_BODIES;
use super::instances::Disconnect;
use super::keys::Keys;
use super::objects::kind_of;
use super::options::Options;
use super::payload::scripted_task;
use super::registry::{SaveError, Storage};
use super::state::State;
use super::time::now;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Maximum number of connections at a time. Further ones wait in the listeners' backlogs.
const MAX_CONNECTIONS: usize = 512;

/// The shared data.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Counts the changes of the state. Code that waits for a change subscribes to it.
    pub(super) changed: watch::Sender<u64>,
    pub(super) options: Options,
    /// The keys that clients must sign with.
    pub(super) keys: Keys,
    /// Layers and uploads of the embedded registry, and the progress of saving it.
    pub(super) storage: Storage,
    /// A permit for each large body in memory.
    pub(super) large_bodies: Arc<Semaphore>,
    /// A permit for each connection.
    pub(super) connections: Arc<Semaphore>,
    /// Tokens of the metadata service, oldest first, each with the time until which it is valid, in seconds since the epoch.
    tokens: Mutex<VecDeque<(String, f64)>>,
    /// Cancelled when the server stops.
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(state: State, options: Options, storage: Storage) -> Self {
        Self {
            keys: state.site.keys.clone(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            options,
            storage,
            large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tokens: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and wakes all that wait for changes.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.change_if(|state| (change(state), true))
    }

    /// Like [`Self::change`], but wakes waiters only if the function returns `true`.
    pub(super) fn change_if<T>(&self, change: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let (result, changed) = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
        result
    }

    /// Changes the state, and waits until what this has changed of the registry is on disk.
    ///
    /// # Errors
    /// If it could not be saved. It is undone then.
    pub(super) async fn change_durably<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, SaveError> {
        let (result, revision) = self.change(|state| {
            let before = state.ecr.revision();
            let result = change(state);
            let after = state.ecr.revision();
            (result, (after != before).then_some(after))
        });
        if let Some(revision) = revision {
            self.storage.saves.settled(revision).await?;
        }
        Ok(result)
    }

    pub(super) fn tokens<T>(&self, look: impl FnOnce(&mut VecDeque<(String, f64)>) -> T) -> T {
        look(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a payload task that was written by hand to an instance and tracks it. Returns its ARN.
    pub(super) fn send_task(&self, task: Value) -> Result<String, String> {
        if !task.is_object() {
            return Err(format!("a payload task is an object: {{ ... }}, not {}", kind_of(&task)));
        }
        self.change(|state| {
            let instance = state.any_instance().ok_or("no container instance is registered")?;
            let (instance_arn, cluster) = (instance.arn.clone(), instance.cluster.clone());
            let task = scripted_task(&state.site, &cluster, &instance_arn, task, now());
            let (arn, payload, desired) = (task.arn.clone(), task.payload.clone(), task.desired_status);
            match state.task_mut(&arn) {
                Some(known) => known.desired_status = known.desired_status.max(desired),
                None => state.add_task(task)?,
            }
            state.queue_payload(&instance_arn, &[payload])?;
            Ok(arn)
        })
    }

    /// Sends a message unchanged.
    pub(super) fn send_message(&self, kind: &str, message: Value) -> Result<(), String> {
        self.change(|state| {
            let instance = state.any_instance().ok_or("no container instance is registered")?.arn.clone();
            state.queue(&instance, kind, message, false)
        })
    }

    /// Ends all open sockets of the chosen kinds, in the way that `disconnect` describes.
    pub(super) fn disconnect(&self, acs: bool, tcs: bool, disconnect: &Disconnect) {
        self.change(|state| {
            if acs {
                state
                    .instances
                    .iter_mut()
                    .filter_map(|i| i.acs_connection.as_mut())
                    .for_each(|s| s.disconnect = Some(disconnect.clone()));
            }
            if tcs {
                state.tcs_disconnect = (state.tcs_disconnect.0 + 1, Some(disconnect.clone()));
            }
        });
    }
}
