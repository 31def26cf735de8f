-- Writes 1970 into the parts that lack the column, for they would take on step 9's default.
-- Goes on by itself: step 8 waits for it. A row that has its time keeps it.
ALTER TABLE usage
    UPDATE inserted_at = toDateTime64(0, 6, 'UTC') WHERE inserted_at = toDateTime64(0, 6, 'UTC')
SETTINGS mutations_sync = 0
