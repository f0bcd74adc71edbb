-- Checksums that sync clients sent with their uploads, by the ETag of the content.
CREATE TABLE checksums (
    number INTEGER PRIMARY KEY,             -- in the order in which they came
    etag   BLOB    NOT NULL UNIQUE CHECK (length(etag) = 16),
    value  TEXT    NOT NULL
) STRICT;

-- Journals of sync-collection reports (RFC 6578): one for each token, directory and depth.
CREATE TABLE journals (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    token   TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    path    BLOB    NOT NULL,               -- of the folder, as it was asked for
    deep    INTEGER NOT NULL CHECK (deep IN (0, 1)),
    floor   INTEGER NOT NULL,               -- what went before this number is forgotten
    last    INTEGER NOT NULL,               -- the number of the last change
    used_at INTEGER NOT NULL,
    UNIQUE (token, path, deep)
) STRICT;

CREATE TABLE journal_entries (
    journal INTEGER NOT NULL REFERENCES journals (id) ON DELETE CASCADE,
    path    BLOB    NOT NULL,               -- below the folder
    folder  INTEGER NOT NULL CHECK (folder IN (0, 1)),
    mark    BLOB,                           -- what tells its content apart; NULL: it has gone
    number  INTEGER NOT NULL,               -- of its last change
    PRIMARY KEY (journal, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX journal_entries_by_number ON journal_entries (journal, number);
