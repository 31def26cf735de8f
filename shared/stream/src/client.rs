//! What producer, consumer and admin client have in common.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::KafkaConfig;

/// The largest record, headers included. An event is 1 MiB at most; this leaves
/// room for attributes.
pub(crate) const MAX_RECORD_BYTES: usize = 2 << 20;

/// The largest record in the topic of the dead: any that the topic of events takes, and what
/// its burial adds.
pub const MAX_DEAD_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// Returns the settings that every client has.
pub(crate) fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("client.id", "openmeter")
        .set("security.protocol", config.security.as_str())
        // librdkafka waits for half of this before it goes on from a bootstrap address to the broker
        // itself, which is most of what a cold start would take.
        .set("reconnect.backoff.ms", "20")
        // A broker that comes back is found within seconds, not within librdkafka's ten.
        .set("reconnect.backoff.max.ms", "2000")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    if let Some(sasl) = &config.sasl {
        settings
            .set("sasl.mechanism", sasl.mechanism.as_str())
            .set("sasl.username", &sasl.user)
            .set("sasl.password", sasl.password.expose());
    }
    if let Some(ca_file) = &config.ca_file {
        settings.set("ssl.ca.location", ca_file.to_string_lossy());
    }
    settings
}

/// Logs a line of librdkafka's. It retries by itself, so nothing that it says means that
/// something is lost: that is said where it is known, by a failed send or batch.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(facility, "kafka: {message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka: {message}"),
    }
}
