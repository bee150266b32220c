//! Everything that the core can ask for, as data.
//!
//! Effects are named by intent and are safe to repeat: an existing container of ours is success for a create, and a missing one
//! is success for a stop or a removal. Each [`Effect::Do`] gets exactly one [`Event::Completed`](super::Event::Completed) with
//! its id.

use super::state::OperationKind;
use crate::model::image::ImageWork;
use crate::model::task::RegistryAuth;
use crate::model::{
    Ack, CreateRequest, CredentialsAck, CredentialsId, OpId, ResourceRequest, Span, StateChange, TaskArn,
};

/// Something that the core asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin this operation. Its outcome carries the id.
    Do(OpId, Operation),
    /// Abandon the operation with this id. It still completes, but its outcome is ignored.
    Cancel(OpId),
    /// Send a message over ACS. It is lost if the connection is lost; ECS then repeats the message that it answers.
    Send(Message),
    /// No task uses these credentials any more. Drop them from memory, unless [`State::credentials`](super::State::credentials)
    /// holds their id again because they arrived once more in a later step of the same burst.
    ForgetCredentials(CredentialsId),
}

/// An operation. The target of a container is Docker's id of it, or the name under which it was or will be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Resolve the digest of an image reference.
    ResolveDigest(ImageRequest),
    /// Make the image available on this host.
    Pull(ImageRequest),
    /// Create a container.
    Create(Box<CreateRequest>),
    /// Start the container with this target, which is created or has ended.
    Start(String),
    /// Stop a container: send SIGTERM or the image's own stop signal, and SIGKILL after the grace period.
    Stop {
        /// The container's target.
        target: String,
        /// Time between the two signals; `None`: `ECS_CONTAINER_STOP_TIMEOUT`.
        grace: Option<Span>,
    },
    /// Inspect the container with this target.
    Inspect(String),
    /// Remove the container with this target, which does not run, and its anonymous volumes.
    Remove(String),
    /// Create a resource of a task. A resource that exists already is success.
    CreateResource(Box<ResourceRequest>),
    /// Remove a resource of a task. A resource that does not exist is success.
    RemoveResource(Box<ResourceRequest>),
    /// Renew a resource of a task with the latest credentials, before it expires.
    RenewResource(Box<ResourceRequest>),
    /// List all containers with this agent's labels, and inspect each.
    Inventory,
    /// One part of the clean-up of images.
    CleanImages(ImageWork),
    /// Submit a state change to ECS.
    Report(Box<StateChange>),
}

/// A message to ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Acknowledges a payload or a manifest that is on disk.
    Ack(Ack),
    /// Acknowledges new credentials of a known task.
    AckCredentials(CredentialsAck),
    /// Asks whether tasks that are missing in a manifest are to stop.
    VerifyStop {
        /// Message id of the manifest.
        message_id: String,
        /// `clusterArn` of the manifest.
        cluster: String,
        /// The tasks that are missing in the manifest.
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
            | Self::Inventory
            | Self::CleanImages(_)
            | Self::Report(_) => None,
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
    /// The registry is asked even if the image is on this host.
    pub fresh: bool,
    /// A cached image is good enough if the registry does not answer, so the pull need not wait for it for long.
    pub cached_serves: bool,
    /// A failed pull looks whether the image is on this host: [`Output::Cached`](super::Output::Cached) if it is, a failure of
    /// the kind `ImageMissing` if not.
    pub looks_after_failure: bool,
}
