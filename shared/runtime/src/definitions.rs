//! Definitions in force: files that can change while the function runs.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use model::{Catalog, QuotaRules};

/// How often a file is looked at: a look costs microseconds, a batch milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The meters of one file.
pub type Meters = Watched<Catalog>;

/// The prices and policies of one file.
pub type Rules = Watched<QuotaRules>;

/// Why definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
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
        /// The mistakes, each with its place: a [`model::CatalogError`] or a
        /// [`model::QuotaRulesError`].
        source: Mistakes,
    },
}

/// A handle to the definitions of one file. Cheap to clone.
pub struct Watched<T> {
    file: Arc<File<T>>,
}

struct File<T> {
    path: PathBuf,
    parse: Parse<T>,
    /// Counts the changes of what the text is read by, besides itself.
    context: Box<dyn Fn() -> u64 + Send + Sync>,
    read: Mutex<Read<T>>,
}

type Mistakes = Box<dyn std::error::Error + Send + Sync>;

type Parse<T> = Box<dyn Fn(&str) -> Result<T, Mistakes> + Send + Sync>;

struct Read<T> {
    definitions: Arc<T>,
    stamp: Option<Stamp>,
    looked: Instant,
    changes: u64,
}

/// What changes when a file is replaced, also when a ConfigMap's link is turned to
/// files of the same size, or when what it is read by changes.
type Stamp = (SystemTime, u64, u64);

impl Watched<Catalog> {
    /// Reads the meters of a file. Its mistakes prevent the start.
    pub fn open(path: &Path) -> Result<Self, DefinitionsError> {
        let parse = |text: &str| Catalog::from_yaml(text).map_err(Mistakes::from);
        Self::new(path, Box::new(parse), Box::new(|| 0))
    }
}

impl Watched<QuotaRules> {
    /// Reads the rules of a file for `meters`, and again when those change. Its mistakes prevent
    /// the start.
    pub fn open(path: &Path, meters: &Meters) -> Result<Self, DefinitionsError> {
        let (catalog, changes) = (meters.clone(), meters.clone());
        let parse = move |text: &str| {
            QuotaRules::from_yaml(text, &catalog.current()).map_err(Mistakes::from)
        };
        Self::new(path, Box::new(parse), Box::new(move || changes.changes()))
    }
}

impl<T> Watched<T> {
    fn new(
        path: &Path,
        parse: Parse<T>,
        context: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Result<Self, DefinitionsError> {
        let stamp = stamp(path, context());
        let definitions = Arc::new(read(path, &parse)?);
        let read = Mutex::new(Read {
            definitions,
            stamp,
            looked: Instant::now(),
            changes: 0,
        });
        let file = File {
            path: path.to_owned(),
            parse,
            context,
            read,
        };
        Ok(Self {
            file: Arc::new(file),
        })
    }

    /// Returns the definitions, read anew if the file changed.
    ///
    /// A change with mistakes is logged, and the old definitions stay in force.
    pub fn current(&self) -> Arc<T> {
        self.look().0
    }

    /// Returns how often they changed since the start.
    fn changes(&self) -> u64 {
        self.look().1
    }

    fn look(&self) -> (Arc<T>, u64) {
        let file = &*self.file;
        let mut known = file.read.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            let stamp = stamp(&file.path, (file.context)());
            if stamp != known.stamp {
                known.stamp = stamp;
                match read(&file.path, &file.parse) {
                    Ok(definitions) => {
                        tracing::info!(path = %file.path.display(), "definitions changed");
                        known.definitions = Arc::new(definitions);
                        known.changes += 1;
                    }
                    Err(error) => {
                        metrics::counter!("openmeter_definitions_reload_failed_total").increment(1);
                        tracing::error!(
                            error = error.to_string(),
                            "the changed definitions are not used"
                        );
                    }
                }
            }
        }
        (known.definitions.clone(), known.changes)
    }
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self {
            file: Arc::clone(&self.file),
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}

fn stamp(path: &Path, context: u64) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), context))
}

fn read<T>(path: &Path, parse: &Parse<T>) -> Result<T, DefinitionsError> {
    let text = fs::read_to_string(path).map_err(|source| DefinitionsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|source| DefinitionsError::Invalid {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this test's own.
    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{name}-{}.yaml", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    }

    fn look_again<T>(watched: &Watched<T>) -> Arc<T> {
        watched.file.read.lock().unwrap().looked -= LOOK_EVERY;
        watched.current()
    }

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_not() {
        let path = file("meters", "meters: []");
        let meters = Meters::open(&path).unwrap();
        assert_eq!(look_again(&meters).meters().len(), 0);
        fs::write(
            &path,
            "meters: [{slug: a, eventType: t, aggregation: COUNT}]",
        )
        .unwrap();
        assert_eq!(look_again(&meters).meters().len(), 1);
        fs::write(&path, "meters: [{slug: a}]").unwrap();
        assert_eq!(look_again(&meters).meters().len(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(look_again(&meters).meters().len(), 1);
        assert!(matches!(
            Meters::open(&path),
            Err(DefinitionsError::Unreadable { .. })
        ));
    }

    #[test]
    fn rules_that_come_before_their_meters_wait_for_them() {
        let meters_path = file("meters-of-rules", "meters: []");
        let path = file("rules", "prices: []");
        let meters = Meters::open(&meters_path).unwrap();
        let rules = Rules::open(&path, &meters).unwrap();
        let prices = "prices: [{meter: a, versions: [{credits_per_unit: 1}]}]";
        fs::write(&path, prices).unwrap();
        assert_eq!(look_again(&rules).prices.meters().count(), 0);
        let definitions = "meters: [{slug: a, eventType: t, aggregation: COUNT}]";
        fs::write(&meters_path, definitions).unwrap();
        look_again(&meters);
        assert_eq!(look_again(&rules).prices.meters().count(), 1);
        for path in [meters_path, path] {
            fs::remove_file(path).unwrap();
        }
    }
}
