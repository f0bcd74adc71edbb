-- Columns have the names that the code has for what they hold. SQLite adapts indexes, triggers, constraints and generated
-- columns to them.
ALTER TABLE meta RENAME COLUMN pepper_mark TO pepper_check_value;

ALTER TABLE tokens RENAME COLUMN old_until TO old_secret_until;
ALTER TABLE tokens RENAME COLUMN hard_at TO hard_limit_at;
ALTER TABLE tokens RENAME COLUMN dies_at TO expires_at;
ALTER TABLE tokens RENAME COLUMN expiry_noted TO expiry_recorded;

DROP INDEX tokens_by_death;
CREATE INDEX tokens_by_expiry ON tokens (expires_at, id) WHERE expires_at IS NOT NULL;
DROP INDEX tokens_dying;
CREATE INDEX tokens_expiring ON tokens (expires_at)
    WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND expiry_recorded = 0;

ALTER TABLE nodes RENAME COLUMN folder TO is_directory;
ALTER TABLE nodes RENAME COLUMN born TO birth_time;
ALTER TABLE nodes RENAME COLUMN namer TO named_by;

ALTER TABLE intents RENAME COLUMN folder TO is_directory;
ALTER TABLE intents RENAME COLUMN born TO birth_time;
ALTER TABLE intents RENAME COLUMN how TO kind;
ALTER TABLE intents RENAME COLUMN other_folder TO other_is_directory;
ALTER TABLE intents RENAME COLUMN other_born TO other_birth_time;

ALTER TABLE locks RENAME COLUMN deep TO depth_infinity;

ALTER TABLE journals RENAME COLUMN deep TO depth_infinity;
ALTER TABLE journals RENAME COLUMN floor TO purged_through;
ALTER TABLE journals RENAME COLUMN last TO last_number;
ALTER TABLE journal_entries RENAME COLUMN folder TO is_directory;
ALTER TABLE journal_entries RENAME COLUMN mark TO content_tag;

ALTER TABLE uploads RENAME COLUMN touched_at TO updated_at;
ALTER TABLE upload_parts RENAME COLUMN place TO staging_directory;
ALTER TABLE upload_parts RENAME COLUMN staged TO staged_name;

ALTER TABLE clock RENAME COLUMN seen_at TO wall_time;
ALTER TABLE clock RENAME COLUMN running_ms TO boottime_ms;
ALTER TABLE clock RENAME COLUMN boot TO boot_id;
ALTER TABLE clock RENAME COLUMN held_ms TO retention_wait_ms;

ALTER TABLE usage RENAME COLUMN what TO resource;
ALTER TABLE usage RENAME COLUMN who TO login;
