//! `make bench`: what the functions cost, as ratios against a baseline in the same run.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // The baseline of ingest_single runs in a process of its own, as ingest does.
        ["bare"] => tests::bench::bare::serve(std::env::var("PORT")?.parse()?).await,
        [] => tests::bench::run(None).await,
        [only] => tests::bench::run(Some(only)).await,
        _ => anyhow::bail!("usage: bench [NAME]"),
    }
}
