-- Usage that is bounded by quotas: bytes of dead properties by the user who wrote them (empty: from before that was
-- recorded), and rows of named nodes. Updated by triggers.
CREATE TABLE usage (
    what   TEXT    NOT NULL CHECK (what IN ('properties', 'nodes')),
    who    TEXT    NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (what, who)
) STRICT, WITHOUT ROWID;

ALTER TABLE properties ADD COLUMN writer TEXT NOT NULL DEFAULT '';
-- 256 bytes stand for the row itself, its node's row, and their indexes.
ALTER TABLE properties ADD COLUMN bytes INTEGER AS
    (octet_length(namespace) + octet_length(name) + octet_length(value) + 256) VIRTUAL;

INSERT INTO usage (what, who, amount) SELECT 'properties', '', sum(bytes) FROM properties HAVING count(*) > 0;
INSERT INTO usage (what, who, amount) SELECT 'nodes', '', count(*) FROM nodes;

CREATE TRIGGER usage_properties_new AFTER INSERT ON properties BEGIN
    INSERT INTO usage (what, who, amount) VALUES ('properties', new.writer, new.bytes)
        ON CONFLICT DO UPDATE SET amount = amount + excluded.amount;
END;
CREATE TRIGGER usage_properties_gone AFTER DELETE ON properties BEGIN
    UPDATE usage SET amount = amount - old.bytes WHERE what = 'properties' AND who = old.writer;
    DELETE FROM usage WHERE what = 'properties' AND who = old.writer AND amount <= 0;
END;
CREATE TRIGGER usage_properties AFTER UPDATE OF namespace, name, value, writer ON properties BEGIN
    UPDATE usage SET amount = amount - old.bytes WHERE what = 'properties' AND who = old.writer;
    INSERT INTO usage (what, who, amount) VALUES ('properties', new.writer, new.bytes)
        ON CONFLICT DO UPDATE SET amount = amount + excluded.amount;
    DELETE FROM usage WHERE what = 'properties' AND who = old.writer AND amount <= 0;
END;
CREATE TRIGGER usage_nodes_new AFTER INSERT ON nodes BEGIN
    UPDATE usage SET amount = amount + 1 WHERE what = 'nodes';
END;
CREATE TRIGGER usage_nodes_gone AFTER DELETE ON nodes BEGIN
    UPDATE usage SET amount = amount - 1 WHERE what = 'nodes';
END;
