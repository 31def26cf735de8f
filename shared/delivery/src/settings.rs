//! What is read from an environment of the ways in which events come, once for every function.

use runtime::{ByteSize, Env, Trigger};
use stream::KafkaConfig;

/// Room for one event of any size.
const MIN_IN_FLIGHT: ByteSize = ByteSize::mib(8);

/// Reads where Kafka is, for a function that reads it itself or for which Lambda does. Elsewhere
/// a KafkaSource reads it, and buries the dead: then no broker has to be named.
pub fn kafka(env: &Env, trigger: Trigger) -> Option<KafkaConfig> {
    let is_needed = trigger == Trigger::Kafka || runtime::on_lambda();
    let brokers =
        is_needed.then(|| env.required(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION));
    KafkaConfig::read(brokers.flatten(), |wanted| env.give(wanted))
}

/// Reads how many bytes of pushed events may be in memory.
pub fn in_flight(env: &Env, name: &'static str, description: &'static str) -> usize {
    let in_flight = env.or(name, ByteSize::mib(64), description);
    if in_flight < MIN_IN_FLIGHT {
        env.mistake(name, format!("must be {MIN_IN_FLIGHT} at least"));
    }
    in_flight.as_usize()
}
