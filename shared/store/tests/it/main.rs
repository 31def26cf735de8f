//! The store on the real engine: OPENMETER_CLICKHOUSE_ADDRESS, or what `make up` starts.

mod aggregations;
mod events;
mod history;
mod measure;
mod rows;
mod schema;
mod windows;
