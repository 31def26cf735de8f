ALTER TABLE usage
    ADD INDEX IF NOT EXISTS inserted_at inserted_at TYPE minmax GRANULARITY 1
