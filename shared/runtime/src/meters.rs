//! The meter definitions in force: a file that can change while the function runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use model::{Catalog, CatalogError};

/// How often the file is looked at: a look costs microseconds, a batch milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetersError {
    /// The file cannot be read.
    #[error("the meter definitions in {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file has mistakes; each one is listed.
    #[error("{path}: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistakes.
        source: CatalogError,
    },
}

/// A handle to the meters of one file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meters {
    path: Arc<PathBuf>,
    read: Arc<Mutex<Read>>,
}

#[derive(Debug)]
struct Read {
    catalog: Arc<Catalog>,
    stamp: Option<Stamp>,
    looked: Instant,
}

/// What changes when a file is replaced, also when a ConfigMap's link is turned to
/// files of the same size.
type Stamp = (SystemTime, u64);

impl Meters {
    /// Reads the file. Its mistakes prevent the start.
    pub fn open(path: &Path) -> Result<Self, MetersError> {
        let stamp = stamp(path);
        let catalog = Arc::new(read(path)?);
        Ok(Self {
            path: Arc::new(path.to_owned()),
            read: Arc::new(Mutex::new(Read {
                catalog,
                stamp,
                looked: Instant::now(),
            })),
        })
    }

    /// Returns the definitions, read anew if the file changed.
    ///
    /// A change with mistakes is logged, and the old definitions stay in force.
    pub fn current(&self) -> Arc<Catalog> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            let stamp = stamp(&self.path);
            if stamp != known.stamp {
                known.stamp = stamp;
                match read(&self.path) {
                    Ok(catalog) => {
                        tracing::info!(
                            meters = catalog.meters().len(),
                            "meter definitions changed"
                        );
                        known.catalog = Arc::new(catalog);
                    }
                    Err(error) => {
                        metrics::counter!("openmeter_meters_reload_failed_total").increment(1);
                        tracing::error!(
                            error = error.to_string(),
                            "the changed meter definitions are not used"
                        );
                    }
                }
            }
        }
        known.catalog.clone()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Catalog, MetersError> {
    let text = fs::read_to_string(path).map_err(|source| MetersError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Catalog::from_yaml(&text).map_err(|source| MetersError::Invalid {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_again(meters: &Meters) -> usize {
        meters.read.lock().unwrap().looked -= LOOK_EVERY;
        meters.current().meters().len()
    }

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_not() {
        let path = std::env::temp_dir().join(format!("meters-{}.yaml", std::process::id()));
        fs::write(&path, "meters: []").unwrap();
        let meters = Meters::open(&path).unwrap();
        assert_eq!(look_again(&meters), 0);
        fs::write(
            &path,
            "meters: [{slug: a, eventType: t, aggregation: COUNT}]",
        )
        .unwrap();
        assert_eq!(look_again(&meters), 1);
        fs::write(&path, "meters: [{slug: a}]").unwrap();
        assert_eq!(look_again(&meters), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(look_again(&meters), 1);
        assert!(matches!(
            Meters::open(&path),
            Err(MetersError::Unreadable { .. })
        ));
    }
}
