-- What each event adds to each meter. Every column of the sorting key is taken from the
-- event, so a row that is written again is the same row. Content is in it so that the
-- row of a conflicting event can be taken away without the winner's.
CREATE TABLE IF NOT EXISTS usage
(
    meter       LowCardinality(String),
    subject     String CODEC(ZSTD(1)),
    time        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    identity    FixedString(16) CODEC(NONE),
    content     UInt64 CODEC(NONE),
    value       Decimal(38, 19) CODEC(ZSTD(1)),
    text        String CODEC(ZSTD(1)),
    groups      Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    definitions UInt64 CODEC(ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stored_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    is_deleted  UInt8,
    INDEX stored_at stored_at TYPE minmax GRANULARITY 1,
    INDEX ingested_at ingested_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(stored_at, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (meter, subject, time, identity, content)
SETTINGS
    index_granularity = 8192,
    min_age_to_force_merge_seconds = 3600,
    min_age_to_force_merge_on_partition_only = 1,
    non_replicated_deduplication_window = 0
