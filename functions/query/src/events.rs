//! The list of events: its parameters, and events as structured CloudEvents.

use std::str;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use model::{is_countable, is_json_media_type, micros};
use runtime::Problem;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use store::{EventFilter, State, StoredEvent};

use crate::{
    mistakes::Mistakes,
    params::{named_values, unknown},
};

/// Reads the parameters of the list.
pub(crate) fn filter(query: Option<&str>) -> Result<EventFilter, Problem> {
    let mut mistakes = Mistakes::default();
    let mut by_name = named_values(query);
    let mut one = |name: &str, mistakes: &mut Mistakes| {
        let values = by_name.remove(name).unwrap_or_default();
        mistakes.one(name, &values)
    };
    let mut times = [None; 4];
    for (place, name) in ["from", "to", "ingestedAtFrom", "ingestedAtTo"]
        .into_iter()
        .enumerate()
    {
        let text = one(name, &mut mistakes);
        times[place] = mistakes.time(name, text.as_deref());
    }
    let [from, to, ingested_from, ingested_to] = times;
    mistakes.stretch(("from", from), ("to", to));
    mistakes.stretch(
        ("ingestedAtFrom", ingested_from),
        ("ingestedAtTo", ingested_to),
    );
    let limit = one("limit", &mut mistakes).and_then(|text| match text.parse() {
        Ok(limit) if (1..=100).contains(&limit) => Some(limit),
        _ => {
            mistakes.add("limit", "must be a whole number from 1 to 100");
            None
        }
    });
    let filter = EventFilter {
        id: one("id", &mut mistakes),
        subject: one("subject", &mut mistakes),
        event_type: one("type", &mut mistakes),
        from,
        to,
        ingested_from,
        ingested_to,
        limit,
    };
    by_name.remove("clientId");
    for name in by_name.keys() {
        mistakes.add(name, unknown(name));
    }
    mistakes.into_result(filter)
}

/// An event of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed<'a> {
    event: CloudEvent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_error: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    conflict: bool,
    ingested_at: Timestamp,
    stored_at: Timestamp,
}

impl<'a> Listed<'a> {
    pub(crate) fn new(event: &'a StoredEvent) -> Self {
        Self {
            event: CloudEvent(event),
            validation_error: event.error.as_deref(),
            conflict: event.state == State::Conflict,
            ingested_at: event.ingested_at,
            stored_at: event.stored_at,
        }
    }
}

/// CloudEvents' JSON format, with the data as it was sent.
#[derive(Debug)]
struct CloudEvent<'a>(&'a StoredEvent);

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.event_type)?;
        if let Some(subject) = &event.subject {
            map.serialize_entry("subject", subject)?;
        }
        // A time that no column holds was kept as it was sent, beside the nearest that is.
        match event.attributes.get("time") {
            Some(sent) if !is_countable(micros(event.time)) => map.serialize_entry("time", sent)?,
            _ => map.serialize_entry("time", &event.time)?,
        }
        for (name, value) in event.attributes.iter().filter(|(name, _)| *name != "time") {
            map.serialize_entry(name, value)?;
        }
        match Data::of(event) {
            None => {}
            Some(Data::Json(data)) => map.serialize_entry("data", data)?,
            Some(Data::Text(data)) => map.serialize_entry("data", data)?,
            Some(Data::Binary(data)) => {
                map.serialize_entry("data_base64", &BASE64_STANDARD.encode(data))?;
            }
        }
        map.end()
    }
}

enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    fn of(event: &'a StoredEvent) -> Option<Self> {
        let data = event.data.as_deref()?;
        let content_type = event.attributes.get("datacontenttype");
        let is_json = content_type.is_none_or(|content_type| is_json_media_type(content_type));
        let text = str::from_utf8(data).ok();
        Some(match text {
            // What claims to be JSON and is not would be read as a JSON text: bytes are true.
            Some(text) if is_json => {
                serde_json::from_str(text).map_or(Self::Binary(data), Self::Json)
            }
            Some(text) => Self::Text(text),
            None => Self::Binary(data),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stored(content_type: &str, data: &[u8]) -> StoredEvent {
        StoredEvent {
            id: "1".into(),
            source: "s".into(),
            event_type: "t".into(),
            subject: None,
            time: "2024-01-01T00:00:00Z".parse().unwrap(),
            data: Some(data.to_vec()),
            attributes: BTreeMap::from([("datacontenttype".into(), content_type.into())]),
            state: State::Conflict,
            error: Some("conflict: another".into()),
            ingested_at: "2024-01-01T00:00:01Z".parse().unwrap(),
            stored_at: "2024-01-01T00:00:02Z".parse().unwrap(),
        }
    }

    #[test]
    fn data_is_shown_as_it_was_sent() {
        for (content_type, data, shown) in [
            (
                "application/json",
                &br#"{"b": 1.50, "a":1e400}"#[..],
                r#""data":{"b": 1.50, "a":1e400}"#,
            ),
            ("application/json", b"{", r#""data_base64":"ew==""#),
            ("text/plain", b"a\"b", r#""data":"a\"b""#),
            ("application/xml", b"\xff", r#""data_base64":"/w==""#),
        ] {
            let event = stored(content_type, data);
            let text = serde_json::to_string(&Listed::new(&event)).unwrap();
            assert!(text.contains(shown), "{text}");
            assert!(text.contains(r#""validationError":"conflict: another","conflict":true,"#));
        }
    }

    #[test]
    fn a_time_is_shown_once_and_as_it_was_sent() {
        let mut event = stored("application/json", b"{}");
        event
            .attributes
            .insert("time".into(), "2450-06-01T12:00:00Z".into());
        let times = |event: &StoredEvent| {
            let text = serde_json::to_string(&Listed::new(event)).unwrap();
            let times = text
                .split(r#""time":""#)
                .skip(1)
                .map(|rest| rest[..20].to_owned());
            times.collect::<Vec<_>>()
        };
        assert_eq!(times(&event), ["2024-01-01T00:00:00Z"]);
        event.time = "2300-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(times(&event), ["2450-06-01T12:00:00Z"]);
    }

    #[test]
    fn every_mistake_of_the_list_is_named() {
        let problem = filter(Some("limit=0&from=x&customerId=1&ingestedAtFrom=2024-01-02T00:00:00Z&ingestedAtTo=2024-01-01T00:00:00Z")).unwrap_err();
        for name in ["limit", "from", "customerId", "ingestedAtFrom"] {
            assert!(problem.detail().unwrap().contains(name), "{problem}");
        }
        let all = filter(Some("id=a&subject=b&type=c&limit=7&clientId=x")).unwrap();
        assert_eq!((all.id.as_deref(), all.limit), (Some("a"), Some(7)));
    }
}
