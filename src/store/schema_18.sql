-- The audit trail is a chain: each row has the hash of its content and of the row before it (audit_chain.rs). Rows that are
-- there already are chained when this step is applied, in place of the zeros.
ALTER TABLE events ADD COLUMN hash BLOB NOT NULL DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000'
    CHECK (length(hash) = 32);

-- Rows that retention removed, in runs of consecutive numbers: the hash of the last one, so that the row after it can be
-- verified. Neighbouring runs are one row here, so there is at most one more of them than there are events.
CREATE TABLE removed_events (
    last_id  INTEGER NOT NULL PRIMARY KEY,
    first_id INTEGER NOT NULL,
    hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX removed_events_by_first ON removed_events (first_id);
