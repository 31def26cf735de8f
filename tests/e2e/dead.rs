//! What nobody can take is buried and its partition goes on; it is listed, and sent once more
//! without being counted twice.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::join_all;
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;
use stream::{CloudEvent, DeadRecord, DecodeError, Graves, KafkaConfig, Producer, Record, kafka};
use tests::stack::Stack;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{
    binaries::binary,
    support::{METERS, call, total, totals},
};

fn broker() -> String {
    std::env::var("OPENMETER_KAFKA_BROKER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned())
}

#[tokio::test]
async fn a_record_that_is_no_event_does_not_stop_its_partition() {
    let stack = Stack::start(METERS).await.unwrap();
    let kafka = KafkaConfig::new(vec![broker()]);
    let producer = Producer::connect(&kafka, 1 << 20).unwrap();
    for value in [Some(b"not an event".to_vec()), None, Some(vec![0xff; 10])] {
        // Some in each partition.
        for key in 0..8_u8 {
            let record = Record {
                key: Some(vec![key]),
                headers: Vec::new(),
                value: value.clone(),
            };
            producer.send_record(stack.name(), &record).await.unwrap();
        }
    }
    stack
        .post_events(&[call("1", "tpp-1", "2024-01-15T10:30:00Z", 1)])
        .await
        .unwrap();
    stack.wait_until_counted(25).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "1");

    let mut dead = kafka;
    dead.topic = format!("{}.dead", stack.name());
    let mut graves = stream::Consumer::connect(&dead, &format!("{}.graves", stack.name())).unwrap();
    let mut found = 0;
    while found < 24 {
        let limits = stream::BatchLimits::default();
        let batch = tokio::time::timeout(Duration::from_secs(20), graves.next_batch(limits)).await;
        found += batch.expect("24 dead records").unwrap().len();
    }
    assert_eq!(found, 24);
    graves.close().await;
    stack.stop().await.unwrap();
}

/// Bytes that no compression makes fewer.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A header of a buried record.
fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

#[tokio::test]
async fn records_as_large_as_kafka_takes_are_buried_and_do_not_stop_the_count() {
    let stack = Stack::start(METERS).await.unwrap();
    // Not ours: it takes what the broker takes, which looks at what compression makes of it.
    let foreign: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("message.max.bytes", (16 << 20).to_string())
        .set("compression.type", "lz4")
        .create()
        .unwrap();
    let full = noise((2 << 20) - 100);
    let blown_up = vec![b'x'; 8 << 20];
    for (key, value) in [("full", &full), ("blown up", &blown_up)] {
        let record = FutureRecord::to(stack.name()).key(key).payload(value);
        foreign.send(record, Duration::from_secs(10)).await.unwrap();
    }
    let long_key = vec![b'k'; 4 << 20];
    let record = FutureRecord::<_, [u8]>::to(stack.name()).key(&long_key);
    foreign.send(record, Duration::from_secs(10)).await.unwrap();
    stack
        .post_events(&[call("1", "tpp-1", "2024-01-15T10:30:00Z", 1)])
        .await
        .unwrap();
    stack.wait_until_counted(4).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "1");

    let topic = format!("{}.dead", stack.name());
    let found = tokio::task::spawn_blocking(move || {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker())
            .set("group.id", &topic)
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let metadata = reader.fetch_metadata(Some(&topic), Duration::from_secs(10));
        let mut all = TopicPartitionList::new();
        for partition in metadata.unwrap().topics()[0].partitions() {
            all.add_partition(&topic, partition.id());
        }
        reader.assign(&all).unwrap();
        let read = |_| {
            let message = reader.poll(Duration::from_secs(20)).expect("a dead record");
            let message = message.unwrap();
            assert_eq!(
                header(&message, "openmeter-dead-reason").as_deref(),
                Some("specversion is required")
            );
            assert!(header(&message, "openmeter-dead-offset").is_some());
            let truncated = header(&message, "openmeter-dead-truncated");
            let own = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
            (own(message.key()), own(message.payload()), truncated)
        };
        (0..3).map(read).collect::<Vec<_>>()
    })
    .await
    .unwrap();
    for (key, value, truncated) in found {
        match &key[..] {
            b"full" => assert!(value == full && truncated.is_none()),
            b"blown up" => {
                assert!(value.len() > 2 << 20 && blown_up.starts_with(&value));
                assert_eq!(truncated, Some((blown_up.len() + key.len()).to_string()));
            }
            _ => {
                assert!(long_key.starts_with(&key) && value.is_empty());
                assert_eq!(truncated, Some(long_key.len().to_string()));
            }
        }
    }
    stack.stop().await.unwrap();
}

/// What is needed to write to a stack's topics of the dead.
struct Undertaker {
    kafka: KafkaConfig,
    producer: Producer,
    settings: Vec<(&'static str, String)>,
}

impl Undertaker {
    fn of(stack: &Stack) -> Self {
        let mut kafka = KafkaConfig::new(vec![broker()]);
        kafka.topic = stack.name().to_owned();
        kafka.dead_topic = format!("{}.dead", stack.name());
        kafka.ingest_dead_topic = format!("{}.ingest.dead", stack.name());
        let producer = Producer::connect(&kafka, 64 << 20).unwrap();
        Self {
            kafka,
            producer,
            settings: stack.settings(),
        }
    }

    /// Writes what a KafkaSink that is a dead letter sink writes of `event`.
    async fn sink(&self, topic: &str, event: &CloudEvent, code: u16, said: &str) {
        let mut record = kafka::encode(event);
        // It knows no identities.
        record.key = None;
        for (name, text) in [
            (
                "ce_knativeerrordest",
                "http://function.open-banking.svc.cluster.local",
            ),
            ("ce_knativeerrorcode", &code.to_string()),
            ("ce_knativeerrordata", &BASE64_STANDARD.encode(said)),
        ] {
            record
                .headers
                .push((name.to_owned(), Some(text.as_bytes().to_vec())));
        }
        self.producer.send_record(topic, &record).await.unwrap();
    }

    /// Returns the program that replays, with the settings of the stack's ingest.
    fn replay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("replay-dead-letters"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.settings.clone())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end and returns its last line.
    async fn replayed(&self, arguments: &[&str]) -> String {
        let output = self.replay(arguments).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        text.lines().last().unwrap().to_owned()
    }
}

/// An event as a gateway sends it.
fn sent(id: &str) -> CloudEvent {
    let data = r#"{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":10}"#;
    CloudEvent::new(id, "open-banking-api", "api.call")
        .with_subject("tpp-1")
        .with_data("application/json", data)
}

/// An event as ingest accepts it.
fn accepted(id: &str) -> CloudEvent {
    let mut event = sent(id).with_time("2024-01-15T10:30:00Z".parse().unwrap());
    event.stamp(jiff::Timestamp::now());
    event
}

/// All pages of the list, newest first.
async fn letters(stack: &Stack, limit: usize) -> Vec<Value> {
    let mut letters = Vec::new();
    let mut parameters = vec![("limit".to_owned(), limit.to_string())];
    loop {
        let page = stack
            .get("/api/v1/dead-letters", &parameters, "application/json")
            .await;
        let page = page.unwrap().accepted().unwrap().json().unwrap();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        letters.extend(items.iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else {
            return letters;
        };
        parameters.truncate(1);
        parameters.push(("cursor".to_owned(), next.to_owned()));
    }
}

/// The letter of an event; of none if `id` is null.
fn letter_of<'a>(letters: &'a [Value], id: &str) -> &'a Value {
    let found = letters.iter().find(|letter| letter["event"]["id"] == id);
    found.unwrap_or_else(|| panic!("{id} in {letters:#?}"))
}

#[tokio::test]
async fn dead_letters_are_listed_with_their_causes_and_counted_once_when_sent_again() {
    let stack = Stack::start(METERS).await.unwrap();
    let dead = Undertaker::of(&stack);
    let (of_events, of_ingest) = (&dead.kafka.dead_topic, &dead.kafka.ingest_dead_topic);

    // Pull buries a record that is none, and an event that ClickHouse will not have.
    let garbage = Record {
        key: None,
        headers: vec![("trace".to_owned(), Some(vec![0xff]))],
        value: Some(vec![0xff; 2000]),
    };
    dead.producer
        .send_record(stack.name(), &garbage)
        .await
        .unwrap();
    stack.wait_until_counted(1).await.unwrap();
    let unstorable = DecodeError::whole("cannot be stored");
    let unstorable = DeadRecord::new(3, 7, unstorable, kafka::encode(&accepted("unstorable")));
    let graves = Graves::connect(&dead.kafka, 1 << 20).unwrap();
    graves.bury(stack.name(), &[unstorable]).await.unwrap();
    // A KafkaSource wraps the one and delivers the other.
    let problem =
        r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"too odd","ext"#;
    let wrapped = CloudEvent::new(
        "partition:1/offset:5",
        "/kafkasources/process",
        "dev.knative.kafka.event",
    )
    .with_extension("kafkaheadertrace", "x")
    .with_bytes("not an event");
    dead.sink(of_events, &wrapped, 400, problem).await;
    dead.sink(of_events, &accepted("pushed"), 400, problem)
        .await;
    // A broker cannot deliver to ingest what ingest cannot take, or not for a day.
    // Knative keeps the text that the gateway put into a header.
    let undelivered = sent("undelivered").with_subject("M%C3%BCnchen");
    dead.sink(of_ingest, &undelivered, 503, "no healthy upstream")
        .await;
    dead.sink(of_ingest, &CloudEvent::new("", "/gw", "t"), 400, problem)
        .await;
    // One of them was counted all the same: its answer was lost.
    dead.producer.send(vec![accepted("counted")]).await.unwrap();
    dead.sink(of_events, &accepted("counted"), 503, "").await;
    stack.wait_until_counted(2).await.unwrap();

    let listed = letters(&stack, 100).await;
    assert_eq!(listed.len(), 7, "{listed:#?}");
    let time = |letter: &Value| {
        letter["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert!(listed.is_sorted_by(|one, next| time(one) >= time(next)));
    assert_eq!(letters(&stack, 2).await, listed, "page by page");
    let unstorable = letter_of(&listed, "unstorable");
    assert_eq!(unstorable["cause"]["message"], "cannot be stored");
    assert_eq!(
        unstorable["cause"]["record"],
        format!("{}/3/7", stack.name())
    );
    assert_eq!(unstorable["replay"], "pending");
    let pushed = letter_of(&listed, "pushed");
    assert_eq!(pushed["topic"], **of_events);
    assert_eq!(pushed["event"]["subject"], "tpp-1");
    assert_eq!(
        pushed["cause"]["destination"],
        "http://function.open-banking.svc.cluster.local"
    );
    assert_eq!(pushed["cause"]["code"], 400);
    assert_eq!(pushed["cause"]["message"], "too odd");
    assert!(
        pushed["data"]
            .as_str()
            .unwrap()
            .starts_with(r#"{"endpoint""#)
    );
    let undelivered = letter_of(&listed, "undelivered");
    assert_eq!(undelivered["topic"], **of_ingest);
    assert_eq!(undelivered["cause"]["message"], "no healthy upstream");
    let none: Vec<_> = listed
        .iter()
        .filter(|letter| letter["event"].is_null())
        .collect();
    assert_eq!(none.len(), 3, "{none:#?}");
    assert!(none.iter().all(|letter| letter["replay"] == "impossible"));
    let garbage = none.iter().find(|letter| letter["size"] == 2000).unwrap();
    assert_eq!(garbage["cause"]["message"], "specversion is required");
    assert!(garbage["data_base64"].as_str().unwrap().len() < 2000);
    let wrapped = none
        .iter()
        .find(|letter| letter["data"] == "not an event")
        .unwrap();
    assert_eq!(wrapped["cause"]["message"], "too odd");

    // To look at them changes nothing.
    let last = dead.replayed(&["--dry-run"]).await;
    assert_eq!(
        last,
        "3 sent, 1 ingested, 0 refused, 3 impossible (dry run)"
    );
    assert_eq!(letters(&stack, 100).await, listed);
    let counted = ["4".to_owned(), "40".to_owned()];
    for (arguments, last, records) in [
        (&[][..], "3 sent, 1 ingested, 0 refused, 3 impossible", 6),
        (&[], "0 sent, 0 ingested, 0 refused, 0 impossible", 6),
        (
            &["--all"],
            "3 sent, 1 ingested, 0 refused, 3 impossible",
            10,
        ),
    ] {
        assert_eq!(dead.replayed(arguments).await, last);
        stack.wait_until_counted(records).await.unwrap();
        assert_eq!(totals(&stack).await, counted, "{arguments:?}");
    }
    for letter in letters(&stack, 100).await {
        let replay = if letter["event"].is_null() {
            "impossible"
        } else {
            "done"
        };
        assert_eq!(letter["replay"], replay, "{letter}");
    }
    let events = crate::support::listed(&stack).await;
    assert_eq!(events.len(), 4);
    let subject = |event: &Value| event["event"]["subject"].as_str().unwrap().to_owned();
    let subjects: BTreeSet<String> = events.iter().map(subject).collect();
    assert_eq!(
        subjects,
        BTreeSet::from(["M\u{fc}nchen".to_owned(), "tpp-1".to_owned()])
    );
    assert!(events.iter().all(|event| event.get("conflict").is_none()));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_replay_that_was_killed_is_made_again_and_the_totals_are_equal() {
    const LETTERS: usize = 1500;
    let stack = Stack::start(METERS).await.unwrap();
    let dead = Undertaker::of(&stack);
    let ids: Vec<_> = (0..LETTERS).map(|id| id.to_string()).collect();
    let to_ingest: Vec<_> = ids.iter().map(|id| sent(&format!("i{id}"))).collect();
    let to_process: Vec<_> = ids.iter().map(|id| accepted(&format!("p{id}"))).collect();
    let of_ingest = to_ingest.iter().map(|event| {
        dead.sink(
            &dead.kafka.ingest_dead_topic,
            event,
            503,
            "no healthy upstream",
        )
    });
    let of_process = to_process
        .iter()
        .map(|event| dead.sink(&dead.kafka.dead_topic, event, 400, "no"));
    tokio::join!(join_all(of_ingest), join_all(of_process));

    let mut killed = dead.replay(&[]).spawn().unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("replayed so far") {
            break;
        }
    }
    killed.kill().await.unwrap();
    let left = letters(&stack, 1000).await;
    assert_eq!(left.len(), 2 * LETTERS);
    let pending = left
        .iter()
        .filter(|letter| letter["replay"] == "pending")
        .count();
    assert!((1..2 * LETTERS).contains(&pending), "{pending} are pending");

    let expected = [2 * LETTERS, 20 * LETTERS].map(|total| total.to_string());
    for arguments in [&[][..], &["--all"]] {
        let last = dead.replayed(arguments).await;
        assert!(last.ends_with("0 refused, 0 impossible"), "{last}");
        stack.wait_until_counted(2 * LETTERS as u64).await.unwrap();
        assert_eq!(totals(&stack).await, expected, "{last}");
    }
    stack.stop().await.unwrap();
}
