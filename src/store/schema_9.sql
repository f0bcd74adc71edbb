-- The trees that nodes were named in, each by the marker that it holds itself: the served folder, and file systems that
-- are mounted in it.
ALTER TABLE meta ADD COLUMN root_marker BLOB CHECK (length(root_marker) = 16);
CREATE TABLE mounts (
    node   BLOB PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    marker BLOB NOT NULL CHECK (length(marker) = 16)
) STRICT, WITHOUT ROWID;

-- What a file system that keeps only coarse times has cut off of modification times that patgate set: at most one row
-- for each inode.
CREATE TABLE fine_times (
    marker  BLOB    NOT NULL CHECK (length(marker) = 16),   -- of the file system
    inode   INTEGER NOT NULL,                               -- as a signed 64-bit number
    seconds INTEGER NOT NULL,                               -- the time as the file system kept it
    nanos   INTEGER NOT NULL,                               -- the nanoseconds that it was to have
    PRIMARY KEY (marker, inode)
) STRICT, WITHOUT ROWID;
