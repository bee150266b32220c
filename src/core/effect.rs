//! Everything the agent can be asked to do, as data.
//!
//! Effects are named by intent and are safe to repeat: "exists already, and is ours" is success for create, "is not there" is
//! success for stop and remove. Each [`Effect::Do`] gets exactly one [`Event::Completed`](super::Event::Completed) with its id.

use super::state::OperationKind;
use crate::model::image::ImageWork;
use crate::model::task::RegistryAuth;
use crate::model::{
    Ack, CreateRequest, CredentialsAck, CredentialsId, OpId, ResourceRequest, Span, StateChange, TaskArn,
};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin this operation. Its outcome carries the id.
    Do(OpId, Operation),
    /// Nobody waits for the operation with this id any more; let it go. It still completes, and that is ignored.
    Cancel(OpId),
    /// Send a message over ACS. It is lost if the connection is: ECS then sends again what it answers.
    Send(Message),
    /// No task uses these credentials any more: drop them from memory, unless [`State::credentials`](super::State::credentials)
    /// has their id again (they came anew in a later step of the same burst).
    ForgetCredentials(CredentialsId),
}

/// What an operation does. A container is named by its target: Docker's id of it, or the name it was or will be created under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Find the digest behind an image reference.
    ResolveDigest(ImageRequest),
    /// Make the image available on this host.
    Pull(ImageRequest),
    /// Create a container.
    Create(Box<CreateRequest>),
    /// Start the created container with this target.
    Start(String),
    /// Stop a container: SIGTERM (or its own signal), and SIGKILL after the grace.
    Stop {
        /// The container's target.
        target: String,
        /// Time between the two signals; `None`: the agent's default.
        grace: Option<Span>,
    },
    /// Look at the container with this target.
    Inspect(String),
    /// Remove the stopped or never started container with this target, and its anonymous volumes.
    Remove(String),
    /// Make what a task needs besides its containers. What is there already is success.
    CreateResource(Box<ResourceRequest>),
    /// Remove such a resource. What is not there is success.
    RemoveResource(Box<ResourceRequest>),
    /// Keep such a resource from ending, with the credentials that came last.
    RenewResource(Box<ResourceRequest>),
    /// List every container with our labels, and look at each.
    Inventory,
    /// One part of the clean-up of images.
    CleanImages(ImageWork),
    /// Submit a state change to ECS.
    Report(Box<StateChange>),
}

/// A message to ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A payload or a manifest is on disk.
    Ack(Ack),
    /// New credentials of a task that is known here have arrived.
    AckCredentials(CredentialsAck),
    /// Shall tasks that are missing in a manifest stop?
    VerifyStop {
        /// The manifest's message id.
        message_id: String,
        /// The manifest's `clusterArn`.
        cluster: String,
        /// The tasks that are missing in it.
        tasks: Vec<TaskArn>,
    },
}

impl Operation {
    /// The kind of an operation on one container; `None`: it is on something else.
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

/// An image to resolve or pull, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// Reference as in the task definition.
    pub image: String,
    /// Digest to pull instead of the tag, once resolved.
    pub digest: Option<String>,
    /// Source of credentials.
    pub auth: RegistryAuth,
    /// Credentials of the task execution role, for ECR and Secrets Manager.
    pub execution_credentials: Option<CredentialsId>,
    /// Ask the registry even when the image is on this host.
    pub fresh: bool,
    /// If the registry cannot be asked, an image on this host does: no need to wait long for the registry.
    pub cached_serves: bool,
    /// After a failed pull, say whether the image is on this host: [`Output::Cached`](super::Output::Cached) if it is, a failure of
    /// the kind `ImageMissing` if not.
    pub looks_after_failure: bool,
}
