//! clickhouse-engine: to be written.
