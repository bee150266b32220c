//! What a server does with a request.

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::sync::Arc;

/// Answers requests. Made from routes, or from a function for what comes before routes: a second router around the first one would
/// look for a route twice.
#[derive(Clone)]
pub struct Answers(Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>);

impl Answers {
    pub(crate) fn new<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self(Arc::new(move |request| answer(request).boxed()))
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, request: Request) -> BoxFuture<'static, Response> {
        (self.0)(request)
    }
}

impl From<Router> for Answers {
    fn from(routes: Router) -> Self {
        // With its state, a router builds its handlers now, and not for each request.
        let routes = TowerToHyperService::new(routes.with_state::<()>(()));
        Self::new(move |request| routes.call(request).map(|answer| answer.unwrap_or_else(|never| match never {})))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}
