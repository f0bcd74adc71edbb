-- Roles on tokens: a JSON list of role names, which count only while the owner holds them.
ALTER TABLE tokens ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';

-- Incremented by every change of a token, except for uses.
ALTER TABLE tokens ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

DROP INDEX tokens_by_parent;
CREATE INDEX tokens_by_parent ON tokens (parent, id) WHERE parent IS NOT NULL;
DROP INDEX tokens_by_user;
CREATE INDEX tokens_by_user ON tokens (user_id, id);

DROP TRIGGER epoch_tokens;
CREATE TRIGGER epoch_tokens
    AFTER UPDATE OF user_id, parent, phc, prefilter, old_phc, old_until, hard_at, window_ms, scoped, limits, roles, revoked_at ON tokens
    BEGIN UPDATE meta SET epoch = epoch + 1; END;

-- The audit trail. It names users and tokens by their texts, so that it outlives both. It does not affect
-- access, so it does not advance the epoch.
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

-- Prefilters of secrets that a rotation replaced, by which their later use is detected.
CREATE TABLE retired (
    id        INTEGER PRIMARY KEY,
    token     TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    prefilter BLOB    NOT NULL CHECK (length(prefilter) = 8)
) STRICT;
CREATE INDEX retired_by_token ON retired (token, prefilter);
CREATE TRIGGER tokens_retire AFTER UPDATE OF prefilter ON tokens WHEN old.prefilter <> new.prefilter
    BEGIN
        INSERT INTO retired (token, prefilter) VALUES (old.id, old.prefilter);
        DELETE FROM retired WHERE token = old.id AND id NOT IN
            (SELECT id FROM retired WHERE token = old.id ORDER BY id DESC LIMIT 16);
    END;

-- The networks that a token was used from: one that is not among them is new.
CREATE TABLE sightings (
    token   TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    network TEXT    NOT NULL,
    at      INTEGER NOT NULL,               -- the first time
    PRIMARY KEY (token, network)
) STRICT, WITHOUT ROWID;

-- Time at which a token expires if it is not used any more, without regard to the tokens above it; NULL: never. Its
-- expiration is recorded once, and it is deleted after the retention of the policy.
ALTER TABLE tokens ADD COLUMN dies_at INTEGER AS
    (CASE WHEN window_ms IS NULL THEN hard_at
          ELSE min(coalesce(hard_at, 9223372036854775807), coalesce(last_used_at, created_at) + window_ms) END) VIRTUAL;
ALTER TABLE tokens ADD COLUMN expiry_noted INTEGER NOT NULL DEFAULT 0 CHECK (expiry_noted IN (0, 1));
CREATE INDEX tokens_by_death ON tokens (dies_at, id) WHERE dies_at IS NOT NULL;
CREATE INDEX tokens_dying ON tokens (dies_at) WHERE dies_at IS NOT NULL AND revoked_at IS NULL AND expiry_noted = 0;
CREATE INDEX tokens_expired ON tokens (dies_at) WHERE expiry_noted = 1;
CREATE INDEX tokens_revoked ON tokens (revoked_at, id) WHERE revoked_at IS NOT NULL;
