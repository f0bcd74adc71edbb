-- 0 tokens is not a valid setting any more: it becomes 1, the minimum.
UPDATE policy SET value = '1' WHERE key = 'max-tokens-per-user' AND CAST(value AS INTEGER) = 0;
