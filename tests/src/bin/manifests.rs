//! Checks manifests without a cluster: `manifests [FOLDER...]`, by default the overlays and
//! what is made of them with the components, seen from the project's folder. One line for each
//! mistake; the last line is `N objects, N mistakes`, and the exit code is 0 only if there are
//! none.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use tests::manifests::{GOOD, check};

fn main() -> io::Result<ExitCode> {
    let mut folders: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        folders = GOOD
            .iter()
            .map(|(_, folder)| PathBuf::from(folder))
            .collect();
    }
    let mut out = io::stdout().lock();
    let (mut objects, mut mistakes) = (0, 0);
    for folder in folders {
        let report = check(&folder);
        for finding in &report.findings {
            writeln!(out, "{}: {finding}", folder.display())?;
        }
        objects += report.objects;
        mistakes += report.findings.len();
    }
    writeln!(out, "{objects} objects, {mistakes} mistakes")?;
    Ok(if mistakes == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
