//! What the tests put into the store, in few words.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use model::{Catalog, Content, Decimal, Identity, Meter, MeterQuery, UsageRow, WindowSize};
use store::{EventRow, State, Store, UsageRecord};

/// A meter `m` with the dimensions `endpoint` and `region`.
pub(crate) fn meter(aggregation: &str) -> Meter {
    let value = match aggregation {
        "COUNT" => "",
        _ => "valueProperty: $.value, ",
    };
    let yaml = format!(
        "meters: [{{slug: m, eventType: t, aggregation: {aggregation}, {value}\
         groupBy: {{endpoint: $.endpoint, region: $.region}}}}]"
    );
    Catalog::from_yaml(&yaml).unwrap().meters()[0]
        .as_ref()
        .clone()
}

/// A row of the meter `m`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) time: i64,
    pub(crate) subject: String,
    pub(crate) value: Decimal,
    pub(crate) text: String,
    pub(crate) groups: Vec<String>,
    pub(crate) stored_at: i64,
    pub(crate) is_deleted: bool,
}

pub(crate) fn micros(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().as_microsecond()
}

/// A row of one event, which is called after its time and value.
pub(crate) fn row(time: &str, value: &str) -> Row {
    Row {
        id: format!("{time} {value}"),
        time: micros(time),
        subject: "s".to_owned(),
        value: value.parse().unwrap_or(Decimal::ONE),
        text: value.to_owned(),
        groups: vec!["/accounts".to_owned(), "eu".to_owned()],
        stored_at: 1,
        is_deleted: false,
    }
}

pub(crate) async fn insert(store: &Store, rows: &[Row]) {
    let meter = meter("SUM");
    let records: Vec<_> = rows
        .iter()
        .map(|row| UsageRecord {
            meter: "m",
            subject: &row.subject,
            time: row.time,
            identity: Identity::of("test", &row.id),
            content: Content(1),
            value: row.value,
            text: &row.text,
            dimensions: &meter.group_by,
            groups: &row.groups,
            definitions: 7,
            ingested_at: row.time,
            stored_at: row.stored_at,
            is_deleted: row.is_deleted,
        })
        .collect();
    store.insert_usage(&records).await.unwrap();
}

pub(crate) fn everything() -> MeterQuery {
    MeterQuery::default()
}

pub(crate) fn by(size: WindowSize, zone: &str) -> MeterQuery {
    MeterQuery {
        window_size: Some(size),
        zone: TimeZone::get(zone).unwrap(),
        ..everything()
    }
}

pub(crate) fn between(from: &str, to: &str) -> MeterQuery {
    MeterQuery {
        from: Some(from.parse().unwrap()),
        to: Some(to.parse().unwrap()),
        ..everything()
    }
}

/// Each row as `start end subject groups value`, whatever is there.
pub(crate) fn shown(rows: &[UsageRow]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let mut parts = vec![row.window.start.to_string(), row.window.end.to_string()];
            parts.extend(row.subject.clone());
            parts.extend(row.groups.clone());
            parts.push(row.value.to_string());
            parts.join(" ")
        })
        .collect()
}

/// An event called `id`.
pub(crate) fn event<'a>(
    id: &'a str,
    time: &str,
    attributes: &'a BTreeMap<String, String>,
) -> EventRow<'a> {
    EventRow {
        identity: Identity::of("test", id),
        time: micros(time),
        id,
        source: "test",
        event_type: "t",
        subject: "s",
        data: b"{\"value\": 1.50}",
        attributes,
        state: State::Valid,
        error: "",
        content: Content(1),
        definitions: 7,
        ingested_at: micros(time),
        stored_at: 1,
        is_deleted: false,
    }
}
