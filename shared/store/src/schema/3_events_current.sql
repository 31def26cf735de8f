-- The events that stand, each once. Grafana and people read this, never the table.
CREATE VIEW IF NOT EXISTS events_current AS
SELECT time, id, source, type, subject, data, attributes, state, error,
       identity, content, definitions, ingested_at, stored_at
FROM events FINAL
