//! A namespace of its own on the real Kafka, with a network that answers as a test says.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use runner::{
    eventing::{Eventing, Plan, Status},
    manifests::{Mistake, Object},
    network::{Network, Unanswered},
};
use serde_json::{Value, json};
use stream::{Arrival, KafkaConfig, Producer, Start, Subscription, fix_start};
use tokio::sync::watch;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(DEADLINE, coming).await;
    came.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// A request that reached the network.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How often this event was sent there before.
    pub(crate) before: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("ce-id").unwrap()
    }

    /// Returns the first label of the host.
    pub(crate) fn to(&self) -> &str {
        let host = self.url.split("//").nth(1).unwrap();
        host.split('.').next().unwrap()
    }
}

/// What the network does with a request.
pub(crate) enum Reply {
    Answer(Response<Bytes>),
    Broken,
    /// Nothing, until the sender gives up.
    Silence,
}

pub(crate) fn status(status: u16) -> Reply {
    let answer = Response::builder().status(status);
    Reply::Answer(answer.body(Bytes::new()).unwrap())
}

type Answers = dyn Fn(&Received) -> Reply + Send + Sync;

/// A network in which everybody answers as the test says.
pub(crate) struct Script {
    answers: Box<Answers>,
    received: watch::Sender<Vec<Received>>,
    sent: Mutex<HashMap<(String, String), usize>>,
}

impl Script {
    pub(crate) fn new(answers: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answers: Box::new(answers),
            received: watch::Sender::default(),
            sent: Mutex::default(),
        })
    }

    /// Waits until the requests so far are as `enough` wants them.
    pub(crate) async fn until(
        &self,
        what: &str,
        enough: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        let mut received = self.received.subscribe();
        soon(what, async {
            received
                .wait_for(|received| enough(received))
                .await
                .unwrap()
                .clone()
        })
        .await
    }

    pub(crate) async fn requests(&self, count: usize) -> Vec<Received> {
        let what = format!("request {count}");
        self.until(&what, |received| received.len() >= count).await
    }

    pub(crate) fn count(&self) -> usize {
        self.received.borrow().len()
    }
}

impl Network for Script {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, Unanswered>> {
        let (head, body) = request.into_parts();
        let mut received = Received {
            url: head.uri.to_string(),
            headers: head.headers,
            body,
            before: 0,
        };
        let key = (received.to().to_owned(), received.id().to_owned());
        let mut sent = self.sent.lock().unwrap();
        let sent = sent.entry(key).or_default();
        received.before = *sent;
        *sent += 1;
        let reply = (self.answers)(&received);
        self.received.send_modify(|all| all.push(received));
        Box::pin(async {
            match reply {
                Reply::Answer(answer) => Ok(answer),
                Reply::Broken => Err(Unanswered::Unreachable("reset".to_owned())),
                Reply::Silence => std::future::pending().await,
            }
        })
    }
}

/// The namespace of one test.
pub(crate) struct World {
    pub(crate) namespace: String,
    objects: Vec<Object>,
    topics: BTreeSet<String>,
}

pub(crate) fn brokers() -> Vec<String> {
    let broker = std::env::var("OPENMETER_KAFKA_BROKER");
    vec![broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned())]
}

impl World {
    /// A broker `usage` of two partitions, and Services `a`, `b` and `dls`.
    pub(crate) fn new(name: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self::of(format!("test-{name}-{}", now.as_nanos()))
    }

    /// The same in a namespace that another process has made.
    pub(crate) fn of(namespace: String) -> Self {
        let mut world = Self {
            namespace,
            objects: Vec::new(),
            topics: BTreeSet::new(),
        };
        world
            .topics
            .insert(format!("knative-broker-{}-usage", world.namespace));
        let config = json!({"bootstrap.servers": brokers()[0], "default.topic.partitions": "2",
            "default.topic.replication.factor": "1"});
        world.add_part("v1", "ConfigMap", "config", "data", config);
        world.broker(json!(null));
        for service in ["a", "b", "dls"] {
            world.add("serving.knative.dev/v1", "Service", service, json!({}));
        }
        world
    }

    pub(crate) fn add(&mut self, api_version: &str, kind: &str, name: &str, spec: Value) {
        self.add_part(api_version, kind, name, "spec", spec);
    }

    fn add_part(&mut self, api_version: &str, kind: &str, name: &str, part: &str, value: Value) {
        self.remove(kind, name);
        let metadata = json!({"namespace": self.namespace, "name": name});
        self.objects.push(Object {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            value: json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, part: value}),
            file: "test.yaml".into(),
        });
    }

    pub(crate) fn remove(&mut self, kind: &str, name: &str) {
        self.objects
            .retain(|object| (object.kind.as_str(), object.name.as_str()) != (kind, name));
    }

    /// Sets an annotation of the object that was added last.
    pub(crate) fn annotate(&mut self, key: &str, value: &str) {
        let object = self.objects.last_mut().unwrap();
        object.value["metadata"]["annotations"][key] = json!(value);
    }

    /// Sets an entry of the broker's ConfigMap.
    pub(crate) fn config(&mut self, key: &str, value: &str) {
        let mut objects = self.objects.iter_mut();
        let config = objects.find(|object| object.kind == "ConfigMap").unwrap();
        config.value["data"][key] = json!(value);
    }

    pub(crate) fn broker(&mut self, delivery: Value) {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "config"});
        let mut spec = json!({"config": config});
        if !delivery.is_null() {
            spec["delivery"] = delivery;
        }
        self.add("eventing.knative.dev/v1", "Broker", "usage", spec);
        self.annotate("eventing.knative.dev/broker.class", "Kafka");
    }

    /// Adds a Trigger for Service `to`, with `more` in its spec.
    pub(crate) fn trigger(&mut self, name: &str, to: &str, more: Value) {
        let mut spec = json!({"broker": "usage", "subscriber": service(to)});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.add("eventing.knative.dev/v1", "Trigger", name, spec);
    }

    /// Adds a KafkaSink and returns its topic.
    pub(crate) fn sink(&mut self, name: &str, content_mode: &str) -> String {
        let topic = format!("{}.{name}", self.namespace);
        let spec = json!({"topic": topic, "bootstrapServers": brokers(),
            "contentMode": content_mode, "numPartitions": 1, "replicationFactor": 1});
        self.add("eventing.knative.dev/v1alpha1", "KafkaSink", name, spec);
        self.topics.insert(topic.clone());
        topic
    }

    /// Adds a KafkaSource of its own topic for Service `a`, and returns the topic.
    pub(crate) fn source(&mut self, more: Value) -> String {
        let topic = format!("{}.in", self.namespace);
        let mut spec = json!({"bootstrapServers": brokers(), "topics": [topic],
            "consumerGroup": format!("{}-source", self.namespace), "initialOffset": "earliest",
            "sink": service("a")});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.add("sources.knative.dev/v1", "KafkaSource", "source", spec);
        self.topics.insert(topic.clone());
        topic
    }

    pub(crate) fn plan(&self) -> Result<Plan, Vec<Mistake>> {
        Plan::read(&self.objects)
    }

    pub(crate) async fn start(&self, script: &Arc<Script>) -> Running {
        let plan = self.plan().unwrap();
        let network = Arc::clone(script) as Arc<dyn Network>;
        let eventing = soon("start", Eventing::start(plan, network)).await.unwrap();
        Running::serve(eventing, &self.namespace).await
    }

    /// Returns a reader of all that is in a topic.
    pub(crate) async fn read(&self, topic: &str) -> Subscription {
        let config = KafkaConfig::new(brokers());
        let group = format!("{topic}-reader");
        let fixed = fix_start(&config, &group, &[topic], Start::Earliest).await;
        fixed.unwrap();
        let topics = [topic];
        let joined = Subscription::join(&config, &group, &group, &topics);
        soon("reader", joined).await.unwrap()
    }

    /// Returns a setting of the broker's topic.
    pub(crate) async fn topic_setting(&self, name: &str) -> Option<String> {
        let topic = format!("knative-broker-{}-usage", self.namespace);
        let topics = [ResourceSpecifier::Topic(&topic)];
        let (admin, options) = (admin(), AdminOptions::new());
        let described = admin.describe_configs(&topics, &options);
        let settings = soon("settings", described)
            .await
            .unwrap()
            .remove(0)
            .unwrap();
        settings.get(name)?.value.clone()
    }

    pub(crate) async fn clean(self) {
        let admin = admin();
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let deleted = admin.delete_topics(&topics, &AdminOptions::new()).await;
        for topic in deleted.unwrap() {
            topic.unwrap();
        }
    }
}

/// Waits until so many members of a group have partitions each.
pub(crate) async fn shared(group: &str, members: usize) {
    let group = group.to_owned();
    let waiting = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers().join(","));
        let client: BaseConsumer = config.create().unwrap();
        let begun = Instant::now();
        loop {
            let groups = client.fetch_group_list(Some(&group), DEADLINE).unwrap();
            let of_group = groups.groups()[0].members();
            // After a version of two bytes comes how many topics it has partitions of.
            let has_some = |assignment: &[u8]| assignment.get(2..6).is_some_and(|n| n != [0; 4]);
            let assigned = of_group.iter().filter_map(|member| member.assignment());
            if assigned.filter(|assignment| has_some(assignment)).count() == members {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{group} is not shared");
        }
    });
    waiting.await.unwrap();
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers().join(","))
        .create()
        .unwrap()
}

pub(crate) async fn next(reader: &mut Subscription) -> Arrival {
    soon("record", reader.next()).await.unwrap()
}

pub(crate) fn service(name: &str) -> Value {
    json!({"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": name}})
}

pub(crate) fn kafka_sink(name: &str) -> Value {
    json!({"ref": {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink",
        "name": name}})
}

/// Eventing that runs, with its doors on a port.
pub(crate) struct Running {
    pub(crate) eventing: Eventing,
    namespace: String,
    port: u16,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Running {
    async fn serve(eventing: Eventing, namespace: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = eventing.ingress();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            eventing,
            namespace: namespace.to_owned(),
            port,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = Request::builder().method(method).uri(uri);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = soon("answer", self.client.request(request)).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, body)
    }

    /// Posts an event of type `t` to the broker, which must take it.
    pub(crate) async fn post(&self, id: &str, more: &[(&str, &str)]) {
        let path = format!("/{}/usage", self.namespace);
        let mut headers = vec![
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/gw"),
            ("content-type", "application/json"),
        ];
        if more.iter().all(|(name, _)| *name != "ce-type") {
            headers.push(("ce-type", "t"));
        }
        headers.extend(more);
        let body = format!("{{ \"id\": \"{id}\", \"n\": 1.10 }}");
        let answer = self.request("POST", &path, &headers, body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{id}");
    }

    pub(crate) fn status(&self, name: &str) -> Status {
        let all = self.eventing.status();
        all.into_iter().find(|status| status.name == name).unwrap()
    }

    /// Waits until the status is as `wanted`.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let waiting = async {
            loop {
                let status = self.status(name);
                if wanted(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, waiting).await;
        came.unwrap_or_else(|_| panic!("status is {:?}", self.status(name)))
    }

    pub(crate) async fn stop(self) {
        soon("stop", self.eventing.stop()).await;
    }
}

pub(crate) fn ids(received: &[Received]) -> BTreeSet<&str> {
    received.iter().map(Received::id).collect()
}

pub(crate) fn producer() -> Producer {
    Producer::connect(&KafkaConfig::new(brokers()), 1 << 20).unwrap()
}
