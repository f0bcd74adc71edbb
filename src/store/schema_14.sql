-- Ids are never reused, not even after the newest row was deleted: an id that is still known somewhere, as in a cache or in
-- another process, must not come to mean another row.

-- Dropping `users` under foreign keys would delete all tokens and grants with it: the migration fails where they are on.
CREATE TABLE migration_guard (foreign_keys INTEGER NOT NULL CHECK (foreign_keys = 0)) STRICT;
INSERT INTO migration_guard (foreign_keys) SELECT foreign_keys FROM pragma_foreign_keys;
DROP TABLE migration_guard;

CREATE TABLE new_users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    login       TEXT    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;
INSERT INTO new_users (id, login, created_at, disabled_at) SELECT id, login, created_at, disabled_at FROM users;
DROP TABLE users;
ALTER TABLE new_users RENAME TO users;
-- Dropped with the table.
CREATE TRIGGER epoch_users AFTER UPDATE ON users BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER epoch_users_gone AFTER DELETE ON users BEGIN UPDATE meta SET epoch = epoch + 1; END;

CREATE TABLE new_intents (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    source       BLOB    NOT NULL,          -- path of the entry before the change
    target       BLOB,                      -- path that it is moved to; NULL: it is removed
    folder       INTEGER NOT NULL CHECK (folder IN (0, 1)),
    inode        INTEGER NOT NULL,
    born         INTEGER,
    how          TEXT    CHECK (how IN ('swap', 'copy')),
    other_folder INTEGER CHECK (other_folder IN (0, 1)),
    other_inode  INTEGER,
    other_born   INTEGER
) STRICT;
INSERT INTO new_intents (id, source, target, folder, inode, born, how, other_folder, other_inode, other_born)
    SELECT id, source, target, folder, inode, born, how, other_folder, other_inode, other_born FROM intents;
DROP TABLE intents;
ALTER TABLE new_intents RENAME TO intents;

-- The trigger names `retired`, which must exist whenever a table is renamed.
DROP TRIGGER tokens_retire;
CREATE TABLE new_retired (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    token     TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    prefilter BLOB    NOT NULL CHECK (length(prefilter) = 8)
) STRICT;
INSERT INTO new_retired (id, token, prefilter) SELECT id, token, prefilter FROM retired;
DROP TABLE retired;
ALTER TABLE new_retired RENAME TO retired;
CREATE INDEX retired_by_token ON retired (token, prefilter);
CREATE TRIGGER tokens_retire AFTER UPDATE OF prefilter ON tokens WHEN old.prefilter <> new.prefilter
    BEGIN
        INSERT INTO retired (token, prefilter) VALUES (old.id, old.prefilter);
        DELETE FROM retired WHERE token = old.id AND id NOT IN
            (SELECT id FROM retired WHERE token = old.id ORDER BY id DESC LIMIT 16);
    END;

CREATE TABLE new_checksums (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- in the order in which they came
    etag   BLOB    NOT NULL UNIQUE CHECK (length(etag) = 16),
    value  TEXT    NOT NULL
) STRICT;
INSERT INTO new_checksums (number, etag, value) SELECT number, etag, value FROM checksums;
DROP TABLE checksums;
ALTER TABLE new_checksums RENAME TO checksums;
