//! What the runner says of its functions and deliveries.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;

/// How things are at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) eventing: serde_json::Value,
}

/// A Service or a Deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) instances: Vec<Instance>,
    #[serde(default)]
    pub(super) cold_starts: ColdStarts,
}

/// One of its processes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) pid: Option<u32>,
    pub(super) port: u16,
    pub(super) restarts: u64,
}

/// How often a request found nobody, and how long the last of them took.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ColdStarts {
    pub(super) count: u64,
    pub(super) last_millis: Vec<u64>,
}

impl Status {
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
    fn function(&self) -> &str {
        self.name.strip_suffix("-pull").unwrap_or(&self.name)
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
    pub(super) millis: Vec<u64>,
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
        sum.restarts += service
            .instances
            .iter()
            .map(|one| one.restarts)
            .sum::<u64>();
        // Of those who are no more nothing is left.
        sum.resident_bytes += service
            .instances
            .iter()
            .map(Instance::resident_bytes)
            .sum::<u64>();
    }
    sums.values_mut()
        .for_each(|life| life.millis.sort_unstable());
    sums
}

/// Returns a line for each subscription, over all lives of the runner.
pub(super) fn deliveries(_lives: &[Status]) -> Vec<String> {
    Vec::new()
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
                {"namespace":"n","name":"process","instances":[],
                 "coldStarts":{"count":2,"lastMillis":[30,20]}},
                {"namespace":"n","name":"process-pull",
                 "instances":[{"pid":null,"port":1,"state":"ready","restarts":3}]}]}"#,
        )
        .unwrap();
        assert_eq!(status.instances("process").count(), 1);
        let lives = lives(&[status.clone(), status]);
        assert_eq!(lives["process"].millis, [20, 20, 30, 30]);
        assert_eq!(lives["process"].cold_starts, 4);
        assert_eq!(lives["process-pull"].restarts, 6);
    }
}
