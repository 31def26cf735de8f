//! `demo`: traffic through the whole pipeline, compared with the oracle. `make run` and
//! `make demo` call it.

use std::process::ExitCode;

use clap::Parser as _;
use tests::demo::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(demo::main(Options::parse())).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
