//! `clickhouse-engine`: answers ClickHouse's HTTP protocol from libchdb.

use std::process::ExitCode;

use anyhow::Context;
use clickhouse_engine::auth::Users;
use clickhouse_engine::config::Config;
use clickhouse_engine::engine::Engine;
use clickhouse_engine::http;
use tokio::net::TcpListener;

/// What sysexits.h calls EX_USAGE: restarting will not help.
const BAD_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("clickhouse-engine: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clickhouse-engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(serve(config));
    // A statement that outlived the grace time must not hold the process.
    runtime.shutdown_background();
    done
}

async fn serve(config: Config) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let engine = Engine::open(&config.library, &config.data)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    println!(
        "clickhouse-engine: listening on http://{}, ClickHouse {}, data in {}",
        listener.local_addr()?,
        engine.version(),
        config.data.display()
    );
    let users = Users::new(config.read_only_user);
    http::run(listener, engine.clone(), users, http::shutdown_signal()?).await?;
    engine.shut_down();
    Ok(())
}
