//! The answer to a meter query, as CSV (RFC 4180, lines ended by LF as OpenMeter has them).

use std::{fmt::Display, iter};

use axum::http::{HeaderMap, header::ACCEPT};
use model::{MeterQuery, UsageRow};

/// Digits after the point that a value has at least.
const DECIMALS: usize = 6;

/// Returns whether the sender asks for CSV: it names `text/csv`, and no JSON before it.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .find(|media_type| {
            media_type.eq_ignore_ascii_case("text/csv")
                || media_type.eq_ignore_ascii_case("application/json")
        })
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/csv"))
}

/// Returns the rows as CSV with a header.
pub(crate) fn write(query: &MeterQuery, rows: &[UsageRow]) -> String {
    let has_quantiles = rows.iter().any(|row| row.quantiles.is_some());
    let quantiles = if has_quantiles {
        &["p50", "p90", "p95", "p99"][..]
    } else {
        &[]
    };
    let header = ["window_start", "window_end"]
        .into_iter()
        .chain(query.by_subject.then_some("subject"))
        .chain(query.group_by.iter().map(String::as_str))
        .chain(iter::once("value"))
        .chain(quantiles.iter().copied());
    let mut out = String::new();
    line(&mut out, header.map(str::to_owned));
    for row in rows {
        let fields = [row.window.start.to_string(), row.window.end.to_string()]
            .into_iter()
            .chain(row.subject.clone())
            .chain(row.groups.iter().cloned())
            .chain(iter::once(number(row.value)))
            .chain(row.quantiles.iter().flatten().map(number));
        line(&mut out, fields);
    }
    out
}

fn line(out: &mut String, fields: impl Iterator<Item = String>) {
    for (place, field) in fields.enumerate() {
        if place > 0 {
            out.push(',');
        }
        if field.contains(['"', ',', '\n', '\r']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&field);
        }
    }
    out.push('\n');
}

/// Writes a decimal with six digits after the point, or with more if it has more.
fn number(value: impl Display) -> String {
    let text = value.to_string();
    let (integer, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{integer}.{fraction:0<DECIMALS$}")
}

#[cfg(test)]
mod tests {

    use model::Window;

    use super::*;

    fn row(value: &str) -> UsageRow {
        UsageRow {
            window: Window {
                start: "2021-01-01T00:00:00Z".parse().unwrap(),
                end: "2021-01-01T01:00:00Z".parse().unwrap(),
            },
            value: value.parse().unwrap(),
            quantiles: None,
            subject: None,
            groups: Vec::new(),
        }
    }

    fn query() -> MeterQuery {
        MeterQuery::default()
    }

    #[test]
    fn a_value_has_six_decimals_or_more() {
        for (value, printed) in [
            ("300", "300.000000"),
            ("-0.5", "-0.500000"),
            ("0.0000001", "0.0000001"),
            (
                "99999999999999999999.1234567890123456789",
                "99999999999999999999.1234567890123456789",
            ),
        ] {
            let text = write(&query(), &[row(value)]);
            assert_eq!(
                text,
                format!(
                    "window_start,window_end,value\n\
                     2021-01-01T00:00:00Z,2021-01-01T01:00:00Z,{printed}\n"
                )
            );
        }
    }

    #[test]
    fn subject_and_groups_have_columns_and_odd_texts_are_quoted() {
        let asked = MeterQuery {
            by_subject: true,
            group_by: vec!["path".to_owned()],
            ..query()
        };
        let found = UsageRow {
            subject: Some("s,1".to_owned()),
            groups: vec!["=\"a\"\n".to_owned()],
            ..row("1")
        };
        assert_eq!(
            write(&asked, &[found]),
            "window_start,window_end,subject,path,value\n\
             2021-01-01T00:00:00Z,2021-01-01T01:00:00Z,\"s,1\",\"=\"\"a\"\"\n\",1.000000\n"
        );
        assert_eq!(write(&query(), &[]), "window_start,window_end,value\n");
    }

    #[test]
    fn csv_comes_only_to_those_who_ask_for_it() {
        for (accept, wanted) in [
            ("text/csv", true),
            ("text/csv; charset=utf-8, application/json;q=0.5", true),
            ("application/json, text/csv", false),
            ("*/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(is_wanted(&headers), wanted, "{accept}");
        }
    }
}
