//! Meters: what is counted, of which events, by which dimensions.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use crate::path::DataPath;

/// How the events of a window become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// The number of events.
    Count,
    /// The sum of the values.
    Sum,
    /// Sum divided by count, half-even at 19 places.
    Avg,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The number of different values, compared as text.
    UniqueCount,
    /// The value with the latest time.
    Latest,
    /// The percentiles 50, 90, 95 and 99 of the values: each one is a value that
    /// occurred, never an interpolation.
    Quantiles,
}

impl Aggregation {
    /// Every aggregation, in the order in which errors list them.
    pub const ALL: [Self; 8] = [
        Self::Sum,
        Self::Count,
        Self::UniqueCount,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Latest,
        Self::Quantiles,
    ];

    /// Returns the name that definitions and replies use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Sum => "SUM",
            Self::Avg => "AVG",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::UniqueCount => "UNIQUE_COUNT",
            Self::Latest => "LATEST",
            Self::Quantiles => "QUANTILES",
        }
    }
}

/// A text that names no [`Aggregation`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of SUM, COUNT, UNIQUE_COUNT, AVG, MIN, MAX, LATEST, QUANTILES")]
pub struct UnknownAggregation;

impl FromStr for Aggregation {
    type Err = UnknownAggregation;

    fn from_str(text: &str) -> Result<Self, UnknownAggregation> {
        let named = |aggregation: &Self| aggregation.name() == text;
        Self::ALL.into_iter().find(named).ok_or(UnknownAggregation)
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dimension by which a meter's usage can be grouped and filtered.
#[derive(Clone, Debug)]
pub struct GroupBy {
    /// Its name in queries and replies.
    pub name: String,
    /// Where its value is in the event.
    pub path: DataPath,
}

/// A validated meter definition. [`crate::Catalog`] reads it from YAML.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Its name: words of `[a-z0-9]+` joined by single `_` or `-`, 1 to 64 characters.
    pub slug: String,
    /// What people call it; the slug, if the definition gives no name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The `type` of the events that it takes.
    pub event_type: String,
    /// How the events of a window become one value.
    pub aggregation: Aggregation,
    /// Where the value is in the event; `None` for COUNT alone.
    pub value: Option<DataPath>,
    /// The dimensions beside the subject, sorted by name.
    pub group_by: Vec<GroupBy>,
    /// Events before this time are not for this meter.
    pub event_from: Option<Timestamp>,
}

impl Meter {
    /// Returns whether `name` can be grouped by: a dimension of its own, or the subject.
    pub fn has_dimension(&self, name: &str) -> bool {
        name == SUBJECT || self.group_by.iter().any(|group| group.name == name)
    }

    /// Appends what decides the rows that this meter makes, and nothing else, so
    /// that a changed description is no reason to read all events again.
    pub(crate) fn fingerprint(&self, out: &mut Vec<u8>) {
        let value = self.value.as_ref().map_or("", DataPath::as_str);
        let from = self
            .event_from
            .map(|from| from.to_string())
            .unwrap_or_default();
        for part in [&self.slug, self.aggregation.name(), value, &from] {
            out.extend_from_slice(part.as_bytes());
            out.push(0);
        }
        for group in &self.group_by {
            out.extend_from_slice(group.name.as_bytes());
            out.push(0);
            out.extend_from_slice(group.path.as_str().as_bytes());
            out.push(0);
        }
        out.push(1);
    }
}

/// The dimension that each meter has without naming it.
pub const SUBJECT: &str = "subject";
