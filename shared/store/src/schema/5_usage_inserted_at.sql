-- When a row was inserted, by the server's clock: a reader that knows up to when it has read
-- finds what came since, whatever the row's own times say. Rows from before this step have 1970.
ALTER TABLE usage
    ADD COLUMN IF NOT EXISTS inserted_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
