//! Suites that ask a meter: aggregations, windows, groups, filters, and what is refused.

use futures::future::{BoxFuture, FutureExt as _};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    compare,
    file::{Case, Failure, Fields, Suite},
    fixture::Fixture,
    jobs::{Job, Sharing, on_stacks},
    report::Outcome,
};
use crate::stack::{Answer, Stack};

/// What these cases can say beside their fixture.
const MEMBERS: [&str; 13] = [
    "query",
    "method",
    "api",
    "slug",
    "accept",
    "rows",
    "rows_any_order",
    "csv",
    "status",
    "error",
    "expect_total",
    "invariants",
    "effective_groupBy",
];

/// The parameters of a meter's query.
const PARAMETERS: [&str; 8] = [
    "from",
    "to",
    "windowSize",
    "windowTimeZone",
    "subject",
    "groupBy",
    "filterGroupBy",
    "clientId",
];

/// Parameters that are not run, with the reason.
const NOT_YET: [(&str, &str); 4] = [
    ("storedAt", "needs a store seeded with stored times"),
    (
        "advancedMeterGroupByFilters",
        "there are no string filters yet",
    ),
    ("filterCustomerId", "there are no customers yet"),
    ("customerId", "there are no customers yet"),
];

/// Returns the jobs of a suite that names its meters.
pub(super) fn jobs(suite: &Suite) -> Vec<Job<'_>> {
    on_stacks(
        suite,
        Sharing::EqualFixtures,
        |case| prepare(case, None),
        check,
    )
}

/// Returns the jobs of `query_validation`, whose meter has the dimensions `path` and `method`.
pub(super) fn validation(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        let meter = json!({
            "slug": "m", "eventType": "t", "aggregation": "SUM", "valueProperty": "$.value",
            "groupBy": {"path": "$.path", "method": "$.method"},
        });
        prepare(case, Some(meter))
    };
    on_stacks(suite, Sharing::EqualFixtures, prepare, check)
}

/// Reads a case, with `meter` for one that names none.
pub(super) fn prepare(case: &Case<'_>, meter: Option<Value>) -> Result<Fixture, Outcome> {
    match case.text("api")? {
        None | Some("v1") => {}
        Some("v3") => return Err(Outcome::Skipped("there is no v3 of the API yet".to_owned())),
        Some(other) => return Err(Failure::malformed(format!("api {other}")).into()),
    }
    let question = Question::of(case)?;
    for (parameter, reason) in NOT_YET {
        if question.query.contains_key(parameter) {
            return Err(Outcome::Skipped(reason.to_owned()));
        }
    }
    let known = [&Fixture::MEMBERS[..], &MEMBERS].concat();
    case.only(&known)?;
    let expected = Expected::of(case)?;
    let is_known = |name: &&String| PARAMETERS.contains(&&***name);
    if let Some(name) = question.query.keys().find(|name| !is_known(name))
        && !expected.is_refusal()
    {
        return Err(Failure::malformed(format!("query has a `{name}`")).into());
    }
    let fixture = Fixture::of(case, meter)?;
    fixture.asked(case)?;
    Ok(fixture)
}

/// Asks what a case asks, and compares the answer.
pub(super) fn check<'s>(
    case: Case<'s>,
    fixture: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        let expected = Expected::of(&case)?;
        let question = Question::of(&case)?;
        let accept = match (case.text("accept")?, expected.csv) {
            (Some(accept), _) => accept,
            (None, Some(_)) => "text/csv",
            (None, None) => "application/json",
        };
        let raw = expected.is_refusal();
        let answer = question
            .ask(stack, fixture.asked(&case)?, accept, raw)
            .await?;
        expected.compare(&answer, &question)
    }
    .boxed()
}

/// A question in the words of the case.
struct Question {
    query: Fields,
    is_post: bool,
}

impl Question {
    fn of(case: &Case<'_>) -> Result<Self, Failure> {
        let query = case.object("query")?.cloned().unwrap_or_default();
        let filters = query.get("filterGroupBy").and_then(Value::as_object);
        // Several values of one dimension can be asked for in a body only.
        let needs_body = filters.is_some_and(|filters| filters.values().any(Value::is_array));
        let is_post = match case.text("method")? {
            Some("POST") => true,
            Some("GET") => false,
            None => needs_body,
            Some(other) => return Err(Failure::malformed(format!("method {other}"))),
        };
        Ok(Self { query, is_post })
    }

    async fn ask(
        &self,
        stack: &Stack,
        slug: &str,
        accept: &str,
        raw: bool,
    ) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/meters/{slug}/query");
        if self.is_post {
            stack.ask(&path, &self.body(raw), accept).await
        } else {
            stack.get(&path, &self.parameters(), accept).await
        }
    }

    /// Returns the parameters of a GET: lists are repeated, objects are deep objects.
    fn parameters(&self) -> Vec<(String, String)> {
        let mut parameters = Vec::new();
        for (name, value) in &self.query {
            match value {
                Value::Object(members) => {
                    for (member, value) in members {
                        push(&mut parameters, &format!("{name}[{member}]"), value);
                    }
                }
                other => push(&mut parameters, name, other),
            }
        }
        parameters
    }

    /// Returns the body of a POST, where what can be several is a list. A body that is to be
    /// refused is sent as it stands.
    fn body(&self, raw: bool) -> Value {
        let mut body = self.query.clone();
        if raw {
            return Value::Object(body);
        }
        let in_list = |value: &mut Value| {
            if value.is_string() {
                *value = json!([value.take()]);
            }
        };
        for name in ["subject", "groupBy"] {
            body.get_mut(name).map(in_list);
        }
        if let Some(Value::Object(filters)) = body.get_mut("filterGroupBy") {
            filters.values_mut().for_each(in_list);
        }
        Value::Object(body)
    }
}

fn push(parameters: &mut Vec<(String, String)>, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| push(parameters, name, item)),
        Value::String(text) => parameters.push((name.to_owned(), text.clone())),
        other => parameters.push((name.to_owned(), other.to_string())),
    }
}

/// What a case expects of the answer.
struct Expected<'a> {
    status: Option<u16>,
    error: Option<bool>,
    rows: Option<&'a [Value]>,
    any_order: bool,
    csv: Option<&'a str>,
    total: Option<&'a Value>,
    invariants: Vec<Invariant>,
}

#[derive(Clone, Copy)]
enum Invariant {
    /// Each window begins where the one before it ended.
    Adjoining,
    /// Each window begins with a day of the zone.
    LocalMidnight,
}

impl<'a> Expected<'a> {
    fn of(case: &Case<'a>) -> Result<Self, Failure> {
        let mut expected = Self {
            status: case.status()?,
            error: case.error()?,
            rows: case.list("rows")?.map(Vec::as_slice),
            any_order: false,
            csv: case.text("csv")?,
            total: case.get("expect_total"),
            invariants: Vec::new(),
        };
        match case.get("rows_any_order") {
            None => {}
            Some(Value::Bool(any_order)) => expected.any_order = *any_order,
            Some(Value::Array(rows)) if expected.rows.is_none() => {
                expected.rows = Some(rows);
                expected.any_order = true;
            }
            Some(other) => return Err(Failure::malformed(format!("rows_any_order {other}"))),
        }
        for invariant in case.list("invariants")?.into_iter().flatten() {
            expected.invariants.push(match invariant.as_str() {
                Some("windowEnd[i]==windowStart[i+1]") => Invariant::Adjoining,
                Some("every windowStart is local midnight") => Invariant::LocalMidnight,
                _ => return Err(Failure::malformed(format!("invariant {invariant}"))),
            });
        }
        let is_answer = expected.rows.is_some()
            || expected.csv.is_some()
            || expected.total.is_some()
            || !expected.invariants.is_empty();
        if !is_answer && expected.status.is_none() && expected.error.is_none() {
            return Err(Failure::malformed("expects nothing that the runner knows"));
        }
        if is_answer && expected.is_refusal() {
            return Err(Failure::malformed("expects a refusal and an answer"));
        }
        Ok(expected)
    }

    fn is_refusal(&self) -> bool {
        self.error == Some(true) || self.status.is_some_and(|status| status >= 400)
    }

    fn compare(&self, answer: &Answer, question: &Question) -> Result<(), Failure> {
        let is_as_said = match self.status {
            Some(status) => answer.status == status,
            None if self.is_refusal() => (400..500).contains(&answer.status),
            None => answer.status == 200,
        };
        if !is_as_said {
            let said = self.status.map_or_else(
                || if self.is_refusal() { "4xx" } else { "200" }.to_owned(),
                |status| status.to_string(),
            );
            return Err(Failure::new(said, answer));
        }
        if let Some(csv) = self.csv
            && csv != answer.body
        {
            return Err(Failure::new(csv, &answer.body));
        }
        if self.rows.is_none() && self.total.is_none() && self.invariants.is_empty() {
            return Ok(());
        }
        let body = answer.json()?;
        let Some(Value::Array(rows)) = body.get("data") else {
            return Err(Failure::new("a list `data`", answer));
        };
        if let Some(expected) = self.rows {
            compare::rows(expected, rows, self.any_order)?;
        }
        if let Some(total) = self.total {
            compare_total(total, rows)?;
        }
        (self.invariants.iter()).try_for_each(|invariant| invariant.check(rows, question))
    }
}

/// Compares the one row of an answer without windows and groups; no row is a total of 0.
fn compare_total(total: &Value, rows: &[Value]) -> Result<(), Failure> {
    let nothing = json!({"value": 0});
    let row = match rows {
        [] => &nothing,
        [row] => row,
        _ => return Err(Failure::new(format!("one row of {total}"), json!(rows))),
    };
    if total.is_number() && compare::same(total, row.get("value")) {
        Ok(())
    } else {
        Err(Failure::new(total, row))
    }
}

impl Invariant {
    fn check(self, rows: &[Value], question: &Question) -> Result<(), Failure> {
        if rows.is_empty() {
            return Err(Failure::new("windows", "no rows"));
        }
        match self {
            Self::Adjoining => {
                let adjoin = |pair: &[Value]| {
                    instant(&pair[0], "windowEnd") == instant(&pair[1], "windowStart")
                };
                if rows.windows(2).all(adjoin) {
                    return Ok(());
                }
                Err(Failure::new("windows that adjoin", json!(rows)))
            }
            Self::LocalMidnight => {
                let zone = question.query.get("windowTimeZone").and_then(Value::as_str);
                let zone = zone.unwrap_or("UTC");
                let tz = TimeZone::get(zone)
                    .map_err(|error| Failure::malformed(format!("zone {zone}: {error}")))?;
                let begins_a_day = |row: &Value| {
                    let start = instant(row, "windowStart")?;
                    // Where the clocks skip midnight, the day's first instant is later.
                    let day = start.to_zoned_datetime(tz.clone()).start_of_day().ok()?;
                    (day.timestamp() == start).then_some(())
                };
                match rows.iter().find(|row| begins_a_day(row).is_none()) {
                    None => Ok(()),
                    Some(row) => Err(Failure::new(format!("the start of a day in {zone}"), row)),
                }
            }
        }
    }
}

fn instant(row: &Value, name: &str) -> Option<Timestamp> {
    row.get(name)?.as_str()?.parse().ok()
}
