-- Every account as it was at some instants: for charts, decides nothing.
CREATE TABLE IF NOT EXISTS balances
(
    subject String CODEC(ZSTD(1)),
    at      DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    balance Decimal(18, 6) CODEC(ZSTD(1)),
    held    Decimal(18, 6) CODEC(ZSTD(1)),
    -- How far below zero the balance may go. NULL: without end.
    limit   Nullable(Decimal(18, 6)) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (subject, at)
TTL toDateTime(at) + INTERVAL 400 DAY
SETTINGS
    index_granularity = 8192,
    ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 0
