//! The metrics of the agent on port 51680: `curl localhost:51680/metrics`.
//!
//! Owns the route. What a scrape gets is a function that the runtime passes. Compat: the port is that of the Go agent, whose flag
//! reserves it and serves nothing there.

use super::answer::{catch_panic, plain_text};
use super::host_header;
use crate::metrics::Form;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// The port. It is not configurable: tasks are kept from it by this number.
pub const PORT: u16 = 51680;

/// The answer to a request for another host.
const WRONG_HOST: &str = "the Host header names another host: use an address, localhost, or a name of this host\n";

/// Makes the page of a scrape. It must not wait.
pub type Scrape = Arc<dyn Fn(Form) -> String + Send + Sync>;

/// The routes of the port. If only this host is served, a request that names another host is refused: a page in a browser could
/// have sent it.
pub fn router(scrape: Scrape, is_for_everybody: bool) -> Router {
    let page = move |headers: HeaderMap| {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let form = Form::accepted(accept);
        let text = scrape(form);
        async move { ([(header::CONTENT_TYPE, form.content_type())], text).into_response() }
    };
    let routes = Router::new().route("/metrics", get(page)).fallback(not_found);
    routes.layer(from_fn(move |request: Request, next: Next| async move {
        if is_for_everybody || host_header::is_accepted(&request) {
            catch_panic("the metrics", next.run(request)).await
        } else {
            plain_text(StatusCode::FORBIDDEN, WRONG_HOST)
        }
    }))
}

async fn not_found() -> Response {
    plain_text(StatusCode::NOT_FOUND, "the metrics are at /metrics\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Answers;
    use axum::body::{Body, to_bytes};

    async fn answer(is_for_everybody: bool, request: axum::http::request::Builder) -> (u16, String, String) {
        let scrape: Scrape = Arc::new(|form| if form == Form::OpenMetrics { "open" } else { "text" }.to_owned());
        let answers = Answers::from(router(scrape, is_for_everybody));
        let answer = answers.answer(request.body(Body::empty()).unwrap()).await;
        let kind = answer.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 4096).await.unwrap();
        (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    fn get(path: &str) -> axum::http::request::Builder {
        Request::get(path).header(header::HOST, "localhost:51680")
    }

    #[tokio::test]
    async fn the_form_follows_the_accept_header() {
        let (status, kind, text) = answer(false, get("/metrics")).await;
        assert_eq!((status, kind.as_str(), text.as_str()), (200, Form::Prometheus.content_type(), "text"));
        let open = get("/metrics").header(header::ACCEPT, "application/openmetrics-text;version=1.0.0");
        let (status, kind, text) = answer(false, open).await;
        assert_eq!((status, kind.as_str(), text.as_str()), (200, Form::OpenMetrics.content_type(), "open"));
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        assert_eq!(answer(false, get("/")).await.0, 404);
        assert_eq!(answer(false, Request::post("/metrics").header(header::HOST, "localhost")).await.0, 405);
    }

    #[tokio::test]
    async fn another_host_is_named_only_where_everybody_is_served() {
        let named = || Request::get("/metrics").header(header::HOST, "rebind.example.com");
        assert_eq!(answer(false, named()).await.0, 403);
        assert_eq!(answer(true, named()).await.0, 200);
    }
}
