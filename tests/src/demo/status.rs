//! What the runner says of its functions and deliveries.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;

/// What the manifests call a function that is a consumer group, after its name.
const PULL: &str = "-pull";

/// A ping that comes to nothing is made up for by the next one.
const PING: &str = "PingSource";

/// How things are at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) services: Vec<Service>,
    pub(super) eventing: Vec<Subscription>,
}

/// What became of a trigger's or a source's events since the runner's start.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscription {
    kind: String,
    pub(super) name: String,
    pub(super) delivered: u64,
    retries: u64,
    dead_letters: u64,
    lost: u64,
    pub(super) in_flight: u64,
}

/// A Service or a Deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) instances: Vec<Instance>,
    pub(super) cold_starts: ColdStarts,
    /// Of all its processes, those that are no more too.
    pub(super) restarts: u64,
}

/// One of its processes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) pid: Option<u32>,
    pub(super) port: u16,
}

/// How often a request found nobody, and how long the last of them took.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ColdStarts {
    pub(super) count: u64,
    pub(super) last_millis: Vec<f64>,
}

impl Status {
    /// Returns how many pings were delivered, and how many are on their way.
    pub(super) fn pings(&self) -> (u64, u64) {
        let pings = self.eventing.iter().filter(|one| one.kind == PING);
        pings.fold((0, 0), |(delivered, in_flight), ping| {
            (delivered + ping.delivered, in_flight + ping.in_flight)
        })
    }

    /// Returns the processes of a function, whatever triggers them.
    pub(super) fn instances<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a Instance> {
        let is_of = move |service: &&Service| service.function() == function;
        let services = self.services.iter().filter(is_of);
        services.flat_map(|service| &service.instances)
    }
}

impl Service {
    /// Returns the function's name: the manifests call it the same in push mode, and say how
    /// it is triggered else.
    pub(super) fn function(&self) -> &str {
        self.name.strip_suffix(PULL).unwrap_or(&self.name)
    }

    /// Says whether it takes events from Kafka itself.
    pub(super) fn is_pulling(&self) -> bool {
        self.name.ends_with(PULL)
    }
}

impl Instance {
    /// Returns the process's resident memory, 0 without a process.
    pub(super) fn resident_bytes(&self) -> u64 {
        let status = self
            .pid
            .map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
        resident_bytes(&status.and_then(Result::ok).unwrap_or_default())
    }
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// What is printed of a Service, over all lives of the runner.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) cold_starts: u64,
    /// In order.
    pub(super) millis: Vec<f64>,
    pub(super) restarts: u64,
    pub(super) resident_bytes: u64,
}

/// Sums the lives of the runner up, by Service.
pub(super) fn lives(lives: &[Status]) -> BTreeMap<String, Life> {
    let mut sums: BTreeMap<String, Life> = BTreeMap::new();
    for service in lives.iter().flat_map(|status| &status.services) {
        let sum = sums.entry(service.name.clone()).or_default();
        sum.cold_starts += service.cold_starts.count;
        sum.millis.extend(&service.cold_starts.last_millis);
        sum.restarts += service.restarts;
        // Of those who are no more nothing is left.
        let sizes = service.instances.iter().map(Instance::resident_bytes);
        sum.resident_bytes = sizes.sum();
    }
    for sum in sums.values_mut() {
        sum.millis.sort_unstable_by(f64::total_cmp);
    }
    sums
}

/// Returns how often processes of each function were started again, over all lives of the runner.
pub(super) fn restarts(lives: &[Status]) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::new();
    for service in lives.iter().flat_map(|status| &status.services) {
        *sums.entry(service.function()).or_default() += service.restarts;
    }
    sums
}

/// What became of a subscription's events, over all lives of the runner.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) delivered: u64,
    pub(super) retries: u64,
    pub(super) dead_letters: u64,
    pub(super) lost: u64,
}

/// Sums the lives of the runner up, by trigger or source of events.
pub(super) fn deliveries(lives: &[Status]) -> BTreeMap<String, Deliveries> {
    let mut sums: BTreeMap<String, Deliveries> = BTreeMap::new();
    let all = lives.iter().flat_map(|status| &status.eventing);
    for one in all.filter(|one| one.kind != PING) {
        let sum = sums
            .entry(format!("{} {}", one.kind, one.name))
            .or_default();
        sum.delivered += one.delivered;
        sum.retries += one.retries;
        sum.dead_letters += one.dead_letters;
        sum.lost += one.lost;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tingest\nVmRSS:\t   14336 kB\nThreads:\t3\n"),
            14_680_064
        );
        assert_eq!(resident_bytes(""), 0);
    }

    #[test]
    fn lives_are_summed_up_by_service() {
        let status: Status = serde_json::from_str(
            r#"{"services":[
                {"namespace":"n","name":"process","instances":[],"restarts":1,
                 "coldStarts":{"count":2,"lastMillis":[30.5,20],"lastStartMillis":[]}},
                {"namespace":"n","name":"process-pull",
                 "instances":[{"pid":null,"port":1,"state":"ready","restarts":2}],"restarts":3,
                 "coldStarts":{"count":0,"lastMillis":[],"lastStartMillis":[]}}],
                "eventing":[{"kind":"Trigger","namespace":"n","name":"ingest","delivered":7,
                 "filtered":0,"replies":0,"retries":1,"failed":0,"deadLetters":0,"lost":0,
                 "inFlight":0,"lag":0},
                 {"kind":"PingSource","namespace":"n","name":"quota-reconcile","delivered":1,
                 "filtered":0,"replies":0,"retries":5,"failed":1,"deadLetters":0,"lost":1,
                 "inFlight":0,"lag":0}]}"#,
        )
        .unwrap();
        assert_eq!(status.instances("process").count(), 1);
        assert_eq!(status.pings(), (1, 0));
        let both = [status.clone(), status];
        let services = lives(&both);
        assert_eq!(services["process"].millis, [20.0, 20.0, 30.5, 30.5]);
        assert_eq!(services["process"].cold_starts, 4);
        assert_eq!(services["process-pull"].restarts, 6);
        assert_eq!(restarts(&both)["process"], 8);
        let deliveries = deliveries(&both);
        assert_eq!(deliveries["Trigger ingest"].delivered, 14);
        assert_eq!(deliveries.len(), 1);
    }
}
