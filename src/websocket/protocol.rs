//! What a session must know about its messages.

use std::fmt::Debug;
use std::future::Future;

/// The messages of one service.
pub trait Protocol: Send + Sync + 'static {
    /// A message for the agent.
    type Incoming: Send + Debug;
    /// A message of the agent.
    type Outgoing: Send + Debug;

    /// The name of the service in log lines.
    const PEER: &'static str;
    /// True: while there is no connection, messages of the agent wait in its queue. False: they are dropped, since each belongs to
    /// a message of the service, which comes again.
    const OUTGOING_WAITS: bool;
    /// True: a connection on which the service is silent for too long ends with a close frame, and is replaced at once. False: it
    /// ends without one, and is replaced after the back-off.
    const CLOSES_SILENT: bool;

    /// Decodes a message. Bytes need not be UTF-8.
    fn read(&self, bytes: &[u8]) -> Read<Self::Incoming>;

    /// The texts to send for a message of the agent, in order. Called when the connection is ready to take them. It must end
    /// within a minute or so: nothing else is written meanwhile.
    fn write(&self, message: Self::Outgoing) -> impl Future<Output = Vec<String>> + Send;

    /// The size in bytes that a decoded message takes while it is queued, in addition to its size on the wire.
    fn decoded_size(&self, message: &Self::Incoming) -> usize;

    /// The message that tells the agent about a change of the connection; `None` if the agent need not know.
    fn notice(&self, change: Change) -> Option<Self::Incoming>;
}

/// A change of the connection that the peer has caused or confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The connection is established.
    Connected,
    /// The service reports that the container instance is not registered.
    Deregistered,
}

/// The meaning of a message for the session. Every text for the log is one bounded line without secrets.
#[derive(Debug)]
pub enum Read<M> {
    /// Answer with this text at once; the second text is for the log.
    Answer(String, Option<String>),
    /// Answer with this text at once, and pass the message to the agent, unless others wait for it: then the agent is busy.
    Heartbeat(String, M),
    /// Pass this to the agent. The text is for the log and names the parts of the message that are not accepted.
    Deliver(M, Option<String>),
    /// A recognised message without effect; the text is for the log.
    Note(String),
    /// A recognised message without effect, not worth a line in the log.
    Accept,
    /// The service complains about a message of the agent, which does not restart the inactivity timer. The text is for the log.
    Complaint(String),
    /// A recognised message that breaks a rule: it has no effect and is not acknowledged. The text names the rule.
    Invalid(String),
    /// An unknown or malformed message, which does not restart the inactivity timer. The text is the cause.
    Drop(String),
}
