//! Requests, and what becomes of them.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use stream::{
    CloudEvent, DecodeError,
    http::{self, Refused},
};

const LIMIT: usize = 1 << 20;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

/// The headers of a good event, with `more`, which replace those of the same name.
fn binary(more: &[(&str, &str)]) -> HeaderMap {
    let mut all = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "u-1"),
        ("ce-source", "/gw/eu-1"),
        ("ce-type", "api.request"),
    ]);
    let more = headers(more);
    more.keys().for_each(|name| drop(all.remove(name)));
    for (name, value) in &more {
        all.append(name, value.clone());
    }
    all
}

fn refused(headers: &HeaderMap, body: &str) -> Option<String> {
    match http::decode_one(headers, body.as_bytes()) {
        Ok(_) => None,
        Err(Refused::Malformed(DecodeError { field, .. })) => {
            Some(field.map_or_else(|| "-".to_owned(), Into::into))
        }
        Err(other) => Some(other.to_string()),
    }
}

#[test]
fn binary_mode_is_strict() {
    for (more, field) in [
        (&[("ce-specversion", "0.3")][..], "specversion"),
        (&[("ce-specversion", "")], "specversion"),
        (&[("ce-id", "")], "id"),
        (&[("ce-id", "a"), ("ce-id", "a")], "id"),
        (&[("ce-source", "")], "source"),
        (&[("ce-source", "/a b")], "source"),
        (&[("ce-type", "")], "type"),
        (&[("ce-subject", "")], "subject"),
        (&[("ce-subject", "%80")], "subject"),
        (&[("ce-subject", "%ED%A0%80")], "subject"),
        (&[("ce-subject", "a%00b")], "subject"),
        (&[("ce-time", "2026-01-31T10:20:30")], "time"),
        (&[("ce-time", "")], "time"),
        (&[("ce-dataschema", "no uri")], "dataschema"),
        (&[("ce-data", "x")], "data"),
        (&[("ce-my-ext", "x")], "my-ext"),
        (&[("ce-my.ext", "x")], "my.ext"),
        (&[("ce-", "x")], ""),
        (&[("ce-datacontenttype", "text/plain")], "datacontenttype"),
        (&[("content-type", "xyz")], "datacontenttype"),
    ] {
        assert_eq!(
            refused(&binary(more), "").as_deref(),
            Some(field),
            "{more:?}"
        );
    }
    let mut missing = binary(&[]);
    missing.remove("ce-specversion");
    assert_eq!(refused(&missing, "").as_deref(), Some("specversion"));
}

#[test]
fn header_values_are_unquoted_and_decoded_once() {
    for (sent, meant) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41%42", "AB"),
        ("%2541", "%41"),
        ("\"a b\"", "a b"),
        (r#""a \"b\" %41""#, r#"a "b" A"#),
        ("100%", "100%"),
        ("100%zz", "100%zz"),
        ("a+b", "a+b"),
        ("raw €", "raw €"),
        ("\"open", "\"open"),
        (
            "!#$&'()*+,-./:;<=>?@[]^_`{|}~",
            "!#$&'()*+,-./:;<=>?@[]^_`{|}~",
        ),
    ] {
        let event = http::decode_one(&binary(&[("ce-subject", sent)]), b"").unwrap();
        assert_eq!(event.subject(), Some(meant), "{sent}");
    }
}

#[test]
fn binary_data_is_not_touched() {
    let body = r#"{"n":12345678901234567890.123456789, "a":1,"a":2}"#;
    let json = [("content-type", "application/json; charset=utf-8")];
    let event = http::decode_one(&binary(&json), body.as_bytes()).unwrap();
    assert_eq!(event.data(), Some(body.as_bytes()));
    assert_eq!(
        event.data_content_type(),
        Some("application/json; charset=utf-8")
    );
    let broken = http::decode_one(&binary(&json), b"{oops").unwrap();
    assert_eq!(broken.data(), Some(&b"{oops"[..]));
    let bytes = http::decode_one(&binary(&[]), &[0, 0xff, 0x80]).unwrap();
    assert_eq!(bytes.data(), Some(&[0, 0xff, 0x80][..]));
    assert_eq!(bytes.data_content_type(), None);
    assert_eq!(http::decode_one(&binary(&[]), b"").unwrap().data(), None);
}

fn structured() -> HeaderMap {
    headers(&[(
        "content-type",
        "Application/CloudEvents+json; charset=UTF-8",
    )])
}

fn object(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"u-1","source":"/gw","type":"t"{members}}}"#)
}

#[test]
fn structured_mode_is_strict() {
    for (body, field) in [
        ("", "-"),
        ("[]", "-"),
        ("7", "-"),
        ("{\"id\": 1", "-"),
        (&(object("") + " x"), "-"),
        (r#"{"specversion":"1.0","source":"/gw","type":"t"}"#, "id"),
        (
            r#"{"specversion":null,"id":"a","source":"/gw","type":"t"}"#,
            "specversion",
        ),
        (
            r#"{"specversion":"1.0","id":5,"source":"/gw","type":"t"}"#,
            "id",
        ),
        (
            r#"{"specversion":"1.0","id":{},"source":"/gw","type":"t"}"#,
            "id",
        ),
        (&object(r#","id":"b""#), "id"),
        (&object(r#","subject":"""#), "subject"),
        (&object(r#","subject":"\ud800""#), "subject"),
        (&object(r#","time":"yesterday""#), "time"),
        (&object(r#","dataschema":"""#), "dataschema"),
        (&object(r#","datacontenttype":"xyz""#), "datacontenttype"),
        (&object(r#","MyExtension":"v""#), "MyExtension"),
        (&object(r#","ext":1.5"#), "ext"),
        (&object(r#","ext":2147483648"#), "ext"),
        (&object(r#","ext":[1]"#), "ext"),
        (&object(r#","ext":"a","ext":"a""#), "ext"),
        (&object(r#","data":1,"data":1"#), "data"),
        (&object(r#","data":1,"data_base64":"AAE=""#), "data"),
        (&object(r#","data_base64":5"#), "data_base64"),
        (&object(r#","data_base64":"!""#), "data_base64"),
        (
            &object(r#","datacontenttype":"text/plain","data":{"a":1}"#),
            "data",
        ),
    ] {
        assert_eq!(
            refused(&structured(), body).as_deref(),
            Some(field),
            "{body}"
        );
    }
}

#[test]
fn structured_data_keeps_its_text() {
    for (members, data) in [
        ("", None),
        (r#","data":null"#, None),
        (r#","data_base64":null"#, None),
        (
            r#","data": {"n": 12345678901234567890.123456789, "n": 1e2} "#,
            Some(r#"{"n": 12345678901234567890.123456789, "n": 1e2}"#),
        ),
        (r#","data":"x""#, Some(r#""x""#)),
        (
            r#","datacontenttype":"text/plain","data":"x\n""#,
            Some("x\n"),
        ),
        (
            r#","datacontenttype":"Application/JSON","data":{"a":1}"#,
            Some(r#"{"a":1}"#),
        ),
        (r#","data_base64":"eyJhIjoxfQ==""#, Some(r#"{"a":1}"#)),
    ] {
        let event = http::decode_one(&structured(), object(members).as_bytes()).unwrap();
        assert_eq!(event.data(), data.map(str::as_bytes), "{members}");
    }
}

#[test]
fn json_data_says_so_once_it_leaves_its_format() {
    for (members, content_type) in [
        (r#","data":{"a":1}"#, Some("application/json")),
        (r#","data_base64":"eyJhIjoxfQ==""#, None),
        (
            r#","datacontenttype":"application/vnd.x+json","data":1"#,
            Some("application/vnd.x+json"),
        ),
        ("", None),
    ] {
        let event = http::decode_one(&structured(), object(members).as_bytes()).unwrap();
        let (headers, _) = http::encode(&event).unwrap();
        let sent = headers
            .get("content-type")
            .map(|value| value.to_str().unwrap());
        assert_eq!(sent, content_type, "{members}");
    }
}

#[test]
fn attributes_in_json_are_taken_as_they_are() {
    let body = object(r#","subject":"a%20b €","n":-7,"f":true,"none":null,"t":"\u0041""#);
    let event = http::decode_one(&structured(), body.as_bytes()).unwrap();
    assert_eq!(event.subject(), Some("a%20b €"));
    for (name, text) in [
        ("n", Some("-7")),
        ("f", Some("true")),
        ("none", None),
        ("t", Some("A")),
    ] {
        assert_eq!(event.attribute(name).as_deref(), text, "{name}");
    }
}

#[test]
fn the_body_of_structured_mode_is_the_event_whatever_the_headers_say() {
    let more = [("content-type", "application/cloudevents+json")];
    let event = http::decode_one(&binary(&more), object("").as_bytes()).unwrap();
    assert_eq!(event.source(), "/gw");
}

#[test]
fn a_wrapped_record_is_told_from_an_event_of_its_type() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let wrapped = [("ce-type", "dev.knative.kafka.event")];
    let reason = http::decode_record(&binary(&wrapped), b"junk", now).unwrap_err();
    assert!(reason.to_string().contains("no CloudEvent"), "{reason}");
    let accepted = [wrapped[0], ("ce-ingestedat", "2026-01-31T10:20:30.000001Z")];
    let event = http::decode_record(&binary(&accepted), b"junk", now).unwrap();
    assert_eq!(event.event_type, "dev.knative.kafka.event");
    assert_eq!(event.ingested_at.to_string(), "2026-01-31T10:20:30.000001Z");
    // Sent past ingest: it is counted, as by pull, and the stand-in says when it was taken.
    let foreign = http::decode_record(&binary(&[]), b"{}", now).unwrap();
    assert_eq!((foreign.ingested_at, foreign.time), (now, now));
}

#[test]
fn every_mistake_in_a_batch_has_its_place() {
    let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
    let body = format!("[{}, 5, {}]", object(""), object(r#","time":1"#));
    let events = http::decode(&batch, body.as_bytes(), LIMIT).unwrap();
    let places: Vec<_> = events
        .each
        .iter()
        .map(|event| {
            event
                .as_ref()
                .err()
                .map(|error| (error.index, error.field.as_deref()))
        })
        .collect();
    assert_eq!(
        places,
        [None, Some((Some(1), None)), Some((Some(2), Some("time")))]
    );
    assert!(http::decode(&batch, b"[]", LIMIT).unwrap().each.is_empty());
    for body in ["{}", "", "[1", "[] x"] {
        assert!(
            http::decode(&batch, body.as_bytes(), LIMIT).is_err(),
            "{body}"
        );
    }
    assert!(http::decode_one(&batch, b"[]").is_err());
}

#[test]
fn json_that_does_not_say_what_it_is_is_an_event_or_an_array() {
    assert_eq!(
        http::decode_json(object("").as_bytes(), LIMIT)
            .unwrap()
            .each
            .len(),
        1
    );
    let two = format!(" [{0},{0}]", object(""));
    assert_eq!(
        http::decode_json(two.as_bytes(), LIMIT).unwrap().each.len(),
        2
    );
}

#[test]
fn what_is_no_event_is_told_from_what_is_a_bad_one() {
    for content_type in [
        "application/json",
        "text/plain",
        "application/cloudevents+xml",
    ] {
        let headers = headers(&[("content-type", content_type)]);
        assert_eq!(
            http::decode(&headers, b"{}", LIMIT),
            Err(Refused::ContentType),
            "{content_type}"
        );
    }
    assert_eq!(
        http::decode(&HeaderMap::new(), b"", LIMIT),
        Err(Refused::ContentType)
    );
}

#[test]
fn one_large_event_is_found_in_a_batch() {
    let large = object(&format!(r#","data":"{}""#, "x".repeat(100)));
    let body = format!("[{},{large}]", object(""));
    let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
    assert!(matches!(
        http::decode(&batch, body.as_bytes(), 100),
        Err(Refused::TooLarge {
            index: Some(1),
            limit: 100,
            ..
        })
    ));
    assert!(http::decode(&batch, body.as_bytes(), LIMIT).is_ok());
}

#[test]
fn attributes_are_encoded_for_headers() {
    for (subject, sent) in [
        ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("say \"x\"", "say%20%22x%22"),
        ("100%", "100%25"),
        ("~!'()*", "~!'()*"),
    ] {
        let event = CloudEvent::new("1", "s", "t").with_subject(subject);
        let (headers, body) = http::encode(&event).unwrap();
        assert_eq!(headers["ce-subject"], sent, "{subject}");
        assert!(body.is_empty());
        assert!(!headers.contains_key("content-type"));
    }
}

#[test]
fn an_event_has_as_many_extensions_as_headers_can_say() {
    let json = |count: usize| {
        let mut text = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#.to_owned();
        (0..count).for_each(|i| text.push_str(&format!(r#","x{i}":1"#)));
        text + r#","ingestedat":"2026-01-31T10:20:30Z"}"#
    };
    let decode = |text: &str| {
        let events = http::decode_json(text.as_bytes(), LIMIT).unwrap();
        events.each.into_iter().next().unwrap()
    };
    // What ingest adds is not counted, so that its record is an event too, nor is what Knative
    // adds on its way to process.
    let mut full = decode(&json(64)).unwrap();
    full.stamp(jiff::Timestamp::UNIX_EPOCH);
    crate::kafka::decode(&stream::kafka::encode(&full)).unwrap();
    let delivered = full
        .clone()
        .with_extension("knativekafkapartition", "0")
        .with_extension("knativekafkaoffset", "7");
    let (headers, body) = http::encode(&delivered).unwrap();
    http::decode_one(&headers, &body).unwrap();

    let reason = "has more than 64 extension attributes";
    assert_eq!(decode(&json(65)).unwrap_err().to_string(), reason);
    let over = full.with_extension("y", "1");
    let dead = crate::kafka::decode(&stream::kafka::encode(&over));
    assert_eq!(dead.unwrap_err().to_string(), reason);

    // One that has all that fits into its megabyte is no work.
    let started = std::time::Instant::now();
    assert_eq!(decode(&json(90_000)).unwrap_err().to_string(), reason);
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
}

#[test]
fn a_name_of_any_length_is_told_in_short() {
    let name = "é".repeat(10_000);
    let text = format!(r#"{{"{name}":{{}}}}"#);
    let events = http::decode_json(text.as_bytes(), LIMIT).unwrap();
    let error = events.each[0].as_ref().unwrap_err().to_string();
    assert!(
        error.starts_with(r"\u{e9}\u{e9}") && error.len() < 400,
        "{error}"
    );
}

#[test]
fn an_event_does_not_carry_another_as_its_data() {
    let text = r#"{"specversion":"1.0","id":"1","source":"s","type":"t",
        "datacontenttype":"application/cloudevents+json","data":{"specversion":"1.0"}}"#;
    let events = http::decode_json(text.as_bytes(), LIMIT).unwrap();
    let error = events.each[0].as_ref().unwrap_err();
    assert_eq!(error.field.as_deref(), Some("datacontenttype"));
}

#[test]
fn more_attributes_than_headers_can_be_are_an_error() {
    let mut event = CloudEvent::new("1", "/gw", "t");
    for index in 0..30_000 {
        event = event.with_extension(&format!("x{index}"), "1");
    }
    let error = http::into_request(event).unwrap_err();
    assert!(matches!(error, http::EncodeError::Number(_)), "{error}");
}
