-- Roles on tokens: a JSON list of role names, which count only while the owner holds them.
ALTER TABLE tokens ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';

DROP TRIGGER epoch_tokens;
CREATE TRIGGER epoch_tokens
    AFTER UPDATE OF user_id, parent, phc, prefilter, old_phc, old_until, hard_at, window_ms, scoped, limits, roles, revoked_at ON tokens
    BEGIN UPDATE meta SET epoch = epoch + 1; END;

-- The audit trail. It names users and tokens by their texts, so that it outlives both. Nothing here
-- says what a caller may do: it moves no epoch.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    user     TEXT,                          -- whom it concerns
    token    TEXT,                          -- which token it concerns
    actor    TEXT,                          -- by whom: administrator, server, or LOGIN/TOKEN
    address  TEXT,
    client   TEXT,
    protocol TEXT,
    path     TEXT,
    count    INTEGER NOT NULL DEFAULT 1,
    detail   TEXT
) STRICT;
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_kind ON events (kind);
CREATE INDEX events_by_user ON events (user) WHERE user IS NOT NULL;
CREATE INDEX events_by_token ON events (token) WHERE token IS NOT NULL;
