-- Indexes the parts of before. Mutations end in their order, so step 6 is done when this is:
-- if that takes longer than a step may, the next try waits for the rest.
ALTER TABLE usage
    MATERIALIZE INDEX inserted_at
SETTINGS mutations_sync = 2
