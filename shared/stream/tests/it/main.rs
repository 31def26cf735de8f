//! The codec from outside, and producer and consumer on a real Kafka.

mod http;
mod kafka;
mod laws;
mod live;
