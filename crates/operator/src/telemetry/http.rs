//! Liveness, readiness and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Mutex;

use crate::health::Health;
use crate::telemetry::metrics::{self, Metrics};

/// Serves `/healthz` (this process does its work), `/readyz` (it could) and `/metrics` until it fails.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, health: Health, metrics: Metrics) -> std::io::Result<()> {
    let ready = health.clone();
    let turn = Arc::new(Mutex::new(()));
    let router = Router::new()
        .route(
            "/healthz",
            get(move || async move { answer(health.alive()) }),
        )
        .route("/readyz", get(move || async move { answer(ready.ready()) }))
        .route("/metrics", get(move || render(metrics, turn)));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The metrics; walking large caches must not hold up the reconciles of this thread, and many who
/// ask at once must not multiply the memory it takes.
async fn render(metrics: Metrics, turn: Arc<Mutex<()>>) -> Response {
    let _turn = turn.lock().await;
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        failed => {
            tracing::error!(?failed, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
