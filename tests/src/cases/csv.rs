//! The suite `csv_output`: rows, and the text that they are as CSV. Events are made that give
//! these rows, so that the text comes the way that a client gets it.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt as _};
use jiff::{Timestamp, tz::TimeZone};
use model::{Window, WindowSize};
use serde_json::{Value, json};

use super::{
    file::{Case, Failure, Suite},
    fixture::Fixture,
    jobs::{Job, Sharing, on_stacks},
};
use crate::stack::Stack;

const SIZES: [WindowSize; 4] = [
    WindowSize::Minute,
    WindowSize::Hour,
    WindowSize::Day,
    WindowSize::Month,
];

/// Returns the jobs of the suite.
pub(super) fn jobs(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        case.only(&["rows", "csv"])?;
        Ok(Sheet::of(case)?.fixture()?)
    };
    on_stacks(suite, Sharing::EqualFixtures, prepare, check)
}

/// A case: the rows, and their text.
struct Sheet<'a> {
    rows: Vec<Row<'a>>,
    csv: &'a str,
    by_subject: bool,
    group_by: Vec<&'a str>,
}

struct Row<'a> {
    window: Window,
    value: &'a Value,
    subject: Option<&'a str>,
    groups: BTreeMap<&'a str, &'a str>,
}

impl<'a> Sheet<'a> {
    fn of(case: &Case<'a>) -> Result<Self, Failure> {
        let csv = case.text("csv")?;
        let csv = csv.ok_or_else(|| Failure::malformed("has no `csv`"))?;
        let rows = case.list("rows")?;
        let rows = rows.ok_or_else(|| Failure::malformed("has no `rows`"))?;
        // The header tells which columns are asked for, and in which order.
        let header = csv.lines().next().unwrap_or_default();
        let columns: Vec<_> = header.split(',').collect();
        let ["window_start", "window_end", dimensions @ .., "value"] = &columns[..] else {
            return Err(Failure::malformed(format!("a header {header:?}")));
        };
        let (by_subject, group_by) = match dimensions {
            ["subject", groups @ ..] => (true, groups),
            groups => (false, groups),
        };
        let is_plain = |name: &&str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let is_known = |name: &&str| {
            is_plain(name) && !name.starts_with("customer") && *name != "subject_display_name"
        };
        if !group_by.iter().all(is_known) {
            return Err(Failure::malformed(format!("a header {header:?}")));
        }
        let row = |row| Row::read(row).ok_or_else(|| Failure::malformed(format!("row {row}")));
        Ok(Self {
            rows: rows.iter().map(row).collect::<Result<_, _>>()?,
            csv,
            by_subject,
            group_by: group_by.to_vec(),
        })
    }

    /// Returns a meter and one event a row.
    fn fixture(&self) -> Result<Fixture, Failure> {
        self.parameters()?;
        let paths: BTreeMap<_, _> = (self.group_by.iter())
            .map(|name| (*name, format!("$.groups.{name}")))
            .collect();
        let event = |(index, row): (usize, &Row<'_>)| {
            json!({
                "specversion": "1.0", "id": index.to_string(), "source": "cases", "type": "t",
                "subject": row.subject.unwrap_or("s"), "time": row.window.start.to_string(),
                "data": {"value": row.value, "groups": row.groups},
            })
        };
        Ok(Fixture {
            meters: vec![json!({
                "slug": "m", "eventType": "t", "aggregation": "SUM", "valueProperty": "$.value",
                "groupBy": paths,
            })],
            events: self.rows.iter().enumerate().map(event).collect(),
        })
    }

    /// Returns the query whose answer has these rows.
    fn parameters(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut parameters = Vec::new();
        let mut push =
            |name: &str, value: &str| parameters.push((name.to_owned(), value.to_owned()));
        if self.by_subject {
            push("groupBy", "subject");
        }
        self.group_by.iter().for_each(|name| push("groupBy", name));
        let Some(first) = self.rows.first() else {
            return Ok(parameters);
        };
        if self.rows.iter().all(|row| row.window == first.window) {
            push("from", &first.window.start.to_string());
            push("to", &first.window.end.to_string());
            return Ok(parameters);
        }
        let holds = |size: &WindowSize, row: &Row<'_>| {
            Window::holding(row.window.start, *size, &TimeZone::UTC) == row.window
        };
        let size = (SIZES.iter()).find(|size| self.rows.iter().all(|row| holds(size, row)));
        let size = size.ok_or_else(|| Failure::malformed("windows that are no query's"))?;
        push("windowSize", &size.to_string());
        Ok(parameters)
    }

    /// Rows of one window have no order of their own, so their lines may be in any.
    fn is(&self, text: &str) -> bool {
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let is_tied = self
            .rows
            .windows(2)
            .any(|pair| pair[0].window == pair[1].window);
        text == self.csv || (is_tied && sorted(text) == sorted(self.csv))
    }
}

impl<'a> Row<'a> {
    fn read(row: &'a Value) -> Option<Self> {
        let row = row.as_object()?;
        let known = ["value", "windowStart", "windowEnd", "subject", "groupBy"];
        if row.keys().any(|name| !known.contains(&&**name)) {
            return None;
        }
        let instant = |name| row.get(name)?.as_str()?.parse::<Timestamp>().ok();
        let (mut subject, mut groups) = (None, BTreeMap::new());
        if let Some(value) = row.get("subject").filter(|value| !value.is_null()) {
            subject = Some(value.as_str()?);
        }
        if let Some(values) = row.get("groupBy").filter(|value| !value.is_null()) {
            for (name, value) in values.as_object()? {
                groups.insert(&**name, value.as_str()?);
            }
        }
        Some(Self {
            window: Window {
                start: instant("windowStart")?,
                end: instant("windowEnd")?,
            },
            value: row.get("value")?,
            subject,
            groups,
        })
    }
}

fn check<'s>(
    case: Case<'s>,
    fixture: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        let sheet = Sheet::of(&case)?;
        let path = format!("/api/v1/meters/{}/query", fixture.asked(&case)?);
        let answer = stack.get(&path, &sheet.parameters()?, "text/csv").await?;
        if answer.status != 200 || !answer.content_type.starts_with("text/csv") {
            let got = format!("{} {answer}", answer.content_type);
            return Err(Failure::new("text/csv", got));
        }
        if sheet.is(&answer.body) {
            Ok(())
        } else {
            Err(Failure::new(sheet.csv, answer.body))
        }
    }
    .boxed()
}
