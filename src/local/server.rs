//! Starts the control plane in this process, and lets Rust code control it. This module owns the listeners and the tokio tasks
//! behind them: they end when the [`Server`] is dropped, except for work on the registry that was begun. Invariant: `/_local/`
//! can do the same as these methods.

use super::api;
use super::api_error::ApiError;
use super::ecr::Principal;
use super::ecr::policy::Policy;
use super::faults::{Delivery, Fault};
use super::http;
use super::imds::SUBNET;
use super::instances::Disconnect;
use super::keys::Keys;
use super::links;
use super::options::Options;
use super::profile::{self, Profile};
use super::records::Record;
use super::registry::{self, SaveError, Storage, expire};
use super::role_credentials::put_keys;
use super::shared::Shared;
use super::site::Site;
use super::start::{StartError, add_accounts, listen};
use super::state::State;
use super::telemetry::Extra;
use ecs_core::model::Secret;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the end of a server waits for work on the registry, and for its last save.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A condition was not met in time.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {} s while waiting for {what}", .waited.as_secs_f64())]
pub struct WaitError {
    what: String,
    waited: Duration,
}

/// A running control plane.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Accepts connections.
    tasks: JoinSet<()>,
    /// Saves the registry, until all requests have ended.
    keeper: JoinSet<Result<(), SaveError>>,
    keeper_end: CancellationToken,
    /// Ends when all network interfaces of tasks are removed; `None`: none were made.
    links_ended: Option<oneshot::Receiver<()>>,
}

impl Server {
    /// Starts listening.
    ///
    /// # Errors
    /// When an address cannot be listened on, the directory of the registry or the profile for task roles cannot be used, or there
    /// are too many parameters or objects.
    pub async fn start(mut options: Options) -> Result<Self, StartError> {
        let (storage, ecr) = Storage::open(&options).await.map_err(|error| StartError::Registry(error.to_string()))?;
        let name = options.task_role_profile.clone();
        let profile = match &name {
            Some(name) => Some(Profile::open(name).await.map_err(StartError::Profile)?),
            None => None,
        };
        let listeners = listen(&mut options).await?;
        // An unspecified address is reached through loopback.
        let mut reached = options.listen;
        if reached.ip().is_unspecified() {
            reached.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let site = Site {
            region: options.region.clone(),
            account: options.account.clone(),
            url: format!("http://{reached}"),
            registries: registry::registries(&options, reached),
            credentials_ttl: options.credentials_ttl,
            session_id: options.session_id.clone().unwrap_or_default(),
            keys: Keys::new(options.token.take()),
            profile: profile.clone(),
        };
        let mut state = State::new(site, &options.cluster);
        state.secrets = std::mem::take(&mut options.secrets);
        for (name, value) in std::mem::take(&mut options.parameters) {
            state.stored.put_parameter(&name, value).map_err(StartError::Value)?;
        }
        for (path, text) in std::mem::take(&mut options.objects) {
            let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
            state.stored.put_object(bucket, key, text).map_err(StartError::Value)?;
        }
        if let Some(ecr) = ecr {
            state.ecr = ecr;
        }
        add_accounts(&mut state, &options).map_err(StartError::Value)?;
        state.name_servers = links::name_servers();
        let shared = Arc::new(Shared::new(state, options, storage));
        let links = links::start(Arc::downgrade(&shared));
        let (links, links_ended) =
            links.map(|links| (Ok(links.work), Some(links.ended))).unwrap_or_else(|why| (Err(why), None));
        shared.change(|state| state.links = links);
        let (mut tasks, mut keeper, keeper_end) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
        for listener in listeners {
            tasks.spawn(http::accept(Arc::clone(&shared), listener));
        }
        if let (Some(name), Some(profile)) = (name, profile) {
            let known = Arc::clone(&shared);
            let renewed = move || {
                known.change(|state| {
                    for arn in state.tasks_with_role() {
                        let _no_instance = state.queue_credentials(&arn);
                    }
                });
            };
            let stop = shared.stop.clone();
            tasks.spawn(async move {
                let _stopped = stop.run_until_cancelled(profile::keep(name, profile, renewed)).await;
            });
        }
        keeper.spawn(registry::keep(Arc::clone(&shared), keeper_end.clone()));
        Ok(Self { shared, tasks, keeper, keeper_end, links_ended })
    }

    /// The address of the registry behind this ECR, as in image names.
    pub fn registry_address(&self) -> String {
        self.registry_of(&self.shared.options.account)
    }

    /// The further accounts, each with the address of its registry.
    pub fn further_accounts(&self) -> Vec<(String, String)> {
        let accounts = self.shared.options.accounts.iter();
        let pair = |account: &String| (account.clone(), self.registry_of(account));
        accounts.map(pair).collect()
    }

    fn registry_of(&self, account: &str) -> String {
        self.shared.read(|state| state.site.registry_of(account).unwrap_or_default().to_owned())
    }

    /// The base URL, without a trailing slash.
    pub fn url(&self) -> String {
        self.shared.read(|state| state.site.url.clone())
    }

    /// The token: the secret access key for calls (with any access key id that does not begin with `ASIA`), and the password for
    /// `/_local/`.
    pub fn token(&self) -> &Secret {
        self.shared.keys.token()
    }

    /// The environment variables with which an agent uses this server. They do not include credentials: the metadata service
    /// gives these to processes of this user and of root.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (options, url) = (&self.shared.options, self.url());
        let host = url.trim_start_matches("http://").rsplit_once(':').map_or("127.0.0.1", |(host, _)| host).to_owned();
        [
            ("AWS_DEFAULT_REGION", options.region.clone()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.clone()),
            ("AWS_ENDPOINT_URL_S3", url.clone()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", url.clone()),
            ("AWS_ENDPOINT_URL_SSM", url.clone()),
            ("ECS_BACKEND_HOST", url),
            ("ECS_CLUSTER", options.cluster.clone()),
            ("NO_PROXY", format!("{host},localhost")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Answers a call of the ECS API without a socket, e.g. `call("RunTask", &json!({"taskDefinition": "web"}))`.
    ///
    /// # Errors
    /// The error that the API would return.
    pub fn call(&self, operation: &str, body: &Value) -> Result<Value, ApiError> {
        self.shared.change(|state| api::ecs(state, operation, body))
    }

    /// Registers a task definition and runs it once in the server's cluster. Returns the task's ARN.
    ///
    /// # Errors
    /// If the definition has an error, or the task cannot be placed.
    pub fn run_task(&self, definition: &Value) -> Result<String, ApiError> {
        let registered = self.call("RegisterTaskDefinition", definition)?;
        let mut run = json!({
            "cluster": self.shared.options.cluster,
            "taskDefinition": registered["taskDefinition"]["taskDefinitionArn"],
        });
        if definition["networkMode"] == "awsvpc" {
            run["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": [SUBNET]}});
        }
        let answer = self.call("RunTask", &run)?;
        match answer["tasks"][0]["taskArn"].as_str() {
            Some(arn) => Ok(arn.to_owned()),
            None => Err(ApiError::client(format!("The task was not placed: {}", answer["failures"]))),
        }
    }

    /// Stops a task on behalf of its user.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn stop_task(&self, task: &str, reason: &str) -> Result<(), ApiError> {
        let body = json!({"cluster": self.shared.options.cluster, "task": task, "reason": reason});
        self.call("StopTask", &body).map(|_| ())
    }

    /// Sends a payload task that was written by hand, unchecked, and tracks it like any other. Returns the task's ARN, which is
    /// new if the task had none.
    ///
    /// # Errors
    /// When no container instance is registered.
    pub fn send_task(&self, task: Value) -> Result<String, String> {
        self.shared.send_task(task)
    }

    /// Sends any ACS message once, unchecked.
    ///
    /// # Errors
    /// When no container instance is registered.
    pub fn send_message(&self, kind: &str, message: Value) -> Result<(), String> {
        self.shared.send_message(kind, message)
    }

    /// Sends any text, which need not be a message.
    ///
    /// # Errors
    /// When no container instance is registered.
    pub fn send_text(&self, text: &str) -> Result<(), String> {
        self.shared.change(|state| {
            let instance = state.any_instance().ok_or("no container instance is registered")?.arn.clone();
            state.queue_text(&instance, text)
        })
    }

    /// Sends any text over all TCS connections.
    pub fn send_tcs_text(&self, text: &str) {
        self.shared.change(|state| state.telemetry.add_extra(Extra::Text(text.to_owned())));
    }

    /// Sends any bytes over all TCS connections, in the place of a frame.
    pub fn send_tcs_bytes(&self, bytes: &[u8]) {
        self.shared.change(|state| state.telemetry.add_extra(Extra::Bytes(bytes.to_vec())));
    }

    /// What agents published over TCS: `{"received", "refused", "tasks": {ARN: {"at", "metrics", "health"}}, "messages": [{"at",
    /// "type", "message", "problem"}]}`, with the last messages, oldest first.
    pub fn telemetry(&self) -> Value {
        self.shared.read(|state| state.telemetry.show())
    }

    /// Sends a manifest of all tasks that should be on the instance. Returns its message id.
    ///
    /// # Errors
    /// When no container instance is registered.
    pub fn send_manifest(&self) -> Result<String, String> {
        self.shared.change(|state| {
            let instance = state.any_instance().ok_or("no container instance is registered")?.arn.clone();
            state.queue_manifest(&instance)
        })
    }

    /// Sends new credentials for the roles of a task. Returns the number of roles.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn refresh_credentials(&self, task: &str) -> Result<usize, String> {
        self.shared.change(|state| state.queue_credentials(task))
    }

    /// The ids, secret keys and session tokens of the latest credentials of all roles in tasks, which no log may hold.
    pub fn role_secrets(&self) -> Vec<Secret> {
        self.shared.read(State::role_secrets)
    }

    /// Puts keys that this server accepts into the credentials of a role in a payload that was written by hand. All other
    /// members stay; `roleArn` says whose keys they are.
    pub fn put_role_keys(&self, credentials: &mut Value) {
        self.shared.read(|state| put_keys(&state.site, credentials, "scripted"));
    }

    /// Adds or changes a secret of Secrets Manager.
    ///
    /// # Errors
    /// When there are too many.
    pub fn put_secret(&self, name: &str, value: Secret) -> Result<(), String> {
        self.shared.change(|state| state.put_secret(name, value))
    }

    /// Adds or changes a parameter of SSM.
    ///
    /// # Errors
    /// When there are too many.
    pub fn put_parameter(&self, name: &str, value: Secret) -> Result<(), String> {
        self.shared.change(|state| state.stored.put_parameter(name, value))
    }

    /// Adds or changes an object in S3, together with its bucket.
    ///
    /// # Errors
    /// When there are too many.
    pub fn put_object(&self, bucket: &str, key: &str, text: Secret) -> Result<(), String> {
        self.shared.change(|state| state.stored.put_object(bucket, key, text))
    }

    /// Makes the next `count` calls of an operation fail. The operation is one of the API, `acs` or `tcs` (handshakes),
    /// `tcs/publish` (messages of the agent over TCS), `imds`, `registry` (`/v2/`), `registry/manifests` or `registry/blobs` (what pulls ask for), or `*` for any.
    pub fn fail_next(&self, operation: &str, count: usize, fault: &Fault) {
        self.shared.change(|state| state.faults.add(operation, count, fault));
    }

    /// Sets how payloads are delivered from now on.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.shared.change(|state| state.faults.delivery = delivery);
    }

    /// Sets a path of the instance's metadata below `meta-data/`, e.g. `spot/instance-action`; `None` removes it.
    pub fn set_metadata(&self, path: &str, text: Option<&str>) {
        self.shared.change(|state| state.ec2.set_metadata(path, text.map(str::to_owned)));
    }

    /// Sets the tags of the EC2 instance.
    pub fn set_instance_tags(&self, tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.shared.change(|state| state.ec2.tags = tags);
    }

    /// Sets the clock of this AWS ahead of the host's by this many seconds. Answers carry that time, and signatures with another
    /// time are refused.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.change(|state| state.set_clocks(seconds, state.ecr_ahead()));
        expire(&self.shared);
    }

    /// Sets the clock of ECR ahead of that of this AWS by this many seconds: tokens expire, and lifecycle policies run at once.
    /// Signatures are not concerned.
    pub fn set_ecr_clock_ahead(&self, seconds: i64) {
        self.shared.change(|state| state.set_clocks(state.ec2.clock_ahead, seconds));
        expire(&self.shared);
    }

    /// Gives a role a policy: a role without one may do everything. `role` is its name or its ARN.
    ///
    /// # Errors
    /// When the policy has an error, or something in it cannot be evaluated here.
    pub fn put_role_policy(&self, role: &str, policy: &Value) -> Result<(), String> {
        let policy = Policy::for_identity(&policy.to_string())?;
        let account = &self.shared.options.account;
        let put = |state: &mut State| state.ecr.identities_mut().put_role(account, role, policy, true).map(drop);
        self.shared.change(put).map_err(|error| error.to_string())
    }

    /// What callers did or were denied: `{"dropped": 0, "actions": [{"principal", "action", "resource", "outcome", …}]}`.
    pub fn actions(&self) -> Value {
        self.shared.read(|state| state.actions.show())
    }

    /// Answers a call of the ECR API without a socket, made by the administrator of the server's account.
    ///
    /// # Errors
    /// The error that the API would return.
    pub fn call_ecr(&self, operation: &str, body: &Value) -> Result<Value, ApiError> {
        self.call_ecr_in(&self.shared.options.account, operation, body)
    }

    /// Like [`Self::call_ecr`], but made by the administrator of this account.
    ///
    /// # Errors
    /// The error that the API would return.
    pub fn call_ecr_in(&self, account: &str, operation: &str, body: &Value) -> Result<Value, ApiError> {
        let caller = Principal::administrator(account);
        self.shared.change(|state| api::ecr(state, &self.shared.options, &caller, operation, body))
    }

    /// Removes all pending faults and delivery settings.
    pub fn clear_faults(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// Cuts ACS and TCS connections without a close frame.
    pub fn drop_sockets(&self) {
        self.shared.disconnect(true, true, &Disconnect::Drop);
    }

    /// Cuts TCS connections without a close frame.
    pub fn drop_tcs(&self) {
        self.shared.disconnect(false, true, &Disconnect::Drop);
    }

    /// Closes ACS connections with this code and reason.
    pub fn close_acs(&self, code: u16, reason: &str) {
        self.shared.disconnect(true, false, &Disconnect::Close(code, reason.to_owned()));
    }

    /// All calls that reported state changes, oldest first.
    pub fn submissions(&self) -> Vec<Record> {
        self.shared.read(|state| state.submissions().cloned().collect())
    }

    /// Reads the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.shared.read(look)
    }

    /// Waits until `probe` returns a value for the state. `what` describes this value in the error.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut changed = self.shared.changed.subscribe();
        let end = Instant::now() + limit;
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.read(&mut probe) {
                return Ok(found);
            }
            if timeout_at(end, changed.changed()).await.is_err() {
                return Err(WaitError { what: what.to_owned(), waited: limit });
            }
        }
    }

    /// Closes all connections, saves the registry, and ends. See [`Self::end`] for problems.
    pub async fn shutdown(self) {
        let _ended = self.end().await;
    }

    /// Closes all connections, saves the registry, and ends.
    ///
    /// # Errors
    /// Why the registry could not be saved.
    pub async fn end(mut self) -> Result<(), String> {
        self.shared.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.shared.change(State::end_interfaces);
        if let Some(ended) = self.links_ended.take() {
            let _done = timeout(END_LIMIT, ended).await;
        }
        let storage = &self.shared.storage;
        storage.tasks.close();
        // If the disk hangs, nobody waits for it.
        let _done = timeout(END_LIMIT, storage.tasks.wait()).await;
        self.keeper_end.cancel();
        let saved = timeout(END_LIMIT, self.keeper.join_next()).await;
        match saved {
            Ok(Some(Ok(outcome))) => outcome.map_err(|error| error.to_string()),
            _ => Err("the registry could not be saved in time".to_owned()),
        }
    }
}
