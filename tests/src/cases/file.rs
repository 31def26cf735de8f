//! A file of acceptance cases, read without knowing what its suites are about.

use std::fmt;

use serde_json::{Map, Value};

/// A JSON object's members.
pub type Fields = Map<String, Value>;

/// Members that say something about a case and nothing that could be checked.
const REMARKS: [&str; 14] = [
    "name",
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
    "source_files",
    "default_origin",
    "id",
];

/// Members that begin like this tell what another implementation answers.
const OTHERS_ANSWERS: [&str; 2] = ["openmeter_", "mock_"];

/// The suites of a file.
#[derive(Debug)]
pub struct CaseFile {
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
        let Some(suites) = root.get("suites").and_then(Value::as_array) else {
            anyhow::bail!("the file has no list `suites`");
        };
        let mut file = Self {
            suites: Vec::new(),
            malformed: Vec::new(),
        };
        for (place, suite) in suites.iter().enumerate() {
            match Suite::read(suite) {
                Ok(suite) => file.suites.push(suite),
                Err(what) => file.malformed.push(format!("suites[{place}] {what}")),
            }
        }
        Ok(file)
    }
}

impl Suite {
    fn read(suite: &Value) -> Result<Self, &'static str> {
        let mut fields = suite.as_object().ok_or("is no object")?.clone();
        let id = fields.get("id").and_then(Value::as_str);
        let id = id.ok_or("has no text `id`")?.to_owned();
        match fields.remove("cases") {
            Some(Value::Array(cases)) => Ok(Self { id, fields, cases }),
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
