-- Networks from which no login is accepted. An automatic ban stays for a while after its end, so that the next one of its
-- network lasts longer.
CREATE TABLE bans (
    network   TEXT    NOT NULL PRIMARY KEY,     -- an address, or a network in CIDR notation
    since     INTEGER NOT NULL,
    until     INTEGER,                          -- NULL: until it is removed
    automatic INTEGER NOT NULL CHECK (automatic IN (0, 1)),
    repeats   INTEGER NOT NULL,                 -- number of automatic bans, each soon after the one before
    reason    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX bans_by_end ON bans (until) WHERE until IS NOT NULL;

-- Moves with every change of a ban, so that a server reads them only then.
ALTER TABLE meta ADD COLUMN bans_version INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER bans_version_new AFTER INSERT ON bans BEGIN UPDATE meta SET bans_version = bans_version + 1; END;
CREATE TRIGGER bans_version AFTER UPDATE ON bans BEGIN UPDATE meta SET bans_version = bans_version + 1; END;
CREATE TRIGGER bans_version_gone AFTER DELETE ON bans BEGIN UPDATE meta SET bans_version = bans_version + 1; END;

-- Whether a token was ever used from a network.
CREATE INDEX sightings_by_network ON sightings (network);
