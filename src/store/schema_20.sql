-- Tokens that are proven by an SSH key: `phc` (or `old_phc`, before the last rotation) is the public key, and these are the
-- SHA-256 digests by which it is found. NULL: the proof is a secret.
ALTER TABLE tokens ADD COLUMN key_digest BLOB CHECK (length(key_digest) = 32);
ALTER TABLE tokens ADD COLUMN old_key_digest BLOB CHECK (length(old_key_digest) = 32);
CREATE INDEX tokens_by_key ON tokens (key_digest) WHERE key_digest IS NOT NULL;
CREATE INDEX tokens_by_old_key ON tokens (old_key_digest) WHERE old_key_digest IS NOT NULL;
