//! Keeps the session with ACS, and turns its messages into events for the core loop.
//!
//! Invariant: credentials are stored in memory before the core receives the tasks that they belong to.

use crate::acs::session;
use crate::acs::{self, Incoming, Outgoing};
use crate::ecs::endpoint::{DiscoverError, PollEndpointCache};
use crate::runtime::execute::edges::Edges;
use crate::runtime::startup::instance::Instance;
use crate::runtime::supervisor::PartResult;
use crate::store::Identity;
use crate::websocket::EndpointError;
use ecs_core::model::CredentialsAck;
use ecs_core::model::attachment::Attachment;
use ecs_core::{Event, PayloadTask};
use std::sync::Arc;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Capacity of the queue of messages from the session. Further messages wait in the session, which limits their size.
const MESSAGES: usize = 1;
/// Capacity of the queue of answers to the session.
const ANSWERS: usize = 64;

/// The part of the agent that talks to ACS.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    /// Identity, credentials and timing of the session.
    pub(crate) settings: session::Settings,
    /// Finds the address of ACS.
    pub(crate) endpoints: Arc<PollEndpointCache>,
    /// Holds the store for the credentials of tasks' roles.
    pub(crate) edges: Arc<Edges>,
    /// The core loop's queue of events.
    pub(crate) inbox: mpsc::Sender<Event>,
    /// What other parts learn from the session.
    pub(crate) signals: Arc<Signals>,
}

/// What other parts learn from the session with ACS.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Notified of each connection.
    pub(crate) connected: Notify,
    /// Notified of each announcement of network interfaces.
    pub(crate) attached: Notify,
    /// Notified of each heartbeat.
    pub(crate) heartbeat: Notify,
    /// Notified of each report that the instance is not registered.
    pub(crate) deregistered: Notify,
}

/// Finds the address of ACS for this instance. Sends nothing yet.
pub(crate) fn endpoints(ecs: aws_sdk_ecs::Client, identity: &Identity, instance: &Instance) -> Arc<PollEndpointCache> {
    Arc::new(PollEndpointCache::new(ecs, identity.cluster.clone(), instance.zone_id.clone()))
}

impl From<&DiscoverError> for EndpointError {
    fn from(error: &DiscoverError) -> Self {
        match error {
            DiscoverError::InactiveInstance(_) => Self::InactiveInstance(error.to_string()),
            DiscoverError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl ControlPlane {
    /// Keeps the session until `stop` is cancelled. `outbox` outlives a restart of this part.
    pub(crate) async fn run(self, outbox: Arc<Mutex<mpsc::Receiver<Outgoing>>>, stop: CancellationToken) -> PartResult {
        tracing::info!("Beginning Polling for updates");
        let (sender, mut receiver) = mpsc::channel::<Incoming>(MESSAGES);
        let (answers, to_send) = mpsc::channel::<Outgoing>(ANSWERS);
        let discover = || {
            let (endpoints, instance) = (self.endpoints.clone(), self.settings.container_instance.clone());
            async move {
                let found = endpoints.get(&instance).await.map_err(|error| EndpointError::from(&error))?;
                Ok(found.acs.clone())
            }
        };
        let session = session::run(self.settings.clone(), discover, sender, to_send, stop.clone());
        let receive = async {
            while let Some(message) = receiver.recv().await {
                for event in self.events(message) {
                    if self.inbox.send(event).await.is_err() {
                        return; // the core loop has ended
                    }
                }
            }
        };
        let answer = async {
            let mut outbox = outbox.lock().await;
            while let Some(answer) = outbox.recv().await {
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = session => if stop.is_cancelled() { Ok(()) } else { Err("the session has ended".to_owned()) },
            () = receive => Ok(()),
            () = answer => Ok(()),
        }
    }

    /// The events that follow from one message.
    fn events(&self, message: Incoming) -> Vec<Event> {
        match message {
            Incoming::Payload { tasks, credentials, ack, seq_num, intact } => {
                let ids: Vec<_> = credentials.iter().map(|role| role.id.clone()).collect();
                credentials.into_iter().for_each(|role| self.edges.roles.insert(role));
                tracing::info!(
                    messageID = ack.message_id,
                    seqnum = seq_num,
                    tasks = tasks.len(),
                    intact,
                    "Received task payload from ACS"
                );
                let tasks = payload_tasks(tasks);
                // A payload that could be read only in part is not acknowledged: ECS sends it again until each task has been
                // reported.
                let ack = intact.then_some(ack);
                let arrived = Event::CredentialsArrived { task: None, ids, ack: None };
                vec![arrived, Event::Payload { tasks, seq: seq_num, ack }]
            }
            Incoming::Credentials { message_id, task, credentials } => {
                tracing::info!(task = task.task_id(), "Received new credentials from ACS");
                let (id, expiration) = (credentials.id.clone(), credentials.expiration.clone());
                let ack = Some(CredentialsAck { message_id, id: id.clone(), expiration });
                let kind = credentials.kind;
                self.edges.roles.insert(*credentials);
                vec![Event::CredentialsArrived { task: Some((task, kind)), ids: vec![id], ack }]
            }
            Incoming::Manifest { timeline, running, ack } => vec![Event::Manifest { timeline, running, ack }],
            Incoming::StopVerificationAck { message_id, tasks } => {
                vec![Event::StopVerificationAck { message_id, tasks }]
            }
            Incoming::Attachments { announced, ack } => {
                let now = self.edges.clock.now();
                tracing::info!(
                    messageID = ack.message_id,
                    interfaces = announced.len(),
                    "Received attachments from ACS"
                );
                self.signals.attached.notify_one();
                let attachment = |acs::Announced { arn, kind, device, wait }| Attachment {
                    arn,
                    kind,
                    device,
                    expires_at: now + wait,
                };
                vec![Event::Attachments { attachments: announced.into_iter().map(attachment).collect(), ack }]
            }
            Incoming::Heartbeat => {
                self.signals.heartbeat.notify_one();
                Vec::new()
            }
            Incoming::Connected => {
                tracing::info!("Connected to ACS endpoint");
                self.signals.connected.notify_one();
                Vec::new()
            }
            Incoming::Deregistered => {
                tracing::error!("Container instance is deregistered; its tasks keep running");
                self.signals.deregistered.notify_one();
                Vec::new()
            }
        }
    }
}

/// The tasks that the core must know. The others are logged: one line for each kind, whatever their number.
fn payload_tasks(tasks: Vec<acs::ReceivedTask>) -> Vec<PayloadTask> {
    let (mut later, mut without_arn) = (Vec::new(), Vec::new());
    let mut for_core = Vec::new();
    for task in tasks {
        match task {
            acs::ReceivedTask::Run(spec) => for_core.push(PayloadTask::Run(spec)),
            acs::ReceivedTask::Stop(arn, containers) => for_core.push(PayloadTask::Stop(arn, containers)),
            acs::ReceivedTask::Later(arn) => later.push(arn),
            acs::ReceivedTask::Refused(refusal) => match refusal.arn {
                Some(arn) => for_core.push(PayloadTask::Refused { arn, reason: refusal.reason }),
                None => without_arn.push(refusal.reason),
            },
        }
    }
    if let Some(first) = later.first() {
        tracing::info!(tasks = later.len(), first = first.task_id(), "ECS does not want these tasks to run yet");
    }
    if let Some(first) = without_arn.first() {
        tracing::error!(
            tasks = without_arn.len(),
            first,
            "tasks without an ARN can neither be run nor reported to ECS"
        );
    }
    for_core
}
