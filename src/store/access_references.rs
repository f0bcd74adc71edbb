//! The nodes that grants and scopes refer to.

use super::located_scopes::NodeRowCache;
use super::{Result, Store};
use crate::domain::{NodeId, NodeIdentity, TreePath, UnixMillis};

/// A grant, or a scope of a live token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessReference {
    /// Id of the node.
    pub node: NodeId,
    /// Login of the user who has the grant or owns the token.
    pub login: String,
    /// Id of the token; `None` for a grant.
    pub token: Option<String>,
    /// Path and identity of the node by the index; `None` where it has neither.
    pub location: Option<(TreePath, NodeIdentity)>,
}

impl Store {
    /// Returns the grants of all users and the scopes of all tokens that are live at `now`, each with what the
    /// index knows of its node.
    pub(crate) fn access_references(&self, now: UnixMillis) -> Result<Vec<AccessReference>> {
        let sql = "SELECT g.node, u.login, NULL FROM grants g JOIN users u ON u.id = g.user_id \
             UNION ALL \
             SELECT s.node, u.login, t.id FROM scopes s \
             JOIN tokens t ON t.id = s.token_id JOIN users u ON u.id = t.user_id \
             WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?1)";
        self.snapshot(|c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([now], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let rows: Vec<(NodeId, String, Option<String>)> = rows.collect::<rusqlite::Result<_>>()?;
            let mut paths = NodeRowCache::default();
            rows.into_iter()
                .map(|(node, login, token)| {
                    Ok(AccessReference { node, login, token, location: paths.locate(c, node)? })
                })
                .collect()
        })
    }
}
