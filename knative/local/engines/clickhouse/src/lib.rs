//! ClickHouse's engine (libchdb) behind ClickHouse's HTTP protocol, for laptops
//! and tests where no ClickHouse server can be had. Production uses ClickHouse.
//!
//! Layout:
//! - [`config`]: the environment, read once.
//! - [`chdb`]: the C library behind a safe API, and the only unsafe code.
//! - [`engine`]: one folder, one lock, one idle connection.
//! - [`auth`]: who asks, and whether that user may write.
//! - [`request`]: one HTTP request, taken apart into user, settings and SQL.
//! - [`sql`]: the little that must be known of a statement before it runs.
//! - [`values`]: no second statement behind the data of an INSERT.
//! - [`native`]: ClickHouse's compressed block framing, both directions.
//! - [`formats`]: which output can be streamed, and under what content type.
//! - [`work`]: the blocking half, one statement on one connection.
//! - [`http`]: the routes, and the asynchronous half.
//! - [`exception`]: errors as ClickHouse words them, with their HTTP status.
//!
//! It is not a cluster, has no users in SQL, and keeps no session between two
//! requests: `session_id` is accepted and changes nothing.

pub mod auth;
pub mod chdb;
pub mod config;
pub mod engine;
pub mod exception;
pub mod formats;
pub mod http;
pub mod native;
pub mod request;
pub mod sql;
pub mod values;
pub mod work;
