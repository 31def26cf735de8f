//! The least that a web server can do with a posted event, or with any question: answer 202.

use std::{net::Ipv4Addr, process::ExitCode};

use axum::{Router, body::Bytes, http::StatusCode, routing::post, serve::ListenerExt as _};
use tokio::net::TcpListener;

/// Serves until killed.
pub async fn serve(port: u16) -> anyhow::Result<ExitCode> {
    let app = Router::new()
        .route("/", post(|_body: Bytes| async { StatusCode::ACCEPTED }))
        .fallback(|| async { StatusCode::ACCEPTED });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await?
        .tap_io(|stream| {
            // As the functions do; without it a lost option costs nothing but time.
            stream.set_nodelay(true).ok();
        });
    axum::serve(listener, app).await?;
    Ok(ExitCode::SUCCESS)
}
