-- How often tokens were used and callers refused, by the hour: no more than two rows a protocol and hour.
CREATE TABLE counts (
    hour     INTEGER NOT NULL,              -- its beginning
    protocol TEXT    NOT NULL,
    refused  INTEGER NOT NULL CHECK (refused IN (0, 1)),
    count    INTEGER NOT NULL,
    PRIMARY KEY (hour, protocol, refused)
) STRICT, WITHOUT ROWID;
