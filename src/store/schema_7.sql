-- No tokens at all is no setting any more: whoever had it may own one, the least there is.
UPDATE policy SET value = '1' WHERE key = 'max-tokens-per-user' AND CAST(value AS INTEGER) = 0;
