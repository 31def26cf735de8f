//! The engine as one process runs it: one folder, one lock, one idle connection.

use std::ffi::CString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chdb::{Chdb, Connection};

/// Held while a process has the folder open; the system frees it at any death.
const LOCK_FILE: &str = "clickhouse-engine.lock";

/// The library could not be loaded or the engine not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is no loadable libchdb, or one without a function used here.
    #[error("load libchdb from {path}: {source}")]
    Library {
        /// The file tried.
        path: PathBuf,
        /// What the loader said.
        source: libloading::Error,
    },
    /// The data folder cannot be made or locked.
    #[error("open the data folder {path}: {source}")]
    Folder {
        /// The folder tried.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the data folder open.
    #[error(
        "another clickhouse-engine is running on the data folder {0}: stop it first, or choose another folder"
    )]
    Locked(PathBuf),
    /// The engine refused to start.
    #[error("libchdb could not start on the data folder {0}")]
    Connect(PathBuf),
}

/// The engine, started on one folder. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    chdb: Chdb,
    arguments: Vec<CString>,
    folder: PathBuf,
    version: String,
    timezone: String,
    /// Never queried; while it lives, closing the others does not stop the engine.
    idle: Mutex<Option<Connection>>,
    _lock: File,
}

impl Engine {
    /// Loads the library and starts the engine on a folder, which is made if absent.
    ///
    /// # Errors
    /// Says what was wrong with the library or the folder.
    pub fn open(library: &Path, folder: &Path) -> Result<Self, OpenError> {
        let lock = lock(folder)?;
        let chdb = Chdb::load(library).map_err(|source| OpenError::Library {
            path: library.to_owned(),
            source,
        })?;
        let refused = || OpenError::Connect(folder.to_owned());
        // A server takes `garbage` for a mistake; the library, left alone,
        // would take it for `SELECT garbage`.
        let arguments = [
            "clickhouse-engine".to_owned(),
            format!("--path={}", folder.display()),
            "--implicit_select=0".to_owned(),
        ];
        let arguments = arguments
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refused())?;
        let mut idle = chdb.connect(&arguments).ok_or_else(refused)?;
        let facts = idle
            .run(b"SELECT version(), timezone()", "TabSeparatedRaw", &[])
            .map_err(|_| refused())?;
        let facts = String::from_utf8_lossy(facts.bytes()).into_owned();
        let (version, timezone) = facts.trim().split_once('\t').ok_or_else(refused)?;
        Ok(Self {
            shared: Arc::new(Shared {
                chdb,
                arguments,
                folder: folder.to_owned(),
                version: version.to_owned(),
                timezone: timezone.to_owned(),
                idle: Mutex::new(Some(idle)),
                _lock: lock,
            }),
        })
    }

    /// The engine's version, as `SELECT version()` gives it.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// The time zone that DateTime values are shown in.
    pub fn timezone(&self) -> &str {
        &self.shared.timezone
    }

    /// Opens a connection with its own settings and current database.
    ///
    /// # Errors
    /// The engine refuses once it was shut down.
    pub fn connect(&self) -> Result<Connection, OpenError> {
        self.shared
            .chdb
            .connect(&self.shared.arguments)
            .ok_or_else(|| OpenError::Connect(self.shared.folder.clone()))
    }

    /// Stops the engine's threads. Call it last, when no connection is open,
    /// since leaving `main` under running threads may crash.
    pub fn shut_down(&self) {
        drop(
            self.shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.shared.chdb.shut_down();
    }
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(folder.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
