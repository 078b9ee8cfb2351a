//! What operators' tools ask by http: `/metrics`, `/healthz`, `/readyz`.
//!
//! Served on the control thread, apart from clients. Nothing here changes anything, and nothing needs a password, so the
//! address should be one that only operators reach.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::admin::View;
use crate::metrics::exposition;

/// What the pages are made from.
pub trait Source: Send + Sync + 'static {
    /// The picture of this moment.
    fn view(&self) -> View;

    /// Why the router should not be sent clients now; `None` if it should.
    fn unready(&self) -> Option<&'static str>;
}

/// Serves the pages for as long as the future is polled.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) -> std::io::Result<()> {
    axum::serve(listener, pages(source)).await
}

fn pages(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(source)
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    match exposition::render(source.view()) {
        Ok(text) => ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    match source.unready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
