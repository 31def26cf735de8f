-- Credits that were given to subjects. A grant that is inserted twice is one grant.
CREATE TABLE IF NOT EXISTS grants
(
    subject    String CODEC(ZSTD(1)),
    id         String CODEC(ZSTD(1)),
    amount     Decimal(18, 6) CODEC(ZSTD(1)),
    note       String CODEC(ZSTD(1)),
    granted_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stored_at  DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(stored_at)
ORDER BY (subject, id)
SETTINGS
    index_granularity = 8192,
    non_replicated_deduplication_window = 0
