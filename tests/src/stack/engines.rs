//! The engines as a stack sees them: what is its own there, and how it is removed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use runtime::Env;
use store::{Address, Store, StoreConfig};

/// More than one, so that order across partitions is tried.
const PARTITIONS: i32 = 2;

/// How long an engine may take for one thing that is asked of it.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is this stack's own.
#[derive(Clone)]
pub(super) struct Names {
    /// Topic, consumer group, database and Valkey prefix at once.
    pub(super) id: String,
    /// Topic of records that are no events.
    pub(super) dead_topic: String,
    /// Topic of events that did not come to ingest.
    pub(super) ingest_dead_topic: String,
    /// The file that the functions read their meters from.
    pub(super) meters: PathBuf,
}

/// Where the engines are.
#[derive(Clone)]
pub(super) struct Engines {
    kafka: String,
    clickhouse: Address,
    valkey: String,
}

impl Names {
    pub(super) fn fresh() -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let id = format!("test_{unique}");
        Self {
            dead_topic: format!("{id}.dead"),
            ingest_dead_topic: format!("{id}.ingest.dead"),
            meters: std::env::temp_dir().join(format!("{id}.yaml")),
            id,
        }
    }

    /// Returns the consumer group that counts the topic once more.
    pub(super) fn replay_group(&self) -> String {
        format!("{}.replay", self.id)
    }
}

impl Engines {
    pub(super) fn from_env() -> anyhow::Result<Self> {
        let or = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Ok(Self {
            kafka: or("OPENMETER_KAFKA_BROKER", "127.0.0.1:9092"),
            clickhouse: or("OPENMETER_CLICKHOUSE_ADDRESS", "127.0.0.1:8123")
                .parse()
                .context("OPENMETER_CLICKHOUSE_ADDRESS")?,
            valkey: or("OPENMETER_VALKEY_URL", "redis://127.0.0.1:6379"),
        })
    }

    pub(super) fn env(&self, names: &Names, settings: &[(&str, &str)]) -> Env {
        let own = self.settings(names);
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        Env::from_pairs(own.chain(settings.iter().copied()))
    }

    pub(super) fn settings(&self, names: &Names) -> Vec<(&'static str, String)> {
        let address = self.clickhouse.to_string();
        let partitions = PARTITIONS.to_string();
        let meters = names.meters.to_string_lossy();
        [
            ("OPENMETER_KAFKA_BROKER", &*self.kafka),
            ("OPENMETER_KAFKA_TOPIC", &names.id),
            ("OPENMETER_KAFKA_DEAD_TOPIC", &names.dead_topic),
            (
                "OPENMETER_KAFKA_INGEST_DEAD_TOPIC",
                &names.ingest_dead_topic,
            ),
            ("OPENMETER_KAFKA_GROUP", &names.id),
            ("OPENMETER_KAFKA_PARTITIONS", &partitions),
            ("OPENMETER_CLICKHOUSE_ADDRESS", &address),
            ("OPENMETER_CLICKHOUSE_DATABASE", &names.id),
            ("OPENMETER_VALKEY_URL", &self.valkey),
            ("OPENMETER_VALKEY_PREFIX", &names.id),
            ("OPENMETER_METERS", &meters),
            ("OPENMETER_TRIGGER", "kafka"),
            // Tests send few events and wait for each batch.
            ("OPENMETER_BATCH_WAIT", "5ms"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    pub(super) fn topics(&self, names: &Names) -> stream::KafkaConfig {
        let mut kafka = stream::KafkaConfig::new(self.brokers());
        kafka.topic.clone_from(&names.id);
        kafka.dead_topic.clone_from(&names.dead_topic);
        kafka.ingest_dead_topic.clone_from(&names.ingest_dead_topic);
        kafka.partitions = PARTITIONS.unsigned_abs().try_into().unwrap_or(1);
        kafka
    }

    fn brokers(&self) -> Vec<String> {
        self.kafka
            .split(',')
            .map(|broker| broker.trim().to_owned())
            .collect()
    }

    pub(super) fn store(&self, names: &Names) -> anyhow::Result<Store> {
        Ok(Store::connect(StoreConfig {
            address: self.clickhouse.clone(),
            database: names.id.parse().context("name the database")?,
            ..StoreConfig::default()
        }))
    }

    /// Returns a client that can read the group's offsets. It does not join the group.
    pub(super) fn group(&self, group: &str) -> anyhow::Result<BaseConsumer> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.kafka)
            .set("group.id", group)
            .create()
            .context("connect to kafka")
    }

    /// Removes all that bears the names; what is not there is no error.
    pub(super) async fn remove(&self, names: &Names) -> anyhow::Result<()> {
        let kafka = self.remove_from_kafka(names);
        let clickhouse = self.remove_from_clickhouse(names);
        let valkey = self.remove_from_valkey(names);
        let (kafka, clickhouse, valkey) = tokio::join!(kafka, clickhouse, valkey);
        kafka
            .context("remove the topics")
            .and(clickhouse.context("remove the tables"))
            .and(valkey.context("remove the keys"))
    }

    async fn remove_from_kafka(&self, names: &Names) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka)
            .create()?;
        let options = AdminOptions::new().request_timeout(Some(ENGINE_TIMEOUT));
        let topics = [&*names.id, &names.dead_topic, &names.ingest_dead_topic];
        let groups = [&*names.id, &names.replay_group()];
        let (topics, groups) = tokio::join!(
            admin.delete_topics(&topics, &options),
            admin.delete_groups(&groups, &options),
        );
        for result in topics?.into_iter().chain(groups?) {
            match result {
                Ok(_)
                | Err((
                    _,
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::GroupIdNotFound,
                )) => {}
                Err((name, code)) => bail!("{name}: {code}"),
            }
        }
        Ok(())
    }

    /// Lets ClickHouse do something to the tables.
    pub(super) async fn clickhouse(&self, names: &Names, sql: &str) -> anyhow::Result<()> {
        let client = clickhouse::Client::default()
            .with_url(self.clickhouse.url().as_str())
            .with_user("default")
            .with_database(&names.id);
        Ok(client.query(sql).execute().await?)
    }

    async fn remove_from_clickhouse(&self, names: &Names) -> anyhow::Result<()> {
        let client = clickhouse::Client::default()
            .with_url(self.clickhouse.url().as_str())
            .with_user("default");
        let sql = format!("DROP DATABASE IF EXISTS `{}` SYNC", names.id);
        Ok(client.query(&sql).execute().await?)
    }

    async fn remove_from_valkey(&self, names: &Names) -> anyhow::Result<()> {
        ledger::testing::forget(&self.valkey, &names.id).await?;
        Ok(())
    }
}

/// How many records Kafka has, and how many of them process is done with.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) produced: i64,
    pub(super) counted: i64,
}

impl Progress {
    /// Asks Kafka, and waits for its answer.
    pub(super) fn read(group: &BaseConsumer, topic: &str) -> anyhow::Result<Self> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, PARTITIONS - 1);
        let committed = group
            .committed_offsets(asked, ENGINE_TIMEOUT)
            .context("read the group's offsets")?;
        let mut progress = Self::default();
        for partition in 0..PARTITIONS {
            let (_, end) = group
                .fetch_watermarks(topic, partition, ENGINE_TIMEOUT)
                .context("read the topic's end")?;
            progress.produced += end;
            let offset = committed.find_partition(topic, partition);
            let offset = offset.and_then(|element| element.offset().to_raw());
            // Negative where nothing is committed yet.
            progress.counted += offset.unwrap_or_default().max(0);
        }
        Ok(progress)
    }
}
