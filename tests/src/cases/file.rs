//! A file of acceptance cases, read without knowing what its suites are about.

use std::fmt;

use serde_json::{Map, Value};

/// A JSON object's members.
pub type Fields = Map<String, Value>;

/// Members that say something about a case and nothing that could be checked.
const REMARKS: [&str; 16] = [
    "name",
    "title",
    "about",
    "note",
    "notes",
    "comment",
    "description",
    "why",
    "rule",
    "origin",
    "evidence",
    "source",
    "sources",
    "source_files",
    "default_origin",
    "id",
];

/// Members that begin like this tell what another implementation answers.
const OTHERS_ANSWERS: [&str; 5] = ["openmeter_", "mock_", "sdk_", "knative_", "interop_"];

/// What the cases of a file are about, which its content says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A list `suites`: metering, as OpenMeter answers.
    OpenMeter,
    /// An object `groups`: CloudEvents' bindings and Knative's brokers.
    CloudEvents,
}

/// The suites of a file.
#[derive(Debug)]
pub struct CaseFile {
    /// What they are about.
    pub format: Format,
    /// In the order of the file.
    pub suites: Vec<Suite>,
    /// What is no suite: each one is reported as a failure.
    pub malformed: Vec<String>,
}

/// Cases of one kind.
#[derive(Debug)]
pub struct Suite {
    /// Its kind, and its name in reports.
    pub id: String,
    /// What is said once for all its cases.
    pub fields: Fields,
    /// The cases as they stand in the file.
    pub cases: Vec<Value>,
}

/// One case of a suite.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Where it belongs.
    pub suite: &'a Suite,
    /// Its place in the suite.
    pub index: usize,
    /// What it says itself.
    pub fields: &'a Fields,
}

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the case says.
    pub expected: String,
    /// What came instead.
    pub got: String,
}

impl Failure {
    /// Returns the failure to get `expected`.
    pub fn new(expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self {
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// Returns the failure of a case that says something else than cases of its suite do.
    pub fn malformed(what: impl fmt::Display) -> Self {
        Self::new("a case that the runner understands", what)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new("a stack that answers", format!("{error:#}"))
    }
}

impl CaseFile {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let root: Value = serde_json::from_str(text)?;
        let (format, suites): (_, Vec<_>) = match (root.get("suites"), root.get("groups")) {
            (Some(Value::Array(suites)), None) => {
                let place = |(place, suite)| (format!("suites[{place}]"), Suite::read(suite));
                let suites = suites.iter().enumerate().map(place);
                (Format::OpenMeter, suites.collect())
            }
            (None, Some(Value::Object(groups))) => {
                let place = |(id, group): (&String, _)| (id.clone(), Suite::of_group(id, group));
                (Format::CloudEvents, groups.iter().map(place).collect())
            }
            _ => anyhow::bail!("the file has neither a list `suites` nor an object `groups`"),
        };
        let mut file = Self {
            format,
            suites: Vec::new(),
            malformed: Vec::new(),
        };
        for (place, suite) in suites {
            match suite {
                Ok(suite) => file.suites.push(suite),
                Err(what) => file.malformed.push(format!("{place} {what}")),
            }
        }
        Ok(file)
    }
}

impl Suite {
    fn read(suite: &Value) -> Result<Self, &'static str> {
        let id = suite.as_object().ok_or("is no object")?.get("id");
        let id = id.and_then(Value::as_str).ok_or("has no text `id`")?;
        Self::of_group(id, suite)
    }

    fn of_group(id: &str, group: &Value) -> Result<Self, &'static str> {
        let mut fields = group.as_object().ok_or("is no object")?.clone();
        match fields.remove("cases") {
            Some(Value::Array(cases)) => Ok(Self {
                id: id.to_owned(),
                fields,
                cases,
            }),
            _ => Err("has no list `cases`"),
        }
    }

    /// Returns the cases; a value that is no object comes as its failure.
    pub fn cases(&self) -> impl Iterator<Item = (usize, Result<Case<'_>, Failure>)> {
        self.cases.iter().enumerate().map(move |(index, case)| {
            let case = match case.as_object() {
                Some(fields) => Ok(Case {
                    suite: self,
                    index,
                    fields,
                }),
                None => Err(Failure::malformed("no object")),
            };
            (index, case)
        })
    }
}

impl<'a> Case<'a> {
    /// Returns a member of the case, or else of its suite.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields
            .get(name)
            .or_else(|| self.suite.fields.get(name))
    }

    /// Returns a member that is a text, or nothing if there is none.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Failure> {
        self.read(name, "a text", Value::as_str)
    }

    /// Returns a member that is an object, or nothing if there is none.
    pub fn object(&self, name: &str) -> Result<Option<&'a Fields>, Failure> {
        self.read(name, "an object", Value::as_object)
    }

    /// Returns a member that is a list, or nothing if there is none.
    pub fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Failure> {
        self.read(name, "a list", Value::as_array)
    }

    /// Returns the HTTP status that is expected, if the case names one.
    pub fn status(&self) -> Result<Option<u16>, Failure> {
        self.read("status", "an HTTP status", |status| {
            status
                .as_u64()
                .and_then(|status| u16::try_from(status).ok())
        })
    }

    /// Returns whether the case expects an error; `None` when it does not say.
    pub fn error(&self) -> Result<Option<bool>, Failure> {
        match self.get("error") {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(false)),
            Some(Value::String(_)) => Ok(Some(true)),
            Some(other) => Err(Failure::malformed(format!(
                "error is neither null nor a text: {other}"
            ))),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| Failure::malformed(format!("{name} is not {kind}: {value}"))),
        }
    }

    /// Fails if the case or its suite has a member that is neither among `known` nor a
    /// remark: it could be an expectation, and must not count as met.
    pub fn only(&self, known: &[&str]) -> Result<(), Failure> {
        let is_known = |name: &str| {
            known.contains(&name)
                || REMARKS.contains(&name)
                || OTHERS_ANSWERS.iter().any(|start| name.starts_with(start))
        };
        let mut names = self.fields.keys().chain(self.suite.fields.keys());
        match names.find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(Failure::malformed(format!("unknown member `{name}`"))),
        }
    }
}
