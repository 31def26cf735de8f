//! How often, how patiently and where else: `spec.delivery`, read and merged as the Kafka class
//! of Knative does.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::address::Destination;

/// How long one attempt may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What waits are multiples of, where there are retries and nobody says.
const BACKOFF_DELAY: Duration = Duration::from_secs(1);

/// `spec.delivery`, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DeliverySpec {
    pub(crate) dead_letter_sink: Option<Destination>,
    retry: Option<u32>,
    backoff_policy: Option<BackoffPolicy>,
    #[serde(deserialize_with = "iso8601")]
    backoff_delay: Option<Duration>,
    #[serde(deserialize_with = "positive")]
    timeout: Option<Duration>,
    // Checked only: the Kafka class always delivers in binary mode.
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Binary,
    Json,
}

/// How waits grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffPolicy {
    /// By one delay each.
    Linear,
    /// Twofold each.
    #[default]
    Exponential,
}

/// Returns how long to wait before retry `n`, from 1.
pub fn backoff(policy: BackoffPolicy, delay: Duration, n: u32) -> Duration {
    let times = match policy {
        BackoffPolicy::Linear => n,
        BackoffPolicy::Exponential => 2_u32.saturating_pow(n),
    };
    delay.saturating_mul(times)
}

/// How an event is delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Attempts after the first.
    pub retry: u32,
    /// How waits between attempts grow.
    pub policy: BackoffPolicy,
    /// What waits are multiples of.
    pub delay: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The URL for events that cannot be delivered.
    pub dead_letter: Option<String>,
}

impl Delivery {
    /// Returns what a KafkaSource without `spec.delivery` does.
    pub fn of_kafka_source() -> Self {
        Self {
            retry: 10,
            policy: BackoffPolicy::Exponential,
            delay: Duration::from_millis(300),
            timeout: TIMEOUT,
            dead_letter: None,
        }
    }

    /// Returns what `set` comes to.
    pub fn of(set: Option<Egress>) -> Self {
        let set = set.unwrap_or_default();
        Self {
            retry: set.retry,
            policy: set.policy,
            delay: set.delay,
            timeout: if set.timeout.is_zero() {
                TIMEOUT
            } else {
                set.timeout
            },
            dead_letter: set.dead_letter,
        }
    }
}

/// What the control plane tells the data plane: nought and nothing mean "not set".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Egress {
    dead_letter: Option<String>,
    retry: u32,
    policy: BackoffPolicy,
    delay: Duration,
    timeout: Duration,
}

impl DeliverySpec {
    /// Returns what it sets, with the URL of its dead letter sink. Without retry, the backoff is
    /// not looked at.
    pub fn egress(&self, dead_letter: Option<String>) -> Option<Egress> {
        if dead_letter.is_none() && self.retry.is_none() && self.timeout.is_none() {
            return None;
        }
        let mut egress = Egress {
            dead_letter,
            timeout: self.timeout.unwrap_or_default(),
            ..Egress::default()
        };
        if let Some(retry) = self.retry {
            egress.retry = retry;
            egress.delay = self.backoff_delay.unwrap_or(BACKOFF_DELAY);
            egress.policy = self.backoff_policy.unwrap_or_default();
        }
        Some(egress)
    }
}

/// Merges a Trigger's delivery over its Broker's: field by field, but for the policy, which is
/// the Trigger's if it has a delivery at all.
pub fn merge(trigger: Option<Egress>, broker: Option<Egress>) -> Option<Egress> {
    let (Some(trigger), Some(broker)) = (&trigger, &broker) else {
        return trigger.or(broker);
    };
    let or = |a: Duration, b: Duration| if a.is_zero() { b } else { a };
    Some(Egress {
        dead_letter: trigger.dead_letter.clone().or(broker.dead_letter.clone()),
        retry: if trigger.retry == 0 {
            broker.retry
        } else {
            trigger.retry
        },
        policy: trigger.policy,
        delay: or(trigger.delay, broker.delay),
        timeout: or(trigger.timeout, broker.timeout),
    })
}

fn iso8601<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format!("{text:?} is not an ISO 8601 duration such as PT1S"));
    // A Span also reads "1s", which Knative does not.
    if !text.starts_with('P') {
        return Err(wrong());
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    duration.try_into().map(Some).map_err(|_| wrong())
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let duration = iso8601(deserializer)?;
    if duration.is_some_and(|duration| duration.is_zero()) {
        return Err(D::Error::custom("must be more than nothing"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<DeliverySpec, String> {
        serde_json::from_value(spec).map_err(|error| error.to_string())
    }

    fn egress(spec: serde_json::Value, dead_letter: Option<&str>) -> Option<Egress> {
        read(spec).unwrap().egress(dead_letter.map(str::to_owned))
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn waits_are_those_of_the_kafka_broker() {
        let ms = Duration::from_millis;
        let waits = |policy, delay| {
            let waits = (1..=5).map(|n| backoff(policy, ms(delay), n).as_millis());
            waits.collect::<Vec<_>>()
        };
        let linear = waits(BackoffPolicy::Linear, 100);
        assert_eq!(linear, [100, 200, 300, 400, 500]);
        let exponential = waits(BackoffPolicy::Exponential, 100);
        assert_eq!(exponential, [200, 400, 800, 1600, 3200]);
        let longest = backoff(BackoffPolicy::Exponential, Duration::MAX, 600);
        assert_eq!(longest, Duration::MAX);
    }

    #[test]
    fn a_delivery_is_admitted_as_knative_admits_it() {
        for spec in [
            json!({"retry": 0}),
            json!({"backoffPolicy": "linear"}),
            json!({"backoffPolicy": "exponential"}),
            json!({"backoffDelay": "PT0.5S"}),
            json!({"backoffDelay": "P1D"}),
            json!({"timeout": "PT1M"}),
            json!({"format": "binary"}),
            json!({"format": "json"}),
        ] {
            assert!(read(spec.clone()).is_ok(), "{spec}");
        }
        for spec in [
            json!({"retry": -1}),
            json!({"retries": 1}),
            json!({"backoffPolicy": "constant"}),
            json!({"backoffDelay": "1s"}),
            json!({"backoffDelay": "P1M"}),
            json!({"timeout": "PT0S"}),
            json!({"retryAfterMax": "PT1S"}),
        ] {
            assert!(read(spec.clone()).is_err(), "{spec}");
        }
    }

    #[test]
    fn a_retry_waits_a_second_and_an_attempt_ten_minutes_if_nobody_says() {
        let delivery = Delivery::of(egress(json!({"retry": 3}), None));
        assert_eq!((delivery.retry, delivery.delay), (3, secs(1)));
        assert_eq!(delivery.policy, BackoffPolicy::Exponential);
        assert_eq!(delivery.timeout, secs(600));
        let none = Delivery::of(egress(json!({"backoffDelay": "PT5S"}), None));
        assert_eq!((none.retry, none.delay), (0, secs(0)));
    }

    #[test]
    fn a_triggers_delivery_goes_over_its_brokers_field_by_field() {
        let broker = || {
            egress(
                json!({"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT2S",
                    "timeout": "PT9S"}),
                Some("http://b"),
            )
        };
        assert_eq!(merge(None, broker()), broker());
        assert_eq!(merge(broker(), None), broker());
        assert_eq!(merge(None, None), None);

        // del-005b: a Trigger that only retries keeps its Broker's dead letter sink.
        let retries = merge(egress(json!({"retry": 2}), None), broker()).unwrap();
        assert_eq!(retries.dead_letter.as_deref(), Some("http://b"));
        assert_eq!((retries.retry, retries.delay), (2, secs(1)));
        assert_eq!(retries.timeout, secs(9));
        assert_eq!(retries.policy, BackoffPolicy::Exponential);

        let sink = merge(egress(json!({}), Some("http://t")), broker()).unwrap();
        assert_eq!(sink.dead_letter.as_deref(), Some("http://t"));
        assert_eq!((sink.retry, sink.delay), (5, secs(2)));
        // The Broker's was linear.
        assert_eq!(sink.policy, BackoffPolicy::Exponential);
    }
}
