//! The first and the last thing that a function's process does.

use std::{future::Future, process::ExitCode};

use crate::{ConfigError, telemetry};

/// EX_USAGE of sysexits.h: the environment is wrong, and starting again will not help.
const WRONG_CONFIG: u8 = 64;

/// Runs a function named `name` and returns the process's exit code: 0 after an orderly end, 64
/// for a wrong environment, 1 for anything else. What went wrong is logged.
pub async fn main(name: &'static str, start: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    telemetry::install(name);
    let Err(error) = start.await else {
        return ExitCode::SUCCESS;
    };
    match error.downcast_ref::<ConfigError>() {
        Some(wrong) => {
            for mistake in wrong.mistakes() {
                tracing::error!(variable = mistake.name, "{mistake}");
            }
            ExitCode::from(WRONG_CONFIG)
        }
        None => {
            tracing::error!(error = format!("{error:#}"), "the function failed");
            ExitCode::FAILURE
        }
    }
}
