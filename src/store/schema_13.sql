-- The user who had a node named (empty: the command line, the server itself, or not recorded), so that nodes are bounded
-- by user.
ALTER TABLE nodes ADD COLUMN namer TEXT NOT NULL DEFAULT '';

DROP TRIGGER usage_nodes_new;
CREATE TRIGGER usage_nodes_new AFTER INSERT ON nodes BEGIN
    INSERT INTO usage (what, who, amount) VALUES ('nodes', new.namer, 1)
        ON CONFLICT DO UPDATE SET amount = amount + 1;
END;
DROP TRIGGER usage_nodes_gone;
CREATE TRIGGER usage_nodes_gone AFTER DELETE ON nodes BEGIN
    UPDATE usage SET amount = amount - 1 WHERE what = 'nodes' AND who = old.namer;
    DELETE FROM usage WHERE what = 'nodes' AND who = old.namer AND amount <= 0;
END;
CREATE TRIGGER usage_nodes AFTER UPDATE OF namer ON nodes BEGIN
    UPDATE usage SET amount = amount - 1 WHERE what = 'nodes' AND who = old.namer;
    INSERT INTO usage (what, who, amount) VALUES ('nodes', new.namer, 1)
        ON CONFLICT DO UPDATE SET amount = amount + 1;
    DELETE FROM usage WHERE what = 'nodes' AND who = old.namer AND amount <= 0;
END;

-- The user that a node counts for does not affect access, so it does not advance the epoch.
DROP TRIGGER epoch_nodes;
CREATE TRIGGER epoch_nodes AFTER UPDATE OF id, parent, name, folder, inode, born ON nodes
    BEGIN UPDATE meta SET epoch = epoch + 1; END;
