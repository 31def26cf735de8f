//! `lago-stand-in`: answers Lago's API from memory. It is not Lago.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Parser;
use lago_stand_in::{Settings, StandIn};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    version,
    about = "A stand-in for Lago, for laptops and tests. It is not Lago."
)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let settings = Arguments::parse().settings;
    let (listen, store) = (settings.listen, settings.event_store);
    let stand_in = StandIn::start(settings).await;
    let stand_in = stand_in.with_context(|| format!("listen on {listen}"))?;
    tracing::info!(
        "lago-stand-in listens on {}, in memory, events as in {store:?}. It stands in for Lago \
         and is not Lago",
        stand_in.url()
    );
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = stand_in.ended() => anyhow::bail!("it ended by itself"),
    }
    Ok(())
}
