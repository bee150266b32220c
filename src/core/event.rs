//! Every fact that can arrive.

use crate::model::image::ImageListing;
use crate::model::{
    Ack, ContainerName, CredentialsAck, CredentialsId, Observation, OpError, OpId, RuntimeId, TaskArn, TaskSpec,
    Tickets,
};
use std::collections::BTreeSet;
use std::fmt;

/// A fact. The core learns of the world through these and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ACS sent tasks to run or to stop.
    Payload {
        /// The tasks; those to stop may be unknown to us.
        tasks: Vec<PayloadTask>,
        /// `seqNum` of the payload; raises the bar for task manifests.
        seq: i64,
        /// What to answer once the tasks are on disk; `None` when part of the payload could not be read (ECS sends it again).
        ack: Option<Ack>,
    },
    /// ACS listed every task it thinks should run here (spec `acs.md` §4.4).
    Manifest {
        /// Order of manifests; an old one is discarded.
        timeline: i64,
        /// The tasks that should run.
        running: BTreeSet<TaskArn>,
        /// What to answer.
        ack: Ack,
    },
    /// ACS confirmed which of the tasks we doubted are to stop.
    StopVerificationAck {
        /// The manifest this answers.
        message_id: String,
        /// The tasks to stop.
        tasks: Vec<TaskArn>,
    },
    /// Credentials with these ids are in memory now.
    CredentialsArrived {
        /// The task they came for, if it was one; the first id is then the one of its execution role.
        task: Option<TaskArn>,
        /// The ids.
        ids: Vec<CredentialsId>,
        /// What to answer if the task is known.
        ack: Option<CredentialsAck>,
    },
    /// The container engine was seen to do something.
    Observed(Box<Observation>),
    /// A container was removed by somebody.
    Removed {
        /// Its task.
        task: TaskArn,
        /// Its name there.
        container: ContainerName,
        /// Which incarnation.
        runtime_id: RuntimeId,
        /// How it ended before that, if it ran until it was removed.
        exit_code: Option<i32>,
    },
    /// Observations may have been missed: an inventory is due.
    EventsMissed,
    /// Something we asked for has ended.
    Completed {
        /// What was asked.
        op: OpId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// One task of a payload.
#[derive(Clone, PartialEq, Eq)]
pub enum PayloadTask {
    /// Run it.
    Run(Box<TaskSpec>),
    /// Stop it. It has these containers, which ECS is told of if it is not known here.
    Stop(TaskArn, Vec<ContainerName>),
    /// It cannot be run; ECS must be told why.
    Refused {
        /// Which.
        arn: TaskArn,
        /// The reason shown to the customer.
        reason: String,
    },
}

/// Commands may hold secrets: of a task to run only the ARN is shown.
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

/// How an operation ended. That nobody knows how ([`OpError::Unknown`]) is not a failure: it may have been done, or may still be.
pub type Outcome = Result<Output, OpError>;

/// What a done operation found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing beyond that it was done.
    Nothing,
    /// The image was fetched from its registry; `Nothing` after a pull means that it was on this host already.
    Pulled,
    /// The registry was asked in vain, and the image is on this host.
    Cached,
    /// The digest behind an image reference, if the registry tells.
    Digest(Option<String>),
    /// The container after the operation; `None` = it does not exist.
    Seen(Option<Box<Observation>>),
    /// Every container with our labels.
    Inventory(Vec<Observation>),
    /// The Kerberos tickets that were made.
    Tickets(Box<Tickets>),
    /// All images and containers of the host.
    Images(Box<ImageListing>),
}
