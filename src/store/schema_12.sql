-- What the pepper that secrets are prefiltered by is recognised by: a keyed hash under it; NULL: not looked at yet.
ALTER TABLE meta ADD COLUMN pepper_mark BLOB CHECK (length(pepper_mark) = 16);
