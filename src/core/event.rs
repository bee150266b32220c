//! Every event that the core takes in.

use crate::model::attachment::Attachment;
use crate::model::image::ImageListing;
use crate::model::{
    Ack, ContainerName, CredentialsAck, CredentialsId, MacAddress, Observation, OpError, OpId, RoleKind, RuntimeId,
    TaskArn, TaskSpec, Tickets,
};
use std::collections::BTreeSet;
use std::fmt;

/// A fact from outside. The core has no other input besides the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ACS sent tasks to run or to stop.
    Payload {
        /// The tasks. A task to stop may be unknown here.
        tasks: Vec<PayloadTask>,
        /// `seqNum` of the payload. Manifests up to this number are outdated.
        seq: i64,
        /// The acknowledgement to send once the tasks are on disk; `None` if a part of the payload could not be read: ECS then
        /// sends the payload again.
        ack: Option<Ack>,
    },
    /// ACS listed every task that should run here (spec `acs.md` §4.4).
    Manifest {
        /// The manifest's number in the common order of manifests and payloads. An old manifest is ignored.
        timeline: i64,
        /// The tasks that should run.
        running: BTreeSet<TaskArn>,
        /// The acknowledgement to send.
        ack: Ack,
    },
    /// ACS confirmed which of the tasks that a manifest did not list must stop.
    StopVerificationAck {
        /// Message id of the manifest.
        message_id: String,
        /// The tasks to stop.
        tasks: Vec<TaskArn>,
    },
    /// Credentials have arrived and are in memory now.
    CredentialsArrived {
        /// The task and the role that the credentials are for; `None` if they came with a payload, whose tasks name their ids.
        task: Option<(TaskArn, RoleKind)>,
        /// The ids of the credentials.
        ids: Vec<CredentialsId>,
        /// The acknowledgement to send if the task is known; `None`: nothing is sent.
        ack: Option<CredentialsAck>,
    },
    /// ECS announced attachments.
    Attachments {
        /// The attachments.
        attachments: Vec<Attachment>,
        /// The acknowledgement to send once the attachments are on disk.
        ack: Ack,
    },
    /// The interfaces with these hardware addresses are on the host now, and no others.
    Interfaces(BTreeSet<MacAddress>),
    /// Docker showed the state of a container.
    Observed(Box<Observation>),
    /// A container was removed.
    Removed {
        /// The task that the container was created for.
        task: TaskArn,
        /// The container's name in that task.
        container: ContainerName,
        /// Docker's id of the removed container.
        runtime_id: RuntimeId,
        /// The exit code; `None` unless the container ran until it was removed and the code is known.
        exit_code: Option<i32>,
    },
    /// Observations may have been missed, so an inventory is due.
    EventsMissed,
    /// An operation has ended.
    Completed {
        /// The id of the operation.
        op: OpId,
        /// How the operation ended.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// One task of a payload.
#[derive(Clone, PartialEq, Eq)]
pub enum PayloadTask {
    /// A task to run.
    Run(Box<TaskSpec>),
    /// A task to stop, with the names of its containers. If the task is unknown here, they are reported as stopped.
    Stop(TaskArn, Vec<ContainerName>),
    /// A task that this agent cannot run. It is reported as stopped with the reason.
    Refused {
        /// The task's ARN.
        arn: TaskArn,
        /// The reason that the customer sees.
        reason: String,
    },
}

/// `Debug` shows only the ARN of a task to run, since its commands may hold secrets.
impl fmt::Debug for PayloadTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(spec) => f.debug_tuple("Run").field(&spec.arn).finish(),
            Self::Stop(arn, containers) => f.debug_tuple("Stop").field(arn).field(containers).finish(),
            Self::Refused { arn, reason } => {
                f.debug_struct("Refused").field("arn", arn).field("reason", reason).finish()
            }
        }
    }
}

/// How an operation ended. An unknown outcome ([`OpError::Unknown`]) is not a failure: the operation may have been done, or may
/// still be done.
pub type Outcome = Result<Output, OpError>;

/// The result of a successful operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// No result beyond the success.
    Nothing,
    /// The image was pulled from its registry. A pull that yields `Nothing` found the image on this host.
    Pulled,
    /// The pull failed, and the image is on this host.
    Cached,
    /// The digest of an image reference; `None` if the registry does not provide it.
    Digest(Option<String>),
    /// The container as it was after the operation; `None`: it does not exist.
    Seen(Option<Box<Observation>>),
    /// All containers with this agent's labels.
    Inventory(Vec<Observation>),
    /// The Kerberos tickets that were created.
    Tickets(Box<Tickets>),
    /// All images and containers on this host.
    Images(Box<ImageListing>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{container, spec};

    #[test]
    fn a_task_to_run_is_shown_by_its_name_only() {
        let mut secretive = container("a", &[]);
        secretive.command = Some(vec!["--password=hunter2".to_owned()]);
        let shown = format!("{:?}", PayloadTask::Run(Box::new(spec("arn:a", vec![secretive]))));
        assert!(shown.contains("arn:a") && !shown.contains("hunter2"), "{shown}");
        let stop = PayloadTask::Stop("arn:b".into(), vec!["web".into()]);
        assert_eq!(format!("{stop:?}"), r#"Stop(TaskArn("arn:b"), [ContainerName("web")])"#);
    }
}
