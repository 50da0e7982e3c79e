//! Liveness and readiness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// Whether the caches are filled and the controllers run.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on `/readyz` answers 200.
    pub fn set_ready(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Serves `/healthz` (the process answers) and `/readyz` (the caches are filled) until it fails.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, readiness: Readiness) -> std::io::Result<()> {
    let ready = move || async move {
        if readiness.0.load(Ordering::Acquire) {
            (StatusCode::OK, "ok\n")
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "caches are not filled yet\n",
            )
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}
