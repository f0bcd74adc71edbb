-- Kind of a change that takes more than one step on the file system, and its other entry: the one that is
-- replaced, or the copy that takes the entry's place; NULL: one step is enough.
ALTER TABLE intents ADD COLUMN how TEXT CHECK (how IN ('swap', 'copy'));
ALTER TABLE intents ADD COLUMN other_folder INTEGER CHECK (other_folder IN (0, 1));
ALTER TABLE intents ADD COLUMN other_inode INTEGER;
ALTER TABLE intents ADD COLUMN other_born INTEGER;
