//! Sends dead letters once more: those that were not replayed before.

use clap::Parser;
use ingest::{Config, Wanted};
use runtime::Env;

/// Sends dead letters once more. Its settings are those of ingest.
#[derive(Parser)]
struct Arguments {
    /// Begin with the oldest letter that there is, also if it was replayed before
    #[arg(long)]
    all: bool,
    /// List the letters and send nothing
    #[arg(long)]
    dry_run: bool,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Arguments { all, dry_run } = Arguments::parse();
    runtime::main("replay-dead-letters", async {
        let config = Config::from_env(&Env::process())?;
        let done = ingest::replay(&config, Wanted { all, dry_run }).await?;
        println!(
            "{} sent, {} ingested, {} refused, {} impossible{}",
            done.sent,
            done.ingested,
            done.refused,
            done.impossible,
            if dry_run { " (dry run)" } else { "" }
        );
        Ok(())
    })
    .await
}
