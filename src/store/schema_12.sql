-- Identifies the pepper that keys the prefilters of secrets: a keyed hash under it; NULL: not recorded yet.
ALTER TABLE meta ADD COLUMN pepper_mark BLOB CHECK (length(pepper_mark) = 16);
