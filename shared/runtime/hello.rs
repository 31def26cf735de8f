//! The smallest function: it greets, and takes whatever event is thrown at it.

use std::process::ExitCode;

use axum::{
    Router,
    routing::{get, post},
};
use runtime::{App, CancellationToken, Env, Problem, Secret};

#[tokio::main]
async fn main() -> ExitCode {
    runtime::main("hello", start()).await
}

async fn start() -> anyhow::Result<()> {
    let env = Env::process();
    let name = env.or("HELLO_NAME", "world".to_string(), "whom to greet");
    let _pin: Option<Secret<u32>> = env.optional("HELLO_PIN", "a secret number");
    let fail: bool = env.or("HELLO_FAIL", false, "whether the loop fails");
    let name = env.finish(|| Some(name))?;
    let routes = Router::new()
        .route("/", get(async move || format!("hello {name}")))
        .route("/events", post(take));
    let app = App::new("hello", routes)
        .pull(move |stop| pull(stop, fail))
        .on_shutdown(async || {
            tracing::info!("flushed");
            Ok(())
        });
    runtime::serve(app).await
}

async fn take(event: String) -> Result<String, Problem> {
    if event.contains("later") {
        return Err(Problem::unavailable("not now"));
    }
    Ok(event)
}

async fn pull(stop: CancellationToken, fail: bool) -> anyhow::Result<()> {
    tracing::info!("pulling");
    anyhow::ensure!(!fail, "the broker is gone");
    stop.cancelled().await;
    tracing::info!("pulled");
    Ok(())
}
