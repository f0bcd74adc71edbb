-- Roles of another service that a token was created with: returned by look-ups, they grant nothing here.
ALTER TABLE tokens ADD COLUMN foreign_roles TEXT NOT NULL DEFAULT '[]';
