//! Runs a file of acceptance cases against the functions, on the engines of `make up`.
//!
//! `cases [FILE]`; the last line is `N passed, N failed, N skipped`, and the exit code is 0
//! only if nothing failed.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use tests::cases::{self, CaseFile, Deviations, Format, Tally};

#[tokio::main]
async fn main() -> ExitCode {
    let default = || folder().join("openmeter.json");
    let file = std::env::args_os()
        .nth(1)
        .map_or_else(default, PathBuf::from);
    let tally = Box::pin(run(&file)).await.or_else(|error| {
        let mut out = io::stdout().lock();
        writeln!(out, "FAILED {}: {error:#}", file.display())?;
        let tally = Tally {
            failed: 1,
            ..Tally::default()
        };
        writeln!(out, "{tally}")?;
        anyhow::Ok(tally)
    });
    match tally {
        Ok(tally) if tally.failed == 0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

async fn run(file: &Path) -> anyhow::Result<Tally> {
    let text = std::fs::read_to_string(file).context("read the file")?;
    let cases = CaseFile::parse(&text)?;
    let mut report = cases::run(&cases).await;
    if cases.format == Format::CloudEvents {
        let list = folder().join("deviations.json");
        let text = std::fs::read_to_string(list).context("read deviations.json")?;
        let deviations = Deviations::parse(&text).context("read deviations.json")?;
        deviations.apply(&mut report);
        // It is made of the cases in its folder; a file of one's own need not have them all.
        if file.canonicalize()?.parent() == folder().canonicalize().ok().as_deref() {
            report.verdicts.extend(deviations.stale(&cases));
        }
    }
    let mut out = io::stdout().lock();
    report.write(&mut out)?;
    out.flush()?;
    Ok(report.tally())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}
