//! What the manifests ask for, read and resolved before anything starts.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use stream::Start;

use super::{
    address::{Addresses, Destination},
    delivery::{Delivery, DeliverySpec, Egress, merge},
    filter::{Filter, is_attribute_name},
    schedule::Schedule,
    spec::{
        BrokerConfig, BrokerSpec, ContentMode, InitialOffset, KafkaSinkSpec, KafkaSourceSpec,
        Ordering, Overrides, PingSourceSpec, TriggerSpec,
    },
};
use crate::manifests::{Mistake, Object};

/// The kinds that are read here, each with its version.
pub const KINDS: [(&str, &str); 5] = [
    ("eventing.knative.dev/v1", "Broker"),
    ("eventing.knative.dev/v1", "Trigger"),
    ("eventing.knative.dev/v1alpha1", "KafkaSink"),
    ("sources.knative.dev/v1", "KafkaSource"),
    ("sources.knative.dev/v1", "PingSource"),
];

const BROKER_CLASS: &str = "eventing.knative.dev/broker.class";
const DELIVERY_ORDER: &str = "kafka.eventing.knative.dev/delivery.order";

/// Namespace and name.
pub(super) type Name = (String, String);

/// Everything that is to be delivered, and where to.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) brokers: BTreeMap<Name, Broker>,
    pub(super) sinks: BTreeMap<Name, KafkaSink>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) sources: Vec<KafkaSource>,
    pub(super) pings: Vec<PingSource>,
}

/// A topic as somebody wants it.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) bootstrap_servers: Vec<String>,
    pub(super) name: String,
    pub(super) partitions: Option<u16>,
    pub(super) replication: Option<u16>,
    /// Kafka's names and values.
    pub(super) settings: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) topic: Topic,
    delivery: Option<Egress>,
}

#[derive(Debug)]
pub(super) struct KafkaSink {
    pub(super) topic: Topic,
    pub(super) content_mode: ContentMode,
}

#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) name: Name,
    pub(super) broker: Name,
    pub(super) filter: Filter,
    pub(super) subscriber: String,
    pub(super) delivery: Delivery,
    pub(super) ordering: Ordering,
}

#[derive(Debug)]
pub(super) struct KafkaSource {
    pub(super) name: Name,
    pub(super) bootstrap_servers: Vec<String>,
    pub(super) topics: Vec<String>,
    pub(super) group: String,
    pub(super) consumers: u16,
    pub(super) start: Start,
    pub(super) ordering: Ordering,
    pub(super) delivery: Delivery,
    pub(super) sink: String,
    pub(super) extensions: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct PingSource {
    pub(super) name: Name,
    pub(super) schedule: Schedule,
    pub(super) content_type: Option<String>,
    pub(super) data: Vec<u8>,
    pub(super) sink: String,
    pub(super) extensions: BTreeMap<String, String>,
}

impl Plan {
    /// Reads the objects of Knative Eventing among `objects`, or returns everything that is
    /// wrong with them.
    pub fn read(objects: &[Object]) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader {
            objects,
            addresses: Addresses::of(objects),
            mistakes: Vec::new(),
        };
        let mut plan = Self::default();
        for object in reader.of("Broker") {
            let broker = reader.broker(object);
            plan.brokers
                .extend(broker.map(|broker| (name(object), broker)));
        }
        for object in reader.of("KafkaSink") {
            let sink = reader.sink(object);
            plan.sinks.extend(sink.map(|sink| (name(object), sink)));
        }
        for object in reader.of("Trigger") {
            plan.triggers.extend(reader.trigger(object, &plan.brokers));
        }
        for object in reader.of("KafkaSource") {
            if let Some(source) = reader.source(object) {
                // Members of the same names would push each other out for ever.
                let mut others = plan.sources.iter();
                if others.any(|other| other.group == source.group) {
                    let why = format!("{} is another KafkaSource's", source.group);
                    reader.wrong::<()>(object, "spec.consumerGroup", why);
                }
                plan.sources.push(source);
            }
        }
        for object in reader.of("PingSource") {
            plan.pings.extend(reader.ping(object));
        }
        if reader.mistakes.is_empty() {
            Ok(plan)
        } else {
            Err(reader.mistakes)
        }
    }
}

fn name(object: &Object) -> Name {
    (object.namespace.clone(), object.name.clone())
}

/// Reads on after a mistake, so that all are found at once.
struct Reader<'a> {
    objects: &'a [Object],
    addresses: Addresses,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn of(&self, kind: &'static str) -> impl Iterator<Item = &'a Object> + use<'a> {
        let is_kind = move |object: &&Object| {
            object.kind == kind && KINDS.contains(&(object.api_version.as_str(), kind))
        };
        self.objects.iter().filter(is_kind)
    }

    fn broker(&mut self, object: &Object) -> Option<Broker> {
        self.annotations(object, &[BROKER_CLASS]);
        if object.metadata("annotations", BROKER_CLASS) != Some("Kafka") {
            let field = format!("metadata.annotations.{BROKER_CLASS}");
            self.wrong::<()>(object, field, "only the class Kafka is known here");
        }
        let spec: BrokerSpec = self.part(object, "spec")?;
        let config = &spec.config;
        let namespace = config.namespace.as_ref().unwrap_or(&object.namespace);
        let map = self.objects.iter().find(|map| {
            (map.api_version.as_str(), map.kind.as_str()) == ("v1", "ConfigMap")
                && (&map.namespace, &map.name) == (namespace, &config.name)
        });
        if (config.kind.as_str(), map.is_some()) != ("ConfigMap", true) {
            let why = format!("there is no {} {namespace}/{}", config.kind, config.name);
            return self.wrong(object, "spec.config", why);
        }
        let map = map?;
        let data: BrokerConfig = self.part(map, "data")?;
        let mut count = |text: Option<String>, default, key: &str| match text {
            None => Some(default),
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => self.wrong(map, format!("data.{key}"), "is not a number of them"),
                Ok(count) => Some(count),
            },
        };
        let partitions = count(data.partitions, 10, "default.topic.partitions");
        let replication = count(data.replication, 3, "default.topic.replication.factor");
        let mut settings = BTreeMap::new();
        for (key, value) in data.topic {
            match key.strip_prefix("default.topic.config.") {
                Some(setting) => {
                    settings.insert(setting.to_owned(), value);
                }
                None => {
                    self.wrong::<()>(map, format!("data.{key}"), "is not known here");
                }
            }
        }
        let servers = data.bootstrap_servers.split(',');
        let delivery = self.egress(object, spec.delivery.as_ref());
        Some(Broker {
            topic: Topic {
                bootstrap_servers: servers.map(|server| server.trim().to_owned()).collect(),
                name: format!("knative-broker-{}-{}", object.namespace, object.name),
                partitions: Some(partitions?),
                replication: Some(replication?),
                settings,
            },
            delivery: delivery?,
        })
    }

    fn sink(&mut self, object: &Object) -> Option<KafkaSink> {
        self.annotations(object, &[]);
        let spec: KafkaSinkSpec = self.part(object, "spec")?;
        Some(KafkaSink {
            topic: Topic {
                bootstrap_servers: spec.bootstrap_servers,
                name: spec.topic,
                partitions: spec.num_partitions.map(Into::into),
                replication: spec.replication_factor.map(Into::into),
                settings: BTreeMap::new(),
            },
            content_mode: spec.content_mode,
        })
    }

    fn trigger(&mut self, object: &Object, brokers: &BTreeMap<Name, Broker>) -> Option<Trigger> {
        self.annotations(object, &[DELIVERY_ORDER]);
        let ordering = match object.metadata("annotations", DELIVERY_ORDER) {
            None | Some("unordered") => Some(Ordering::Unordered),
            Some("ordered") => Some(Ordering::Ordered),
            Some(_) => {
                let field = format!("metadata.annotations.{DELIVERY_ORDER}");
                self.wrong(object, field, "is neither ordered nor unordered")
            }
        };
        let spec: TriggerSpec = self.part(object, "spec")?;
        let broker = (object.namespace.clone(), spec.broker.clone());
        if !self.of("Broker").any(|object| name(object) == broker) {
            let why = format!("there is no Broker {}/{}", broker.0, broker.1);
            self.wrong::<()>(object, "spec.broker", why);
        }
        let subscriber = self.url(object, "spec.subscriber", &spec.subscriber);
        let delivery = self.egress(object, spec.delivery.as_ref());
        let attributes = spec.filter.map(|filter| filter.attributes);
        let filter = if spec.filters.is_empty() {
            match Filter::attributes(attributes.unwrap_or_default()) {
                Ok(filter) => Some(filter),
                Err(why) => self.wrong(object, "spec.filter.attributes", why),
            }
        } else {
            Some(Filter::All(spec.filters))
        };
        let of_broker = brokers.get(&broker)?.delivery.clone();
        Some(Trigger {
            name: name(object),
            broker,
            filter: filter?,
            subscriber: subscriber?,
            delivery: Delivery::of(merge(delivery?, of_broker)),
            ordering: ordering?,
        })
    }

    fn source(&mut self, object: &Object) -> Option<KafkaSource> {
        self.annotations(object, &[]);
        let key_type = "kafkasources.sources.knative.dev/key-type";
        if !matches!(object.metadata("labels", key_type), None | Some("string")) {
            let field = format!("metadata.labels.{key_type}");
            self.wrong::<()>(object, field, "only string is known here");
        }
        let spec: KafkaSourceSpec = self.part(object, "spec")?;
        let net = spec
            .net
            .iter()
            .flat_map(|net| [&net.sasl, &net.tls])
            .flatten();
        if net.into_iter().any(|net| net.enable) {
            self.wrong::<()>(
                object,
                "spec.net",
                "only a Kafka without TLS and SASL is known here",
            );
        }
        if spec.topics.is_empty() {
            self.wrong::<()>(object, "spec.topics", "names no topic");
        }
        let delivery = match &spec.delivery {
            None => Some(Delivery::of_kafka_source()),
            set => self.egress(object, set.as_ref()).map(Delivery::of),
        };
        let sink = self.url(object, "spec.sink", &spec.sink);
        let extensions = self.extensions(object, spec.ce_overrides);
        Some(KafkaSource {
            name: name(object),
            bootstrap_servers: spec.bootstrap_servers,
            topics: spec.topics,
            group: spec.consumer_group,
            consumers: spec.consumers.map_or(1, Into::into),
            start: match spec.initial_offset {
                InitialOffset::Earliest => Start::Earliest,
                InitialOffset::Latest => Start::Latest,
            },
            ordering: spec.ordering,
            delivery: delivery?,
            sink: sink?,
            extensions: extensions?,
        })
    }

    fn ping(&mut self, object: &Object) -> Option<PingSource> {
        self.annotations(object, &[]);
        let spec: PingSourceSpec = self.part(object, "spec")?;
        let schedule = match Schedule::read(&spec.schedule, spec.timezone.as_deref()) {
            Ok(schedule) => Some(schedule),
            Err(why) => self.wrong(object, "spec.schedule", why),
        };
        let data = match super::ping::data(&spec) {
            Ok(data) => Some(data),
            Err((field, why)) => self.wrong(object, format!("spec.{field}"), why),
        };
        let sink = self.url(object, "spec.sink", &spec.sink);
        let extensions = self.extensions(object, spec.ce_overrides);
        Some(PingSource {
            name: name(object),
            schedule: schedule?,
            content_type: spec.content_type,
            data: data?,
            sink: sink?,
            extensions: extensions?,
        })
    }

    fn egress(&mut self, object: &Object, spec: Option<&DeliverySpec>) -> Option<Option<Egress>> {
        let Some(spec) = spec else { return Some(None) };
        let sink = spec.dead_letter_sink.as_ref();
        let dead_letter = sink.map(|sink| self.url(object, "spec.delivery.deadLetterSink", sink));
        match dead_letter {
            Some(None) => None,
            Some(Some(url)) => Some(spec.egress(Some(url))),
            None => Some(spec.egress(None)),
        }
    }

    fn url(&mut self, object: &Object, field: &str, to: &Destination) -> Option<String> {
        match self.addresses.resolve(to, &object.namespace) {
            Ok(url) => Some(url),
            Err(why) => self.wrong(object, field, why),
        }
    }

    fn extensions(
        &mut self,
        object: &Object,
        overrides: Option<Overrides>,
    ) -> Option<BTreeMap<String, String>> {
        let extensions = overrides.map(|overrides| overrides.extensions);
        let extensions = extensions.unwrap_or_default();
        if let Some(name) = extensions.keys().find(|name| !is_attribute_name(name)) {
            let why = format!("{name:?} is not an attribute's name");
            return self.wrong(object, "spec.ceOverrides.extensions", why);
        }
        Some(extensions)
    }

    fn part<T: DeserializeOwned>(&mut self, object: &Object, part: &str) -> Option<T> {
        object
            .part(part)
            .map_err(|mistake| self.mistakes.push(mistake))
            .ok()
    }

    /// Annotations of eventing that are not `known` would be passed over in silence. Those of
    /// autoscaling make no difference on one machine.
    fn annotations(&mut self, object: &Object, known: &[&str]) {
        let annotations = object.value.pointer("/metadata/annotations");
        let annotations = annotations.and_then(|annotations| annotations.as_object());
        let ours = ["eventing.knative.dev", "kafka.eventing.knative.dev"];
        for key in annotations
            .into_iter()
            .flat_map(|annotations| annotations.keys())
        {
            let domain = key.split('/').next().unwrap_or_default();
            if ours.contains(&domain) && !known.contains(&key.as_str()) {
                let field = format!("metadata.annotations.{key}");
                self.wrong::<()>(object, field, "is not known here");
            }
        }
    }

    fn wrong<T>(
        &mut self,
        object: &Object,
        field: impl Into<String>,
        why: impl Into<String>,
    ) -> Option<T> {
        self.mistakes.push(object.mistake(field, why));
        None
    }
}
