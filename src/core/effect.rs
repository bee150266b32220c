//! Everything that the core can request, as data.
//!
//! Effects are safe to repeat: a create succeeds if our container exists already, and a stop or a removal succeeds if the
//! container does not exist. Each [`Effect::Do`] gets exactly one [`Event::Completed`](super::Event::Completed) with
//! its id.

use super::state::OperationKind;
use crate::model::attachment::AttachmentChange;
use crate::model::image::ImageWork;
use crate::model::metadata_file::MetadataFile;
use crate::model::task::RegistryAuth;
use crate::model::{
    Ack, CreateRequest, CredentialsAck, CredentialsId, NetworkRequest, OpId, ResourceRequest, Span, StateChange,
    TaskArn,
};

/// A request of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin this operation. Its outcome carries the id.
    Do(OpId, Operation),
    /// Abandon the operation with this id. It still completes, but its outcome is ignored.
    Cancel(OpId),
    /// Send a message over ACS. The message is lost if the connection is lost; ECS then sends its own message again, which is
    /// answered once more.
    Send(Message),
    /// Drop these credentials from memory, because no task uses them any more. The exception: steps that are committed together
    /// have their effects started together, and if the credentials arrived again in a later one of these steps,
    /// [`State::credentials`](super::State::credentials) holds their id. Then they are kept.
    ForgetCredentials(CredentialsId),
    /// Complete the metadata file of a running container. A file that is complete stays as it is. There is no outcome: if this
    /// fails, the container keeps the first form of the file.
    WriteMetadata(Box<MetadataFile>),
    /// Remove the metadata files of a task. Files that do not exist are success. There is no outcome.
    RemoveMetadata(TaskArn),
}

/// An operation. The *target* of an operation on a container is Docker's id of the container, or its name in Docker while the
/// id is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Resolve the digest of an image reference.
    ResolveDigest(ImageRequest),
    /// Make the image available on this host.
    Pull(ImageRequest),
    /// Create a container.
    Create(Box<CreateRequest>),
    /// Start the container with this target. It has never run, or has ended.
    Start(String),
    /// Stop a container: send its stop signal (SIGTERM unless the image names another), and SIGKILL after the grace period.
    Stop {
        /// The container's target.
        target: String,
        /// Time between the two signals; `None`: `ECS_CONTAINER_STOP_TIMEOUT`.
        grace: Option<Span>,
    },
    /// Inspect the container with this target.
    Inspect(String),
    /// Remove the container with this target and its anonymous volumes. The container does not run.
    Remove(String),
    /// Create a resource of a task. A resource that exists already is success.
    CreateResource(Box<ResourceRequest>),
    /// Remove a resource of a task. A resource that does not exist is success.
    RemoveResource(Box<ResourceRequest>),
    /// Renew a resource of a task with the latest credentials, before it expires.
    RenewResource(Box<ResourceRequest>),
    /// Set up the network of a task in the namespace of its pause container. What is set up already is success. After a failure
    /// nothing is left of it (spec `networking.md` §4 to §6).
    SetUpNetwork(Box<NetworkRequest>),
    /// Tear the network of a task down, and give its interfaces back to the host. What is gone already is success, and so is a
    /// namespace that is gone.
    TearDownNetwork(Box<NetworkRequest>),
    /// List all containers with this agent's labels, and inspect each.
    Inventory,
    /// One operation of the image clean-up.
    CleanImages(ImageWork),
    /// Submit a state change to ECS.
    Report(Box<StateChange>),
    /// Report to ECS that the device of an attachment is there.
    ReportAttachment(AttachmentChange),
}

/// A message to ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Acknowledges a payload or a manifest that is on disk.
    Ack(Ack),
    /// Acknowledges new credentials of a known task.
    AckCredentials(CredentialsAck),
    /// Asks which of the tasks that a manifest did not list must stop.
    VerifyStop {
        /// Message id of the manifest.
        message_id: String,
        /// `clusterArn` of the manifest.
        cluster: String,
        /// The tasks that the manifest did not list.
        tasks: Vec<TaskArn>,
    },
}

impl Operation {
    /// The kind of an operation on one container; `None` for all other operations.
    pub fn container_kind(&self) -> Option<OperationKind> {
        match self {
            Self::ResolveDigest(_) => Some(OperationKind::ResolveDigest),
            Self::Pull(_) => Some(OperationKind::Pull),
            Self::Create(_) => Some(OperationKind::Create),
            Self::Start(_) => Some(OperationKind::Start),
            Self::Stop { .. } => Some(OperationKind::Stop),
            Self::Inspect(_) => Some(OperationKind::Inspect),
            Self::Remove(_) => Some(OperationKind::Remove),
            Self::CreateResource(_)
            | Self::RemoveResource(_)
            | Self::RenewResource(_)
            | Self::SetUpNetwork(_)
            | Self::TearDownNetwork(_)
            | Self::Inventory
            | Self::CleanImages(_)
            | Self::Report(_)
            | Self::ReportAttachment(_) => None,
        }
    }
}

/// An image to resolve or pull, and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The image reference from the task definition.
    pub image: String,
    /// Digest to pull instead of the tag; `None` until it is resolved.
    pub digest: Option<String>,
    /// Where the registry credentials come from.
    pub auth: RegistryAuth,
    /// Id of the credentials of the task execution role, for ECR and Secrets Manager; `None` if the task has no such role.
    pub execution_credentials: Option<CredentialsId>,
    /// The registry is asked even if the image is on this host. If false, an image on this host is used as it is.
    pub asks_registry: bool,
    /// If the registry does not answer, an image on this host is used. So the pull need not wait long for the registry.
    pub accepts_cached: bool,
    /// After a failed pull, the executor checks whether the image is on this host: the outcome is
    /// [`Output::Cached`](super::Output::Cached) if it is, and a failure of the kind `ImageMissing` if not.
    pub checks_host_after_failure: bool,
}
