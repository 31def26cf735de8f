//! Brokers, Triggers and KafkaSources that run on the real Kafka, with names of their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use runner::{
    eventing::{Eventing, Plan, Status},
    manifests::Object,
    network::Network,
};
use tokio::{task::JoinSet, time::sleep};

use super::wire::{Script, Seen, Wire, serve};

/// How long events may take to be delivered: a machine can be busy with other tests.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Eventing that runs, with names that are nobody else's.
pub(super) struct World {
    eventing: Eventing,
    wire: Arc<Wire>,
    servers: JoinSet<()>,
    ingress: String,
    kafka: String,
    topics: Vec<String>,
}

impl World {
    /// Starts what the objects say.
    pub(super) async fn start(objects: &[Object], script: Script) -> anyhow::Result<Self> {
        let plan = Plan::read(objects).map_err(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", mistakes.join("; "))
        })?;
        let mut servers = JoinSet::new();
        let wire = Wire::start(script, &mut servers).await?;
        let eventing = Eventing::start(plan, Arc::clone(&wire) as Arc<dyn Network>).await?;
        let ingress = serve(eventing.ingress(), &mut servers).await?;
        let topics = |Object {
                          kind,
                          namespace,
                          name,
                          value,
                          ..
                      }: &Object| match &**kind {
            "Broker" => vec![format!("knative-broker-{namespace}-{name}")],
            "KafkaSource" => {
                let topics = value["spec"]["topics"].as_array().into_iter().flatten();
                topics
                    .filter_map(|topic| topic.as_str().map(str::to_owned))
                    .collect()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            eventing,
            wire,
            servers,
            ingress,
            kafka: kafka(),
            topics: objects.iter().flat_map(topics).collect(),
        })
    }

    /// Returns the URL of a path at the brokers' ingress.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ingress)
    }

    /// Posts an event to `/{namespace}/{broker}`.
    pub(super) async fn post(
        &self,
        namespace: &str,
        broker: &str,
        event: &stream::CloudEvent,
    ) -> anyhow::Result<()> {
        let (headers, body) = stream::http::encode(event)?;
        let url = self.url(&format!("/{namespace}/{broker}"));
        let request = reqwest::Client::new().post(url).headers(headers).body(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Returns the requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.wire.seen()
    }

    /// Waits until each of these Triggers is done with `posted` events and with the replies of
    /// all of them, which go to the same broker.
    pub(super) async fn settled(&self, triggers: &[String], posted: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let status = self.eventing.status();
            let ours: Vec<&Status> = status
                .iter()
                .filter(|status| triggers.contains(&status.name))
                .collect();
            let all = posted + ours.iter().map(|status| status.replies).sum::<u64>();
            let done = |status: &&Status| status.delivered + status.filtered + status.failed;
            if ours.iter().any(|status| done(status) > all) {
                bail!("a Trigger had more than {all} events: {status:?}");
            }
            if ours.iter().all(|status| done(status) == all) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{posted} events were not delivered in time: {status:?}");
            }
            sleep(POLL).await;
        }
    }

    /// Stops, and removes what is its own in Kafka.
    pub(super) async fn stop(self) {
        self.eventing.stop().await;
        drop(self.servers);
        if let Err(error) = remove(&self.kafka, &self.topics).await {
            eprintln!("warning: {:?} are left in Kafka: {error:#}", self.topics);
        }
    }
}

/// Returns a namespace that nobody else has.
pub(super) fn namespace() -> String {
    format!("cases-{}", uuid::Uuid::new_v4().simple())
}

/// Returns where Kafka is.
pub(super) fn kafka() -> String {
    std::env::var("OPENMETER_KAFKA_BROKER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned())
}

/// Removes topics, and so the offsets in them. Kafka lets go of a group that has neither
/// offsets nor members by itself.
async fn remove(kafka: &str, topics: &[String]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()?;
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    for deleted in admin.delete_topics(&topics, &AdminOptions::new()).await? {
        deleted.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
    }
    Ok(())
}
