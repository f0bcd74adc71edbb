-- Roles on tokens: a JSON list of role names, which count only while the owner holds them.
ALTER TABLE tokens ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';

DROP TRIGGER epoch_tokens;
CREATE TRIGGER epoch_tokens
    AFTER UPDATE OF user_id, parent, phc, prefilter, old_phc, old_until, hard_at, window_ms, scoped, limits, roles, revoked_at ON tokens
    BEGIN UPDATE meta SET epoch = epoch + 1; END;
