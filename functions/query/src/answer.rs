//! The answer to a meter query, as JSON.

use std::{collections::BTreeMap, fmt::Display};

use jiff::Timestamp;
use model::{MeterQuery, UsageRow};
use serde::Serialize;
use serde_json::Number;

/// The reply: what was asked, and the rows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_size: Option<String>,
    data: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    value: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantiles: Option<Quantiles>,
    window_start: Timestamp,
    window_end: Timestamp,
    subject: Option<&'a str>,
    group_by: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: Number,
    p90: Number,
    p95: Number,
    p99: Number,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(query: &'a MeterQuery, rows: &'a [UsageRow]) -> Self {
        Self {
            from: query.from,
            to: query.to,
            window_size: query.window_size.map(|size| size.to_string()),
            data: rows.iter().map(|row| Row::new(query, row)).collect(),
        }
    }
}

impl<'a> Row<'a> {
    fn new(query: &'a MeterQuery, row: &'a UsageRow) -> Self {
        let names = query.group_by.iter().map(String::as_str);
        Self {
            value: number(row.value),
            quantiles: row.quantiles.map(|[p50, p90, p95, p99]| Quantiles {
                p50: number(p50),
                p90: number(p90),
                p95: number(p95),
                p99: number(p99),
            }),
            window_start: row.window.start,
            window_end: row.window.end,
            subject: row.subject.as_deref(),
            group_by: names.zip(row.groups.iter().map(String::as_str)).collect(),
        }
    }
}

/// Writes a decimal as a JSON number with all its digits.
fn number(value: impl Display) -> Number {
    value
        .to_string()
        .parse()
        .expect("a decimal's text is a JSON number")
}

#[cfg(test)]
mod tests {
    use model::Window;

    use super::*;

    #[test]
    fn a_value_keeps_every_digit() {
        let query = MeterQuery {
            group_by: vec!["path".to_owned()],
            ..MeterQuery::default()
        };
        let digits = "299999999999999999999.9999999999999999997";
        let rows = [UsageRow {
            window: Window {
                start: "2024-01-01T00:00:00Z".parse().unwrap(),
                end: "2024-01-02T00:00:00Z".parse().unwrap(),
            },
            value: digits.parse().unwrap(),
            quantiles: None,
            subject: None,
            groups: vec!["/a".to_owned()],
        }];
        let text = serde_json::to_string(&Answer::new(&query, &rows)).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"data":[{{"value":{digits},"windowStart":"2024-01-01T00:00:00Z","windowEnd":"2024-01-02T00:00:00Z","subject":null,"groupBy":{{"path":"/a"}}}}]}}"#
            )
        );
    }
}
