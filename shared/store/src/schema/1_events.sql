-- Every accepted event, as it was sent, with what became of it.
-- Sorted by time first: people and replays ask by time, and rows of one month are near.
CREATE TABLE IF NOT EXISTS events
(
    identity    FixedString(16) CODEC(NONE),
    time        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    id          String CODEC(ZSTD(1)),
    source      LowCardinality(String),
    type        LowCardinality(String),
    subject     String CODEC(ZSTD(1)),
    data        String CODEC(ZSTD(1)),
    attributes  Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    state       Enum8('valid' = 0, 'invalid' = 1, 'conflict' = 2),
    error       String CODEC(ZSTD(1)),
    content     UInt64 CODEC(NONE),
    definitions UInt64 CODEC(ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stored_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    is_deleted  UInt8,
    INDEX identity identity TYPE bloom_filter(0.00001) GRANULARITY 1,
    INDEX stored_at stored_at TYPE minmax GRANULARITY 1,
    INDEX ingested_at ingested_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(stored_at, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (time, identity, content)
SETTINGS
    index_granularity = 8192,
    -- A month that is over becomes one part, where FINAL costs nothing.
    min_age_to_force_merge_seconds = 3600,
    min_age_to_force_merge_on_partition_only = 1,
    -- A repeated block is a repeat of rows, which the sorting key handles.
    non_replicated_deduplication_window = 0
