-- Storage quotas. A token's is one of its limits.
ALTER TABLE users ADD COLUMN quota INTEGER;     -- maximum number of bytes; NULL: no quota

-- Bytes below the paths where a user or a token with a quota may write.
CREATE TABLE storage_usage (
    account       TEXT    NOT NULL PRIMARY KEY, -- user:LOGIN or token:ID
    used          INTEGER NOT NULL,
    counted_at    INTEGER,                      -- NULL: the files are to be counted
    recount_bytes INTEGER                       -- what the count under way has found so far
) STRICT, WITHOUT ROWID;

-- The server reads the accounts again when the epoch moves. Changes of the counted bytes don't move it.
CREATE TRIGGER epoch_storage_usage_new AFTER INSERT ON storage_usage BEGIN UPDATE meta SET epoch = epoch + 1; END;
CREATE TRIGGER storage_usage_user_gone AFTER DELETE ON users BEGIN
    DELETE FROM storage_usage WHERE account = 'user:' || old.login;
END;
CREATE TRIGGER storage_usage_token_gone AFTER DELETE ON tokens BEGIN
    DELETE FROM storage_usage WHERE account = 'token:' || old.id;
END;
