-- Roles of another service that a token was created with: told to whoever asks about it, they grant nothing here.
ALTER TABLE tokens ADD COLUMN foreign_roles TEXT NOT NULL DEFAULT '[]';
