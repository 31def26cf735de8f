//! The folder of a run: traffic, logs, and a note of what the run has made elsewhere.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// A folder that one run at a time has.
pub(super) struct Folder {
    path: PathBuf,
    // Locked for as long as it is open. Holds the id of the run whose topic, database and keys
    // are there: a run that was killed leaves it behind, and them.
    note: File,
}

impl Folder {
    pub(super) fn open(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let note = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("run"))?;
        if note.try_lock().is_err() {
            bail!(
                "another run has {}; wait for it, or set OPENMETER_STATE_DIR",
                path.display()
            );
        }
        Ok(Self { path, note })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id of the run that was killed here, if one was.
    pub(super) fn left_behind(&mut self) -> anyhow::Result<Option<String>> {
        let mut id = String::new();
        self.note.rewind()?;
        self.note.read_to_string(&mut id)?;
        Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty()))
    }

    /// Notes which run has made things elsewhere; empty for none.
    pub(super) fn note(&mut self, id: &str) -> anyhow::Result<()> {
        self.note.set_len(0)?;
        self.note.rewind()?;
        self.note.write_all(id.as_bytes()).context("note the run")
    }
}
