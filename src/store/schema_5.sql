-- How a change goes that takes more than one step on the host, and the other entry that it is about: the
-- one that is replaced, or the copy that takes the entry's place; NULL: one step does it.
ALTER TABLE intents ADD COLUMN how TEXT CHECK (how IN ('swap', 'copy'));
ALTER TABLE intents ADD COLUMN other_folder INTEGER CHECK (other_folder IN (0, 1));
ALTER TABLE intents ADD COLUMN other_inode INTEGER;
ALTER TABLE intents ADD COLUMN other_born INTEGER;
