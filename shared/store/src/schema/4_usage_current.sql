-- The usage that counts, each row once. Grafana and people read this, never the table.
CREATE VIEW IF NOT EXISTS usage_current AS
SELECT meter, subject, time, value, text, groups,
       identity, content, definitions, ingested_at, stored_at
FROM usage FINAL
