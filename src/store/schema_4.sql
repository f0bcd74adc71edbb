-- Counts of uses and refusals by hour: at most two rows for each protocol and hour.
CREATE TABLE counts (
    hour     INTEGER NOT NULL,              -- its beginning
    protocol TEXT    NOT NULL,
    refused  INTEGER NOT NULL CHECK (refused IN (0, 1)),
    count    INTEGER NOT NULL,
    PRIMARY KEY (hour, protocol, refused)
) STRICT, WITHOUT ROWID;
