-- The clock as the last server saw it, so that the next one notices a jump: at most one row.
CREATE TABLE clock (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    seen_at INTEGER NOT NULL,               -- the last time that it showed
    running_ms INTEGER NOT NULL,            -- for how long the machine had been running then
    boot    TEXT    NOT NULL,               -- which start of the machine that was
    held_ms INTEGER NOT NULL,               -- for how long retention has been waiting, in running time
    jumps   TEXT    NOT NULL                -- a JSON list of the jumps that are not trusted yet
) STRICT;

-- A token whose expiration was recorded is not accepted any more, whatever the clock shows later.
DROP TRIGGER epoch_tokens;
CREATE TRIGGER epoch_tokens
    AFTER UPDATE OF user_id, parent, phc, prefilter, old_phc, old_until, hard_at, window_ms, scoped, limits, roles, revoked_at, expiry_noted ON tokens
    BEGIN UPDATE meta SET epoch = epoch + 1; END;

CREATE INDEX tokens_in_grace ON tokens (old_until) WHERE old_until IS NOT NULL;
