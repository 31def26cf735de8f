//! Events that the real engine refuses: the one is told apart, the others are counted, and a
//! store that refuses all of them buries none.

use std::time::Duration;

use futures::future::join_all;
use runtime::{App, CancellationToken, Trigger};
use stream::{BatchLimits, CloudEvent, Consumer, KafkaConfig, Producer};
use tokio::net::TcpListener;

use crate::support::{Answer, Service, kafka};

const DEADLINE: Duration = Duration::from_secs(60);

/// Has the engine refuse rows, as only an operator's mistake or a bug of ours would.
async fn refuse(process: &Service, but: &str) {
    let sql = format!("ALTER TABLE usage ADD CONSTRAINT IF NOT EXISTS test CHECK {but}");
    process.store.run(&sql).await;
}

async fn refuse_none(process: &Service) {
    let sql = "ALTER TABLE usage DROP CONSTRAINT test";
    process.store.run(sql).await;
}

fn with_status(answers: &[Answer], status: u16) -> usize {
    let is_it = |answer: &&Answer| answer.status.as_u16() == status;
    answers.iter().filter(is_it).count()
}

#[tokio::test]
async fn the_bad_event_of_a_block_is_400_and_the_others_are_counted() {
    let process = Service::start();
    assert_eq!(process.call("first", 1).await.status, 204);
    refuse(&process, "value < 1000").await;
    let ids: Vec<_> = (0..30).map(|id| id.to_string()).collect();
    let ms = |id: &str| if id == "17" { 5000 } else { 1 };
    let answers = join_all(ids.iter().map(|id| process.call(id, ms(id)))).await;
    assert_eq!(with_status(&answers, 204), 29);
    let bad = &answers[17];
    assert_eq!(bad.status, 400);
    assert!(bad.detail().contains("469"), "{}", bad.detail());
    assert!(!bad.detail().contains("5000"), "{}", bad.detail());
    // Alone in its block it is known by what was taken before.
    assert_eq!(process.call("17", 5000).await.status, 400);
    assert_eq!(process.totals().await, ["30", "30"]);
    process.remove().await;
}

#[tokio::test]
async fn a_store_that_refuses_all_has_nothing_buried() {
    let process = Service::start();
    assert_eq!(process.call("first", 1).await.status, 204);
    refuse(&process, "value > 1000000").await;
    for count in [1, 3, 30] {
        let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
        let answers = join_all(ids.iter().map(|id| process.call(id, 1))).await;
        assert_eq!(with_status(&answers, 503), count, "{answers:?}");
    }
    refuse_none(&process).await;
    let ids: Vec<_> = (0..30).map(|id| id.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| process.call(id, 1))).await;
    assert_eq!(with_status(&answers, 204), 30);
    assert_eq!(process.totals().await, ["31", "31"]);
    process.remove().await;
}

#[tokio::test]
async fn a_lone_event_is_not_blamed_by_a_process_that_has_counted_nothing() {
    let process = Service::start();
    process.store.store.migrate().await.unwrap();
    refuse(&process, "value < 1000").await;
    assert_eq!(process.call("bad", 5000).await.status, 503);
    // It adds to no meter, so it says nothing of the table that refuses.
    let other = crate::support::binary("other", "other");
    assert_eq!(process.post(&other, "{}").await.status, 204);
    assert_eq!(process.call("bad", 5000).await.status, 503);
    assert_eq!(process.call("good", 1).await.status, 204);
    assert_eq!(process.call("bad", 5000).await.status, 400);
    assert_eq!(process.totals().await, ["1", "1"]);
    process.remove().await;
}

#[tokio::test]
async fn what_repeats_a_refused_event_leaves_it_listed_as_invalid() {
    let process = Service::start();
    assert_eq!(process.call("first", 1).await.status, 204);
    refuse(&process, "value < 1000").await;
    assert_eq!(process.call("bad", 5000).await.status, 400);
    let mut repeat = crate::support::binary("bad", "call");
    // The first one's place is what is written, whichever place the repeat claims.
    for time in ["2026-01-31T10:20:30Z", "2026-01-31T10:20:40Z"] {
        repeat[5] = ("ce-time", time);
        repeat[6] = ("ce-ingestedat", "2026-01-31T10:20:45.000001Z");
        let answer = process.post(&repeat, "{\"ms\":5000}").await;
        assert_eq!(answer.status, 400, "{time}");
        let sql = "SELECT concat(toString(time), ' ', toString(state)) FROM events_current \
            WHERE id = 'bad'";
        let listed = process.store.texts(sql).await;
        assert_eq!(listed, ["2026-01-31 10:20:30.000000 invalid"], "{time}");
    }
    assert_eq!(process.totals().await, ["1", "1"]);
    process.remove().await;
}

#[tokio::test]
async fn all_refused_events_of_a_block_are_listed_with_the_reason() {
    let process = Service::start();
    assert_eq!(process.call("first", 1).await.status, 204);
    refuse(&process, "value < 1000").await;
    let ids: Vec<_> = (0..100).map(|id| id.to_string()).collect();
    let ms = |id: &str| if id.len() == 2 { 5000 } else { 1 };
    let answers = join_all(ids.iter().map(|id| process.call(id, ms(id)))).await;
    assert_eq!(
        (with_status(&answers, 204), with_status(&answers, 400)),
        (10, 90)
    );
    let sql = "SELECT toString(count()) FROM events_current \
        WHERE state = 'invalid' AND error LIKE 'cannot be stored%'";
    assert_eq!(process.store.texts(sql).await, ["90"]);
    assert_eq!(process.totals().await, ["11", "11"]);
    process.remove().await;
}

/// A process that pulls, until it is told to stop.
struct Pulling {
    service: Service,
    kafka: KafkaConfig,
    producer: Producer,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Pulling {
    async fn start() -> Self {
        let service = Service::with(|config| {
            config.trigger = Trigger::Kafka;
            config.kafka = Some(kafka(&config.group));
        });
        service.store.store.migrate().await.unwrap();
        let kafka = service.config.kafka.clone().unwrap();
        let topics = [kafka.topic.as_str(), kafka.dead_topic.as_str()];
        stream::create_topics(&kafka, &topics).await.unwrap();
        let app: App = process::build(service.config.clone()).unwrap();
        let app = app.trigger(Trigger::Kafka);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let told = stop.clone().cancelled_owned();
        Self {
            ended: tokio::spawn(async move { Box::pin(runtime::run(listener, app, told)).await }),
            producer: Producer::connect(&kafka, 1 << 20).unwrap(),
            service,
            kafka,
            stop,
        }
    }

    async fn send(&self, id: &str, ms: u32) {
        let mut event = CloudEvent::new(id, "/gw", "call")
            .with_subject("tpp-1")
            .with_data("application/json", format!("{{\"ms\":{ms}}}"));
        event.stamp("2026-01-31T10:20:31.000001Z".parse().unwrap());
        self.producer.send(vec![event]).await.unwrap();
    }

    /// Returns the ids of the buried, once there are any.
    async fn buried(&self) -> Vec<String> {
        let mut kafka = self.kafka.clone();
        kafka.topic = kafka.dead_topic.clone();
        let mut graves = Consumer::connect(&kafka, self.service.name()).unwrap();
        let batch = graves.next_batch(BatchLimits::default());
        let batch = tokio::time::timeout(DEADLINE, batch)
            .await
            .expect("a grave");
        let batch = batch.unwrap();
        assert!(batch.dead.is_empty(), "it is the event that it was");
        let of_event = |event: &model::UsageEvent| {
            assert_eq!(event.ingested_at.to_string(), "2026-01-31T10:20:31.000001Z");
            event.id.clone()
        };
        let ids = batch.events.iter().map(of_event).collect();
        graves.close().await;
        ids
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
        let Self { service, .. } = self;
        service.remove().await;
    }
}

#[tokio::test]
async fn a_bad_event_of_the_topic_is_buried_and_its_partition_goes_on() {
    let process = Pulling::start().await;
    refuse(&process.service, "value < 1000").await;
    for id in 0..20 {
        let ms = if id == 7 { 5000 } else { 1 };
        process.send(&id.to_string(), ms).await;
    }
    process.service.await_calls(19).await;
    assert_eq!(process.buried().await, ["7"]);
    process.send("after", 1).await;
    process.service.await_calls(20).await;
    process.stop().await;
}

#[tokio::test]
async fn a_lone_bad_event_of_the_topic_waits_for_another_and_stops_nobody() {
    let process = Pulling::start().await;
    refuse(&process.service, "value < 1000").await;
    process.send("bad", 5000).await;
    // Its batch is closed: the other one does not come with it.
    process.service.await_blocks(1).await;
    process.send("good", 1).await;
    process.service.await_calls(1).await;
    assert_eq!(process.buried().await, ["bad"]);
    process.stop().await;
}

#[tokio::test]
async fn a_store_that_refuses_all_has_no_record_buried() {
    let process = Pulling::start().await;
    refuse(&process.service, "value > 1000000").await;
    for id in 0..20 {
        process.send(&id.to_string(), 1).await;
    }
    // `events` takes its rows, block after block: it has tried, and tried again.
    process.service.await_blocks(60).await;
    refuse_none(&process.service).await;
    process.service.await_calls(20).await;
    // The first grave is dug only now.
    refuse(&process.service, "value < 1000").await;
    process.send("bad", 5000).await;
    assert_eq!(process.buried().await, ["bad"]);
    process.stop().await;
}
