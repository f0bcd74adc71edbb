-- The state of patgate. Times are milliseconds since 1970 (UTC) unless noted otherwise.

CREATE TABLE meta (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    epoch    INTEGER NOT NULL,              -- moves whenever what a caller may do may have changed
    etag_key BLOB    NOT NULL CHECK (length(etag_key) = 32),
    root     BLOB                           -- the served folder, as `serve` was told
) STRICT;

CREATE TABLE policy (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id          INTEGER PRIMARY KEY,
    login       TEXT    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;

CREATE TABLE user_roles (
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role    TEXT    NOT NULL,
    PRIMARY KEY (user_id, role)
) STRICT, WITHOUT ROWID;

-- A grant's node has no foreign key: a grant whose node was deleted dangles, is shown as such and never
-- applies to another node.
CREATE TABLE grants (
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    node       BLOB    NOT NULL CHECK (length(node) = 16),
    permission INTEGER NOT NULL CHECK (permission BETWEEN 1 AND 3),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id                 TEXT    PRIMARY KEY CHECK (length(id) = 8),
    user_id            INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    parent             TEXT    REFERENCES tokens (id) ON DELETE CASCADE,
    name               TEXT    NOT NULL,
    description        TEXT    NOT NULL DEFAULT '',
    phc                TEXT    NOT NULL,    -- argon2id of the secret
    prefilter          BLOB    NOT NULL CHECK (length(prefilter) = 8),
    old_phc            TEXT,                -- the secret before the last rotation, until its grace ends
    old_prefilter      BLOB    CHECK (length(old_prefilter) = 8),
    old_until          INTEGER,
    created_at         INTEGER NOT NULL,
    hard_at            INTEGER,             -- the hard limit, or the cap of a sliding window; NULL: never
    window_ms          INTEGER,             -- the sliding window; NULL: none
    last_used_at       INTEGER,
    last_used_from     TEXT,
    last_used_client   TEXT,
    last_used_protocol TEXT,
    scoped             INTEGER NOT NULL CHECK (scoped IN (0, 1)),
    limits             TEXT    NOT NULL DEFAULT '{}',
    revoked_at         INTEGER
) STRICT;
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;

CREATE TABLE scopes (
    token_id   TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    node       BLOB    NOT NULL CHECK (length(node) = 16),
    permission INTEGER NOT NULL CHECK (permission BETWEEN 1 AND 3),
    PRIMARY KEY (token_id, node)
) STRICT, WITHOUT ROWID;

-- The named nodes, each with its ancestors up to the root (whose parent is NULL and name empty).
CREATE TABLE nodes (
    id     BLOB    PRIMARY KEY CHECK (length(id) = 16),
    parent BLOB    REFERENCES nodes (id) ON DELETE CASCADE,
    name   BLOB    NOT NULL,
    folder INTEGER NOT NULL CHECK (folder IN (0, 1)),
    inode  INTEGER,                         -- of a folder, as a signed 64-bit number
    born   INTEGER,                         -- of a folder, nanoseconds since 1970; NULL where the file system has no birth time
    UNIQUE (parent, name)
) STRICT;
CREATE UNIQUE INDEX nodes_one_root ON nodes (name) WHERE parent IS NULL;

-- Intents: changes of named nodes that were begun on the file system; completed or undone at the next start.
CREATE TABLE intents (
    id     INTEGER PRIMARY KEY,
    source BLOB    NOT NULL,                -- where the changing entry was
    target BLOB,                            -- where it goes; NULL: it is removed
    folder INTEGER NOT NULL CHECK (folder IN (0, 1)),
    inode  INTEGER NOT NULL,
    born   INTEGER
) STRICT;

CREATE TABLE locks (
    token      TEXT    PRIMARY KEY,
    path       BLOB    NOT NULL,            -- canonical, from the root of the tree
    deep       INTEGER NOT NULL CHECK (deep IN (0, 1)),
    exclusive  INTEGER NOT NULL CHECK (exclusive IN (0, 1)),
    login      TEXT    NOT NULL,
    owner      TEXT    NOT NULL,            -- the client's owner element, as XML
    timeout_ms INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE properties (
    node      BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    value     TEXT NOT NULL,                -- the whole element, as XML
    PRIMARY KEY (node, namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER epoch_users AFTER UPDATE ON users BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_users_gone AFTER DELETE ON users BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_roles_new AFTER INSERT ON user_roles BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_roles_gone AFTER DELETE ON user_roles BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_grants_new AFTER INSERT ON grants BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_grants AFTER UPDATE ON grants BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_grants_gone AFTER DELETE ON grants BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_tokens
    AFTER UPDATE OF user_id, parent, phc, prefilter, old_phc, old_until, hard_at, window_ms, scoped, limits, revoked_at ON tokens
    BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_tokens_gone AFTER DELETE ON tokens BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_scopes_new AFTER INSERT ON scopes BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_scopes AFTER UPDATE ON scopes BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_scopes_gone AFTER DELETE ON scopes BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_nodes AFTER UPDATE ON nodes BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_nodes_gone AFTER DELETE ON nodes BEGIN UPDATE meta SET epoch = epoch + 1; END;
