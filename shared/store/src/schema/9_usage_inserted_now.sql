ALTER TABLE usage
    MODIFY COLUMN inserted_at DEFAULT now64(6, 'UTC')
