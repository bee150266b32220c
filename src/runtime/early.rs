//! What runs from the start of the process on, and the port that opens with the registration.
//!
//! Before the registration the port is closed, as the Go agent's is. `/health` is on a socket then, so that `-healthcheck` can tell an agent
//! that waits from none.

use super::clock::Clock;
use super::health::Health;
use super::ownership::Ownership;
use super::pulls::Pulls;
use super::supervisor::{Policy, Supervisor};
use crate::http_server::{self, Address, Audience};
use crate::introspection;
use crate::model::view::View;
use crate::store::Identity;
use axum::Router;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The parts that need no configuration, and what the others are added to.
#[derive(Debug)]
pub struct Early {
    pub(super) supervisor: Supervisor,
    pub(super) stop: CancellationToken,
    pub(super) health: Health,
    /// The name of the interface of Docker's default bridge. `None`: there is no such bridge, or it is not known yet.
    pub(super) bridge: watch::Sender<Option<String>>,
}

impl Early {
    /// Begins to serve `/health` on its socket.
    pub fn begin() -> Self {
        let (bridge, _) = watch::channel(None);
        let mut early = Self {
            supervisor: Supervisor::default(),
            stop: CancellationToken::new(),
            health: Health::started(),
            bridge,
        };
        let routes = introspection::health_router(early.health_lookup());
        let socket = Address::Socket(introspection::HEALTH_SOCKET);
        early.serve("health", socket, Audience::host_only(), routes);
        early
    }

    /// Looks after the lock from the moment it is held: a warm pool may take hours.
    pub(super) fn keep_lock(&mut self, ownership: Arc<Ownership>) {
        let stop = self.stop.clone();
        self.supervisor.part("docker lock", Policy::Restart, move || {
            let (ownership, stop) = (ownership.clone(), stop.clone());
            async move { ownership.keep(stop).await }
        });
    }

    /// Opens the port; the start is over. The first try to bind it is over too when this returns: whoever is told after this that the agent
    /// is up may ask at once. With `offhost` true, everybody is served.
    pub(super) fn open_port(
        &mut self,
        offhost: bool,
        identity: &Identity,
        view: watch::Receiver<Arc<View>>,
        pulls: Pulls,
        clock: Arc<Clock>,
    ) {
        let shown = introspection::Identity {
            cluster: identity.cluster.clone(),
            container_instance_arn: Some(identity.container_instance_arn.clone()),
            version_text: crate::version::text(),
        };
        let progress: introspection::PullLookup = Arc::new(move |op| pulls.progress(op));
        let now: introspection::Clock = Arc::new(move || clock.now());
        let routes = introspection::router(self.health_lookup(), shown, view, progress, now);
        let audience = Audience::new(offhost, self.bridge.subscribe());
        self.serve("introspection", Address::Port(introspection::PORT), audience, routes);
        self.health.runs();
    }

    fn health_lookup(&self) -> introspection::HealthLookup {
        let health = self.health.clone();
        Arc::new(move || health.judge())
    }

    fn serve(&mut self, name: &'static str, address: Address, audience: Audience, routes: Router) {
        let settings = http_server::Settings::new(name, address);
        let (stop, mut first) = (self.stop.clone(), Some(http_server::bind(address)));
        self.supervisor.part(name, Policy::Restart, move || {
            let bound = first.take().unwrap_or_else(|| http_server::bind(address));
            let (audience, routes, stop) = (audience.clone(), routes.clone(), stop.clone());
            async move {
                http_server::run(bound, settings, audience, routes, stop).await;
                Ok(())
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    #[tokio::test]
    async fn the_address_is_bound_before_anything_else_begins() {
        let (name, text) = (format!("ecs-agent/test-{}", uuid::Uuid::new_v4().simple()).leak(), "here");
        let mut early = Early {
            supervisor: Supervisor::default(),
            stop: CancellationToken::new(),
            health: Health::started(),
            bridge: watch::channel(None).0,
        };
        let routes = Router::new().fallback(async move || text);
        early.serve("test", Address::Socket(name), Audience::host_only(), routes);
        // Nothing was waited for, so no part has run yet.
        let address = SocketAddr::from_abstract_name(&*name).unwrap();
        let _connected = UnixStream::connect_addr(&address).unwrap();
        early.stop.cancel();
        early.supervisor.watch(early.stop).await.unwrap();
    }
}
