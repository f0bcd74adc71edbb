-- Unfinished uploads that take more than one request. They do not affect access, so they do not advance the epoch.
CREATE TABLE uploads (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    token      TEXT    NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    name       BLOB    NOT NULL,             -- by which the token's holder calls it
    request    BLOB,                         -- the request that began it; NULL: it comes in parts
    touched_at INTEGER NOT NULL
) STRICT;
CREATE INDEX uploads_by_token ON uploads (token);

-- Their staged parts.
CREATE TABLE upload_parts (
    upload INTEGER NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    name   BLOB    NOT NULL,                 -- empty where there are no parts
    place  BLOB    NOT NULL,                 -- the folder that holds the staging: the root of a file system
    staged BLOB    NOT NULL,                 -- its name in staging
    size   INTEGER NOT NULL,                 -- how many of its bytes were taken in for good
    PRIMARY KEY (upload, name)
) STRICT, WITHOUT ROWID;
