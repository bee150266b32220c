//! x
use super::*;
#[derive(Clone,Debug)]
pub(super) struct ControlPlane { pub settings: (), pub credentials: aws_credential_types::provider::SharedCredentialsProvider, pub endpoints: Arc<crate::ecs::endpoint::PollEndpointCache>, pub edges: Arc<Edges>, pub inbox: mpsc::Sender<Event> }
pub(super) fn settings(_: &Config, _: &startup::Instance, _: &crate::store::Identity, _: &str) {}
impl ControlPlane { pub(super) async fn run(self, _: Arc<tokio::sync::Mutex<mpsc::Receiver<acs::Outgoing>>>, _: CancellationToken) -> supervisor::PartResult { Ok(()) } }
