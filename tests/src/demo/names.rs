//! What a run calls its things in Kafka, ClickHouse and Valkey: its own, so that it begins from
//! nothing, and several runs can share the engines.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};

use super::{Options, options::Command};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Names that hold a run's id.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) topic: String,
    pub(super) dead_topic: String,
    pub(super) ingest_dead_topic: String,
    pub(super) push_group: String,
    pub(super) pull_group: String,
    pub(super) quota_push_group: String,
    pub(super) quota_pull_group: String,
    pub(super) database: String,
    pub(super) prefix: String,
}

impl Names {
    /// Returns names that no other run has.
    pub(super) fn fresh(command: Command) -> Self {
        let (now, pid) = (Timestamp::now().as_second(), std::process::id());
        Self::of(command, &format!("{now}-{pid}"))
    }

    /// Returns the names of the run that has this id.
    pub(super) fn of(command: Command, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            // A person is told an address that does not change; the ports see to it that there
            // is one such run.
            namespace: match command {
                Command::Run => "open-banking".to_owned(),
                Command::Demo => format!("open-banking-{id}"),
            },
            topic: format!("openmeter.events.demo-{id}"),
            dead_topic: format!("openmeter.events.dead.demo-{id}"),
            ingest_dead_topic: format!("openmeter.ingest.dead.demo-{id}"),
            push_group: format!("openmeter-process-push-demo-{id}"),
            pull_group: format!("openmeter-process-pull-demo-{id}"),
            quota_push_group: format!("openmeter-quota-push-demo-{id}"),
            quota_pull_group: format!("openmeter-quota-pull-demo-{id}"),
            database: format!("openmeter_demo_{}", id.replace('-', "_")),
            prefix: format!("om-demo-{id}"),
        }
    }

    /// Returns the topic that Knative keeps the broker's events in.
    pub(super) fn broker_topic(&self) -> String {
        format!("knative-broker-{}-usage", self.namespace)
    }

    /// Returns the group with which Knative reads them for ingest.
    pub(super) fn trigger_group(&self) -> String {
        format!("knative-trigger-{}-ingest", self.namespace)
    }

    /// Removes all that has these names. The functions must have ended.
    pub(super) async fn remove(&self, options: &Options) -> anyhow::Result<()> {
        let drop = format!("DROP DATABASE IF EXISTS {}", self.database);
        let answers = [
            self.remove_topics(&options.kafka)
                .await
                .context("remove the topics"),
            sql(&options.clickhouse, &drop)
                .await
                .map(drop_text)
                .context("remove the database"),
            ledger::testing::forget(&options.valkey, &self.prefix)
                .await
                .context("remove the keys")
                .map(|_| ()),
        ];
        answers.into_iter().collect()
    }

    async fn remove_topics(&self, brokers: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()?;
        let options = AdminOptions::new()
            .request_timeout(Some(TIMEOUT))
            .operation_timeout(Some(TIMEOUT));
        let topics = [
            &self.broker_topic(),
            &self.topic,
            &self.dead_topic,
            &self.ingest_dead_topic,
        ];
        let topics = admin
            .delete_topics(&topics.map(String::as_str), &options)
            .await?;
        let groups = [
            &self.trigger_group(),
            &self.push_group,
            &self.pull_group,
            &self.quota_push_group,
            &self.quota_pull_group,
        ];
        let groups = admin
            .delete_groups(&groups.map(String::as_str), &options)
            .await?;
        for (name, code) in topics.into_iter().chain(groups).filter_map(Result::err) {
            // A group's killed member is thrown out some seconds later, and the group then ends by
            // itself, for the topic of its offsets is gone.
            let is_gone = matches!(
                code,
                RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::GroupIdNotFound
                    | RDKafkaErrorCode::NonEmptyGroup
            );
            ensure!(is_gone, "{name}: {code}");
        }
        Ok(())
    }

    /// Deletes what the functions keep in Valkey in one step, while they run, and returns how
    /// many keys that was.
    pub(super) async fn flush(&self, valkey: &str) -> anyhow::Result<u64> {
        Ok(ledger::testing::forget_at_once(valkey, &self.prefix).await?)
    }
}

fn drop_text(_: String) {}

/// Asks ClickHouse and returns the answer's text.
pub(super) async fn sql(address: &str, statement: &str) -> anyhow::Result<String> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()?;
    let answer = http.post(url).body(statement.to_owned()).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(
        status.is_success(),
        "clickhouse answered {status}: {}",
        text.trim()
    );
    Ok(text)
}
