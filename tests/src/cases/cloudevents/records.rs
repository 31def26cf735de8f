//! Kafka records into events, and events into records: what a Broker writes, what process reads,
//! and what a KafkaSource makes of a record that is no event.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use stream::{CloudEvent, KafkaConfig, Record, kafka};

use super::{
    super::{
        file::{Case, Failure, Fields},
        report::Outcome,
    },
    expected::{self, Allowed, same_bytes},
    needed_object,
    objects::{broker, source},
    wire::{Behaviour, SUBSCRIBER},
    world::{self, World, namespace},
};

const BROKER: &str = "records";

/// How long Kafka may take for one record.
const WITHIN: Duration = Duration::from_secs(10);
/// The largest offset of a case: as many records are written before it.
const MAX_OFFSET: i64 = 1000;

/// What a case asks of Knative.
pub(super) enum Question {
    /// A Broker writes an event.
    Written(Box<CloudEvent>, Fields),
    /// A KafkaSource reads a record.
    Wrapped(Box<Foreign>, Fields),
}

/// A record that is no event.
pub(super) struct Foreign {
    topic: String,
    partition: u16,
    offset: i64,
    record: Record,
}

/// Reads a case of `kafka_binding`; what asks nothing of Knative has its outcome at once.
pub(super) fn read(case: &Case<'_>) -> Result<Question, Outcome> {
    case.only(&["record", "event", "expect"])?;
    let wanted = needed_object(case, "expect")?;
    match (case.object("record")?, case.object("event")?) {
        (Some(record), None) if record.contains_key("topic") => {
            let known = ["type", "source", "id", "subject", "extensions"];
            expected::only(wanted, &known)?;
            Ok(Question::Wrapped(
                Box::new(Foreign::read(record)?),
                wanted.clone(),
            ))
        }
        (Some(record), None) => Err(decoded(record, wanted).into()),
        (None, Some(event)) => {
            expected::only(wanted, &["key", "headers", "absent", "value"])?;
            Ok(Question::Written(
                Box::new(expected::event(event)?),
                wanted.clone(),
            ))
        }
        _ => Err(Failure::malformed("has not one of `record` and `event`").into()),
    }
}

impl Foreign {
    fn read(fields: &Fields) -> Result<Self, Failure> {
        expected::only(
            fields,
            &["topic", "partition", "offset", "key", "headers", "value"],
        )?;
        let malformed = || Failure::malformed(format!("a record {fields:?}"));
        let number = |name: &str| {
            fields
                .get(name)
                .and_then(Value::as_i64)
                .ok_or_else(malformed)
        };
        let bytes = |name: &str| fields.get(name).map(expected::bytes).transpose();
        let partition = u16::try_from(number("partition")?).map_err(|_| malformed())?;
        let offset = number("offset")?;
        if !(0..=MAX_OFFSET).contains(&offset) {
            return Err(malformed());
        }
        let topic = fields.get("topic").and_then(Value::as_str);
        Ok(Self {
            topic: topic.ok_or_else(malformed)?.to_owned(),
            partition,
            offset,
            record: Record {
                key: bytes("key")?.flatten(),
                headers: headers(fields)?,
                value: bytes("value")?.flatten(),
            },
        })
    }
}

type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

fn headers(record: &Fields) -> Result<RecordHeaders, Failure> {
    let headers = record.get("headers").and_then(Value::as_object);
    let headers = headers.ok_or_else(|| Failure::malformed("a record has no `headers`"))?;
    let header = |(name, value): (&String, _)| Ok((name.clone(), expected::bytes(value)?));
    headers.iter().map(header).collect()
}

fn decoded(record: &Fields, wanted: &Fields) -> Result<(), Failure> {
    expected::only(record, &["headers", "value"])?;
    expected::only(wanted, &["result", "attributes"])?;
    let headers = headers(record)?;
    let headers = headers
        .iter()
        .map(|(name, value)| (&**name, value.as_deref()));
    let value = record.get("value").map(expected::bytes).transpose()?;
    let event = kafka::decode(headers, value.flatten().as_deref(), Timestamp::UNIX_EPOCH)
        .map_err(|error| error.to_string());
    Allowed::of(wanted)?.judge(event, |event| {
        expected::attributes(wanted.get("attributes"), |name| match name {
            "specversion" => Some("1.0".to_owned()),
            "id" => Some(event.id.clone()),
            "source" => Some(event.source.clone()),
            "type" => Some(event.event_type.clone()),
            "subject" => event.subject.clone(),
            "time" => Some(event.time.to_string()),
            name => event.attributes.get(name).cloned(),
        })
    })
}

/// Answers all questions with one Broker, and a KafkaSource for each record that is no event.
pub(super) async fn run(
    questions: Vec<(usize, Question)>,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = namespace();
    let mut objects = broker(&namespace, BROKER, &world::kafka());
    for (index, question) in &questions {
        if let Question::Wrapped(foreign, _) = question {
            let name = source_name(*index);
            let topic = topic(&namespace, *index);
            create(&topic, foreign.partition + 1).await?;
            let sink = json!({"uri": format!("http://{SUBSCRIBER}/{name}")});
            objects.push(source(&namespace, &name, &world::kafka(), &topic, sink));
        }
    }
    let world = World::start(&objects, Box::new(|_| Behaviour::done())).await?;
    let mut outcomes = Vec::new();
    let mut written = 0;
    for (index, question) in questions {
        let result = match question {
            Question::Written(event, wanted) => {
                let record = write(&world, &namespace, &event, &mut written).await;
                record.map(|record| same_record(&wanted, &record))
            }
            Question::Wrapped(foreign, wanted) => {
                wrap(&world, &namespace, index, &foreign, &wanted).await
            }
        };
        let result = result.unwrap_or_else(|error| Err(error.into()));
        outcomes.push((index, result.into()));
    }
    world.stop().await;
    Ok(outcomes)
}

fn source_name(index: usize) -> String {
    format!("source-{index}")
}

fn topic(namespace: &str, index: usize) -> String {
    format!("{namespace}-{index}")
}

async fn create(topic: &str, partitions: u16) -> anyhow::Result<()> {
    let mut config = KafkaConfig::new(vec![world::kafka()]);
    (config.partitions, config.replication) = (partitions, Some(1));
    Ok(stream::create_topics(&config, &[topic]).await?)
}

/// Posts an event to the Broker, and reads the record that it writes.
async fn write(
    world: &World,
    namespace: &str,
    event: &CloudEvent,
    written: &mut i64,
) -> anyhow::Result<Record> {
    world.post(namespace, BROKER, event).await?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", world::kafka())
        .set("group.id", namespace)
        .create()?;
    let mut place = TopicPartitionList::new();
    let topic = format!("knative-broker-{namespace}-{BROKER}");
    place.add_partition_offset(&topic, 0, Offset::Offset(*written))?;
    consumer.assign(&place)?;
    let Some(message) = consumer.poll(WITHIN) else {
        bail!("no record {written} in {topic}");
    };
    let message = message?;
    *written += 1;
    let headers = message.headers().map(|headers| {
        let owned =
            |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        headers.iter().map(owned).collect()
    });
    Ok(Record {
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    })
}

fn same_record(wanted: &Fields, record: &Record) -> Result<(), Failure> {
    let header = |name: &str| {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.as_deref())
    };
    if let Some(headers) = wanted.get("headers") {
        let headers = (headers.as_object())
            .ok_or_else(|| Failure::malformed(format!("headers: {headers}")))?;
        for (name, value) in headers {
            same_or_none(name, value, header(name))?;
        }
    }
    if let Some(absent) = wanted.get("absent") {
        for name in expected::texts(absent)? {
            same_or_none(name, &Value::Null, header(name))?;
        }
    }
    for (name, found) in [("key", &record.key), ("value", &record.value)] {
        if let Some(wanted) = wanted.get(name) {
            same_or_none(name, wanted, found.as_deref())?;
        }
    }
    Ok(())
}

/// Writes a record to the place that the case names, and compares what arrives.
async fn wrap(
    world: &World,
    namespace: &str,
    index: usize,
    foreign: &Foreign,
    wanted: &Fields,
) -> anyhow::Result<Result<(), Failure>> {
    let topic = topic(namespace, index);
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", world::kafka())
        .create()?;
    let empty = Record::default();
    for offset in 0..=foreign.offset {
        let record = if offset < foreign.offset {
            &empty
        } else {
            &foreign.record
        };
        let headers = record.headers.iter();
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: value.as_ref(),
            })
        });
        let mut out = FutureRecord::<[u8], [u8]>::to(&topic)
            .partition(foreign.partition.into())
            .headers(headers);
        (out.key, out.payload) = (record.key.as_deref(), record.value.as_deref());
        let sent = producer.send(out, WITHIN).await;
        sent.map_err(|(error, _)| error).context("write a record")?;
    }
    let name = source_name(index);
    world
        .settled(
            std::slice::from_ref(&name),
            (foreign.offset + 1).unsigned_abs(),
        )
        .await?;
    let seen = world.seen();
    let Some(last) = seen.iter().rfind(|seen| seen.is_for(&name)) else {
        bail!("nothing was delivered");
    };
    Ok(same_wrapped(
        wanted,
        |text| {
            let text = text.replace("<ns>", namespace).replace("<name>", &name);
            match text.strip_suffix(&format!("#{}", foreign.topic)) {
                Some(text) => format!("{text}#{topic}"),
                None => text,
            }
        },
        |name| last.attribute(name),
    )
    .and_then(|()| {
        let value = foreign.record.value.as_deref();
        same_bytes("data", value.unwrap_or_default(), Some(&last.body))
    }))
}

/// Compares attributes, after `filled` has put our names into the text of one.
fn same_wrapped<'a>(
    wanted: &Fields,
    filled: impl Fn(String) -> String,
    found: impl Fn(&str) -> &'a str,
) -> Result<(), Failure> {
    let none = Fields::new();
    let extensions = match wanted.get("extensions") {
        None => &none,
        Some(Value::Object(extensions)) => extensions,
        Some(other) => return Err(Failure::malformed(format!("extensions: {other}"))),
    };
    let core = wanted
        .iter()
        .filter(|(name, _)| !matches!(&***name, "extensions" | "note"));
    for (name, value) in core.chain(extensions) {
        let value = expected::scalar(value)?.map(&filled).unwrap_or_default();
        if found(name) != value {
            return Err(Failure::new(
                format!("{name} {value:?}"),
                format!("{:?}", found(name)),
            ));
        }
    }
    Ok(())
}

fn same_or_none(what: &str, wanted: &Value, found: Option<&[u8]>) -> Result<(), Failure> {
    match (expected::bytes(wanted)?, found) {
        (Some(wanted), found) => same_bytes(what, &wanted, found),
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Failure::new(format!("no {what}"), "one")),
    }
}
