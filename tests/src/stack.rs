//! The three functions in this process, on the engines of `make up`, with a topic, a
//! consumer group, a database and a Valkey prefix that are nobody else's.
//!
//! It starts no engines, and replaces none: what is counted here is counted by the code that
//! is deployed.

mod engines;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use runtime::{App, CancellationToken, Trigger};
use serde_json::Value;
use store::Store;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use url::Url;

use engines::{Engines, Names, Progress};

/// How long accepted events may take to be counted: a machine can be busy with other tests.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);

/// How long a function may take to find its engines.
const READY_WITHIN: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// The functions, ready to be used. [`Stack::stop`] takes them down and removes what is theirs;
/// one that is dropped instead leaves its topics and tables, to be looked at.
pub struct Stack {
    names: Names,
    engines: Engines,
    ingest: Url,
    query: Url,
    client: reqwest::Client,
    store: Store,
    functions: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// An answer over HTTP, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header `Content-Type`, or nothing.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Sends a request and reads what comes.
    pub async fn to(request: reqwest::RequestBuilder) -> anyhow::Result<Self> {
        let response = request.send().await.context("ask a function")?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Ok(Self {
            status: response.status().as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: response.text().await.context("read an answer")?,
        })
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self}"))
    }

    /// Returns itself if the status is 2xx.
    pub fn accepted(self) -> anyhow::Result<Self> {
        if (200..300).contains(&self.status) {
            Ok(self)
        } else {
            bail!("refused: {self}")
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

impl Stack {
    /// Starts the functions with these meters.
    ///
    /// # Errors
    /// Those of the functions: wrong meters are a [`model::CatalogError`] in the chain.
    pub async fn start(meters_yaml: &str) -> anyhow::Result<Self> {
        Self::start_with(meters_yaml, &[]).await
    }

    /// Starts the functions with these meters, and with settings that go before the stack's.
    pub async fn start_with(meters_yaml: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let names = Names::fresh();
        let engines = Engines::from_env()?;
        tokio::fs::write(&names.meters, meters_yaml)
            .await
            .context("write the meter definitions")?;
        let started = Self::start_named(names.clone(), engines.clone(), settings).await;
        if started.is_err() {
            // The reason for the failure matters more than what stays behind.
            drop(tokio::fs::remove_file(&names.meters).await);
            drop(engines.remove(&names).await);
        }
        started
    }

    async fn start_named(
        names: Names,
        engines: Engines,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let env = || engines.env(&names, settings);
        // Made before anything is created: wrong settings and wrong meters are found here.
        let process = process::app(&env())?.trigger(Trigger::Kafka);
        let query = query::app(&env())?;
        let ingest = ingest::app(&env())?;

        let (store, kafka) = (engines.store(&names)?, engines.topics(&names));
        let topics = [&*names.id, &names.dead_topic, &names.ingest_dead_topic];
        // A consumer learns of a topic at once only if it is there when it joins, and a question
        // before the first event needs the tables.
        let topics = async { Ok(stream::create_topics(&kafka, &topics).await?) };
        let tables = async { Ok(store.migrate().await?) };
        tokio::try_join!(topics, tables).map_err(|error: anyhow::Error| {
            error.context("prepare the engines (`make up` brings them up)")
        })?;

        let mut functions = JoinSet::new();
        let stop = CancellationToken::new();
        let process = serve(process, &mut functions, &stop).await?;
        let stack = Self {
            ingest: serve(ingest, &mut functions, &stop).await?,
            query: serve(query, &mut functions, &stop).await?,
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .context("make an HTTP client")?,
            names,
            engines,
            store,
            functions,
            stop,
        };
        stack.wait_until_ready(&process).await?;
        Ok(stack)
    }

    /// Waits until a function has found its engines: without, a test would wait for events to
    /// be counted that cannot be.
    async fn wait_until_ready(&self, function: &Url) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let answer = Answer::to(self.client.get(at(function, "/readyz"))).await?;
            if answer.status == 200 {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("not ready (`make up` brings the engines up): {answer}");
            }
            sleep(POLL).await;
        }
    }

    /// Returns where events are posted, without a path.
    pub fn ingest_url(&self) -> &Url {
        &self.ingest
    }

    /// Returns where questions are asked, without a path.
    pub fn query_url(&self) -> &Url {
        &self.query
    }

    /// Returns a client with open connections to the functions.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns a handle on the stack's tables.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the name of the stack's topic, consumer group, database and Valkey prefix.
    pub fn name(&self) -> &str {
        &self.names.id
    }

    /// Returns the settings of the stack's functions, for a process that is one more of them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        self.engines.settings(&self.names)
    }

    /// Posts a body to `/api/v1/events`.
    pub async fn post(
        &self,
        content_type: &str,
        body: impl Into<String>,
    ) -> anyhow::Result<Answer> {
        let request = self
            .client
            .post(at(&self.ingest, "/api/v1/events"))
            .header(CONTENT_TYPE, content_type)
            .body(body.into());
        Answer::to(request).await
    }

    /// Posts events as one batch, which must be accepted.
    pub async fn post_events(&self, events: &[Value]) -> anyhow::Result<()> {
        let body = serde_json::to_string(events).context("write a batch")?;
        let answer = self
            .post("application/cloudevents-batch+json", body)
            .await?;
        answer.accepted().context("post events")?;
        Ok(())
    }

    /// Asks query for a path, with parameters in the order given.
    pub async fn get(
        &self,
        path: &str,
        parameters: &[(String, String)],
        accept: &str,
    ) -> anyhow::Result<Answer> {
        let mut url = at(&self.query, path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Answer::to(self.client.get(url).header(ACCEPT, accept)).await
    }

    /// Returns the rows of a meter; an answer other than 200 is an error.
    pub async fn query(
        &self,
        slug: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Vec<Value>> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = parameters.iter().map(own).collect();
        let path = format!("/api/v1/meters/{slug}/query");
        let answer = self.get(&path, &parameters, "application/json").await?;
        let answer = answer.accepted()?;
        match answer.json()?.get_mut("data").map(Value::take) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => bail!("no rows: {answer}"),
        }
    }

    /// Asks query with a JSON body.
    pub async fn ask(&self, path: &str, body: &Value, accept: &str) -> anyhow::Result<Answer> {
        let request = self
            .client
            .post(at(&self.query, path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .body(body.to_string());
        Answer::to(request).await
    }

    /// Waits until `accepted` events, and all that were accepted beside them, can be seen in
    /// answers.
    ///
    /// What was counted is told by the consumer group's offsets, which are committed after the
    /// rows were stored: repeats and conflicts are worked on without a row of their own, so
    /// rows would not tell.
    pub async fn wait_until_counted(&self, accepted: u64) -> anyhow::Result<()> {
        self.wait_until_group_has(&self.names.id, accepted).await
    }

    async fn wait_until_group_has(&self, group: &str, accepted: u64) -> anyhow::Result<()> {
        let group = self.engines.group(group)?;
        let accepted = i64::try_from(accepted).context("count events")?;
        let until = Instant::now() + COUNTED_WITHIN;
        let (group, mut progress) = (Arc::new(group), Progress::default());
        while Instant::now() < until {
            let (client, topic) = (group.clone(), self.names.id.clone());
            progress = tokio::task::spawn_blocking(move || Progress::read(&client, &topic))
                .await
                .context("read the consumer's progress")??;
            if progress.produced >= accepted && progress.counted >= progress.produced {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!(
            "after {COUNTED_WITHIN:?}, {accepted} events were accepted, and kafka has {progress:?}"
        )
    }

    /// Counts the whole topic once more, by a second process of another consumer group.
    pub async fn replay(&self) -> anyhow::Result<()> {
        let group = self.names.replay_group();
        let env = self
            .engines
            .env(&self.names, &[("OPENMETER_KAFKA_GROUP", &group)]);
        let (mut functions, stop) = (JoinSet::new(), CancellationToken::new());
        serve(
            process::app(&env)?.trigger(Trigger::Kafka),
            &mut functions,
            &stop,
        )
        .await?;
        self.wait_until_group_has(&group, 0).await?;
        stop.cancel();
        while let Some(function) = functions.join_next().await {
            function.context("process panicked")??;
        }
        Ok(())
    }

    /// Lets ClickHouse do something to this stack's tables.
    pub async fn clickhouse(&self, sql: &str) -> anyhow::Result<()> {
        self.engines.clickhouse(&self.names, sql).await
    }

    /// Stops the functions in order and removes what is theirs.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let mut ended = Ok(());
        while let Some(function) = self.functions.join_next().await {
            let function = function
                .context("a function panicked")
                .and_then(|result| result);
            ended = ended.and(function);
        }
        let removed = self.engines.remove(&self.names).await;
        tokio::fs::remove_file(&self.names.meters)
            .await
            .context("remove the meter definitions")?;
        ended.and(removed)
    }
}

/// Serves `app` on a free port, and returns where that is.
async fn serve(
    app: App,
    functions: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<Url> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("listen on a free port")?;
    let address = listener.local_addr().context("read the port")?;
    let running = Box::pin(runtime::run(listener, app, stop.clone().cancelled_owned()));
    functions.spawn(running);
    Url::parse(&format!("http://{address}")).context("name the port")
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url
}
