//! What holds for any event and any bytes.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use model::UsageEvent;
use proptest::prelude::*;
use stream::{CloudEvent, http, kafka};

use crate::kafka::decode;

fn text() -> impl Strategy<Value = String> {
    // Text that CloudEvents allows: no control characters.
    "[^\\pC]{1,12}"
}

fn event() -> impl Strategy<Value = CloudEvent> {
    let attributes = (
        text(),
        "/?[a-zA-Z0-9._~é-]{1,8}(%[0-9A-F]{2})?(/[a-z:]{0,3})?(\\?[a-z/?:]{0,3})?(#[a-z]{0,2})?",
        text(),
        prop::option::of(text()),
    );
    let time = prop::option::of((-62_167_219_200_i64..253_370_764_800, 0..1_000_000_000_i32));
    let extensions = prop::collection::btree_map("x[a-z0-9]{0,8}", prop::option::of(text()), 0..4);
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 1..64));
    (attributes, time, extensions, data).prop_map(
        |((id, source, event_type, subject), time, extensions, data)| {
            let mut event = CloudEvent::new(id, source, event_type);
            if let Some(subject) = subject {
                event = event.with_subject(subject);
            }
            if let Some((seconds, nanoseconds)) = time {
                event = event.with_time(Timestamp::new(seconds, nanoseconds).unwrap());
            }
            for (name, value) in extensions {
                event = event.with_extension(&name, value.unwrap_or_default());
            }
            match data {
                Some(data) => event.with_data("application/octet-stream; a=b", data),
                None => event,
            }
        },
    )
}

/// JSON format is only ever read by us, so the test writes it.
fn json(event: &CloudEvent) -> String {
    use std::fmt::Write as _;
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let mut members = String::new();
    let (headers, _) = http::encode(event).unwrap();
    for name in headers.keys().map(HeaderName::as_str) {
        let name = match name {
            "content-type" => "datacontenttype",
            _ => name.strip_prefix("ce-").unwrap(),
        };
        write!(
            members,
            "{}: {},",
            quoted(name),
            quoted(&event.attribute(name).unwrap())
        )
        .unwrap();
    }
    let data = event
        .data()
        .map_or_else(|| "null".to_owned(), |data| quoted(&base64(data)));
    format!("{{{members} \"data_base64\": {data}}}")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |group: &[u8]| {
        let word = (0..3).fold(0_u32, |word, i| {
            word << 8 | u32::from(*group.get(i).unwrap_or(&0))
        });
        (0..4)
            .map(|i| match i <= group.len() {
                true => char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

/// Times as senders write them, most of them near the ends of what can be said.
fn time() -> impl Strategy<Value = String> {
    let year = prop_oneof![Just(0), Just(1), Just(9998), Just(9999), 0..10_000_u16];
    let day = prop_oneof![Just("01-01"), Just("06-30"), Just("12-30"), Just("12-31")];
    let hour = prop_oneof![Just(0), Just(23), 0..24_u8];
    let offset = prop_oneof![
        Just("Z".to_owned()),
        "[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"
    ];
    let fraction = prop_oneof![Just(String::new()), r"\.[0-9]{1,12}"];
    (year, day, hour, fraction, offset).prop_map(|(year, day, hour, fraction, offset)| {
        format!("{year:04}-{day}T{hour:02}:59:59{fraction}{offset}")
    })
}

/// What process takes of an event that a KafkaSource delivers in a request.
fn delivered(event: &CloudEvent) -> UsageEvent {
    let (headers, body) = http::encode(event).unwrap();
    http::decode_record(&headers, &body, Timestamp::UNIX_EPOCH).unwrap()
}

/// JSON that may be an event.
fn json_event() -> impl Strategy<Value = String> {
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    let content_type = prop_oneof![
        Just("application/json".to_owned()),
        Just("text/plain; charset=utf-8".to_owned()),
        Just("application/cloudevents+json".to_owned()),
        Just("Application/CloudEvents+JSON ; a=b".to_owned()),
        Just("application/cloudevents-batch+json".to_owned()),
    ];
    let member = prop_oneof![
        4 => time().prop_map(move |time| format!(r#""time": "{time}""#)),
        1 => text().prop_map(move |text| format!(r#""subject": {}"#, quoted(text))),
        2 => content_type.prop_map(|it| format!(r#""datacontenttype": "{it}""#)),
        1 => text().prop_map(|it| format!(r#""dataschema": "a:{}""#, it.replace(['"', '\\'], ""))),
        1 => r#""x[a-z0-9]{0,3}": ("[a-z]{0,3}"|-?[0-9]{1,10}|true|false|null)"#,
        1 => r#""data": (\{"a": ?[0-9]\}|"[a-z]{0,3}"|[0-9]{1,3}|null)"#,
        1 => r#""data_base64": "([a-z]{4}){0,2}""#,
    ];
    prop::collection::vec(member, 0..5).prop_map(|members| {
        let given = r#""specversion": "1.0", "id": "1", "source": "s", "type": "t""#;
        format!(
            "{{{}}}",
            [vec![given.to_owned()], members].concat().join(", ")
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_accepted_is_an_event_when_it_is_read(text in json_event()) {
        let events = http::decode_json(text.as_bytes(), 1 << 20).unwrap();
        if let Some(Ok(mut event)) = events.each.into_iter().next() {
            event.stamp("2026-01-31T10:20:30.000001Z".parse().unwrap());
            let read = decode(&kafka::encode(&event)).map_err(|error| error.to_string());
            prop_assert_eq!(read, Ok(delivered(&event)));
        }
    }
}

proptest! {
    #[test]
    fn binary_mode_gives_back_what_it_was_given(event in event()) {
        let (headers, body) = http::encode(&event).unwrap();
        prop_assert_eq!(&http::decode_one(&headers, &body).unwrap(), &event);
    }

    #[test]
    fn structured_mode_gives_back_what_it_was_given(event in event()) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(http::STRUCTURED));
        let decoded = http::decode_one(&headers, json(&event).as_bytes()).unwrap();
        prop_assert_eq!(&decoded, &event);
    }

    #[test]
    fn a_record_gives_back_what_http_gives(mut event in event()) {
        let accepted_at: Timestamp = "2026-01-31T10:20:30.000001Z".parse().unwrap();
        event.stamp(accepted_at);
        let from_record = decode(&kafka::encode(&event)).unwrap();
        prop_assert_eq!(&from_record, &delivered(&event));
        prop_assert_eq!(from_record.ingested_at, accepted_at);
        let data = event.data().filter(|data| !data.is_empty());
        prop_assert_eq!(from_record.data.as_deref(), data);
    }

    #[test]
    fn no_request_makes_it_panic(
        headers in prop::collection::vec(
            ("(ce-|ce_|)(id|source|type|specversion|time|data|x|-|)|content-type", any::<Vec<u8>>()),
            0..8,
        ),
        body in any::<Vec<u8>>(),
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
            {
                map.append(name, value);
            }
        }
        let _decoded = http::decode(&map, &body, 1 << 20);
        for content_type in [http::STRUCTURED, http::BATCH] {
            map.insert("content-type", HeaderValue::from_static(content_type));
            let _decoded = http::decode(&map, &body, 1 << 20);
        }
        let _decoded = http::decode_json(&body, 1 << 20);
    }

    #[test]
    fn no_json_makes_it_panic(
        members in prop::collection::vec(
            (
                "id|source|type|specversion|time|data|data_base64|datacontenttype|[a-z]{1,3}",
                r#""[^"]{0,5}"|null|-?[0-9]{1,12}(\.[0-9])?|\{\}|\[1\]|"\\u[0-9a-f]{4}"|"\\[a-z]"#,
            ),
            0..8,
        ),
    ) {
        let members: Vec<_> =
            members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        let _decoded = http::decode_json(format!("{{{}}}", members.join(",")).as_bytes(), 1 << 20);
    }

    #[test]
    fn no_record_makes_it_panic(
        headers in prop::collection::vec(
            (
                "(ce_|)(id|source|type|specversion|time|data|x|-|)|content-type",
                prop::option::of(any::<Vec<u8>>()),
            ),
            0..8,
        ),
        value in prop::option::of(any::<Vec<u8>>()),
    ) {
        let _decoded = decode(&stream::Record { key: None, headers, value });
    }
}
