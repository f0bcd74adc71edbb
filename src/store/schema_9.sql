-- Markers of the trees that nodes belong to: the served directory, and file systems that are mounted in it.
ALTER TABLE meta ADD COLUMN root_marker BLOB CHECK (length(root_marker) = 16);
CREATE TABLE mounts (
    node   BLOB PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    marker BLOB NOT NULL CHECK (length(marker) = 16)
) STRICT, WITHOUT ROWID;

-- The parts of modification times set by patgate that file systems with coarse times don't keep: at most one row for
-- each inode.
CREATE TABLE fine_times (
    marker  BLOB    NOT NULL CHECK (length(marker) = 16),   -- of the file system
    inode   INTEGER NOT NULL,                               -- as a signed 64-bit number
    seconds INTEGER NOT NULL,                               -- the time as the file system kept it
    nanos   INTEGER NOT NULL,                               -- the nanoseconds that it was to have
    PRIMARY KEY (marker, inode)
) STRICT, WITHOUT ROWID;
