//! Everything the agent can be asked to do, as data.
//!
//! Effects are named by intent and are safe to repeat: "exists already, and is ours" is success for create, "is not there" is
//! success for stop and remove. Each effect with an `op` gets exactly one [`Event::Completed`](super::Event::Completed).

use crate::model::image::ImageWork;
use crate::model::task::RegistryAuth;
use crate::model::{
    Ack, CreateRequest, CredentialsAck, CredentialsId, OpId, ResourceRequest, Span, StateChange, TaskArn,
};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find the digest behind an image reference.
    ResolveDigest {
        /// Names the operation.
        op: OpId,
        /// Which image.
        image: ImageRequest,
    },
    /// Make the image available on this host.
    Pull {
        /// Names the operation.
        op: OpId,
        /// Which image.
        image: ImageRequest,
    },
    /// Create a container.
    Create {
        /// Names the operation.
        op: OpId,
        /// The container.
        request: Box<CreateRequest>,
    },
    /// Start a created container.
    Start {
        /// Names the operation.
        op: OpId,
        /// The container: the engine's id, or the name it was or will be created under.
        target: String,
    },
    /// Stop a container: SIGTERM (or its own signal), and SIGKILL after the grace.
    Stop {
        /// Names the operation.
        op: OpId,
        /// The container: the engine's id, or the name it was or will be created under.
        target: String,
        /// Grace; `None` = the agent's default.
        grace: Option<Span>,
    },
    /// Look at one container.
    Inspect {
        /// Names the operation.
        op: OpId,
        /// The container: the engine's id, or the name it was or will be created under.
        target: String,
    },
    /// Remove a stopped or never started container and its anonymous volumes.
    Remove {
        /// Names the operation.
        op: OpId,
        /// The container: the engine's id, or the name it was or will be created under.
        target: String,
    },
    /// Make what a task needs besides its containers. What is there already is success.
    CreateResource {
        /// Names the operation.
        op: OpId,
        /// The resource.
        request: Box<ResourceRequest>,
    },
    /// Remove it. What is not there is success.
    RemoveResource {
        /// Names the operation.
        op: OpId,
        /// The resource.
        request: Box<ResourceRequest>,
    },
    /// Keep it from ending, with the credentials that came last.
    RenewResource {
        /// Names the operation.
        op: OpId,
        /// The resource.
        request: Box<ResourceRequest>,
    },
    /// List and look at every container with our labels.
    Inventory {
        /// Names the operation.
        op: OpId,
    },
    /// A part of the clean-up of images.
    CleanImages {
        /// Names the operation.
        op: OpId,
        /// Which.
        work: ImageWork,
    },
    /// Tell ECS of a state change.
    Report {
        /// Names the operation.
        op: OpId,
        /// What to say.
        change: Box<StateChange>,
    },
    /// Nobody waits for this operation any more; let it go. It still completes, and that is ignored.
    Cancel {
        /// The operation.
        op: OpId,
    },
    /// Acknowledge a message of ACS. Lost if the connection is: ECS then sends the message again.
    Ack(Ack),
    /// Acknowledge new credentials of a task that is known here.
    AckCredentials(CredentialsAck),
    /// Ask ECS whether tasks that are missing in its manifest shall stop.
    AskToStop {
        /// The manifest's message id.
        message_id: String,
        /// The manifest's `clusterArn`.
        cluster: String,
        /// The tasks in doubt.
        tasks: Vec<TaskArn>,
    },
    /// No task uses these credentials any more: drop them from memory, unless [`State::credentials`](super::State::credentials)
    /// names them again (they came anew in a later step of the same burst).
    ForgetCredentials {
        /// Whose id.
        id: CredentialsId,
    },
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
