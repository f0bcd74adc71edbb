-- Members of a sync journal that were recorded at once, packed: a first report of a large directory writes few rows. One
-- that changes later gets a row in journal_entries, which takes precedence.
CREATE TABLE journal_chunks (
    journal     INTEGER NOT NULL REFERENCES journals (id) ON DELETE CASCADE,
    last_number INTEGER NOT NULL,               -- number of the last member; those before it have the numbers before
    members     BLOB    NOT NULL,               -- see sync_chunks.rs
    PRIMARY KEY (journal, last_number)
) STRICT;
