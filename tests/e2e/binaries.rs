//! The functions' own binaries, for what only a process can show.

use std::{path::PathBuf, process::Command, sync::OnceLock};

/// Returns a binary of the functions, built as this test was.
pub(crate) fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--bins"]);
        build.args(["-p", "ingest", "-p", "process", "-p", "query"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the functions build");
        // The test itself is in the folder `deps`.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().to_owned()
    });
    folder.join(name)
}
