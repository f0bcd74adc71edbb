-- Notices for administrators, which wait for their receivers here until they are delivered (notices.rs). The server writes
-- what its settings ask for, so that every process that records an event knows whether it is a notice, too.
CREATE TABLE notice_kinds (
    kind TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE notice_receivers (
    name         TEXT    NOT NULL PRIMARY KEY,  -- 'mail ADDRESS', or 'webhook ORIGIN' and a part of the hash of its URL
    delivered    INTEGER NOT NULL DEFAULT 0,
    failed       INTEGER NOT NULL DEFAULT 0,    -- attempts
    dropped      INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    failed_at    INTEGER,
    failure      TEXT                           -- of the last failed attempt
) STRICT, WITHOUT ROWID;

CREATE TABLE notices (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT    NOT NULL,                -- the same for all receivers and attempts
    receiver   TEXT    NOT NULL REFERENCES notice_receivers (name) ON DELETE CASCADE,
    kind       TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    content    TEXT    NOT NULL,                -- JSON
    attempts   INTEGER NOT NULL DEFAULT 0,
    due_at     INTEGER NOT NULL,
    failure    TEXT
) STRICT;
CREATE INDEX notices_by_time ON notices (receiver, due_at);
CREATE INDEX notices_by_kind ON notices (receiver, kind, id);

-- Conditions of which a notice was made: none follows while the value stays, also over restarts.
CREATE TABLE notice_conditions (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Tokens whose expiration was announced, by the number of days before it.
CREATE TABLE expiry_notices (
    token TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    days  INTEGER NOT NULL,
    PRIMARY KEY (token, days)
) STRICT, WITHOUT ROWID;
