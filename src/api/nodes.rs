//! `/nodes`: the ids of files and folders, as far as the caller can see them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::document::{Common, Known, Read};
use super::extract::{Asked, At};
use super::page::{self, Page};
use super::schema;
use super::shape::{Node, Text};
use super::{Error, Result, Room, Who};
use crate::domain::{NodeId, TreePath};
use crate::tokens;
use crate::tree::{self, NamedNode};

/// Which nodes to look up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Sought {
    /// The one at this path, which gets an id if it has none.
    #[param(value_type = Option<schema::Path>)]
    path: Option<Text<TreePath>>,
    /// Those below this path that have an id already, and that a listing shows: nothing of what lies in a drop box.
    #[param(value_type = Option<schema::Path>)]
    under: Option<Text<TreePath>>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` of the page before.
    #[param(value_type = Option<schema::NodeId>)]
    cursor: Option<Text<NodeId>>,
}

/// Looks up the node at a path, or lists the nodes below one, in the order of their ids.
#[utoipa::path(
    get, path = "/api/v1/nodes", tag = "nodes", operation_id = "listNodes", params(Sought),
    responses(
        (status = 200, description = "The nodes", body = [Node],
            headers(("Link" = String, description = "The next page, where there is one"))),
        Common, Read, Known
    )
)]
pub(super) async fn list(
    State(room): State<Room>,
    who: Who,
    uri: Uri,
    Asked(sought): Asked<Sought>,
) -> Result<Response> {
    let Sought { path, under, limit, cursor } = sought;
    let limit = page::limit(limit)?;
    if let Some(Text(path)) = path {
        if under.is_some() || cursor.is_some() {
            return Err(Error::Unfit("give path, or under and cursor".to_owned()));
        }
        let node = room.work(who.light(), move |room| at(room, &who, path)).await?;
        return Ok(Json([node]).into_response());
    }
    let under = under.map(|under| under.0).unwrap_or_default();
    let after = cursor.map(|cursor| cursor.0);
    let nodes = room.work(who.heavy(), move |room| below(room, &who, &under, after, limit)).await?;
    Ok(Page::of(&uri, nodes, |id| id.to_string(), |named| Node::of(&named)).into_response())
}

/// Looks a node up by its id.
#[utoipa::path(
    get, path = "/api/v1/nodes/{uuid}", tag = "nodes", operation_id = "findNode",
    params(("uuid" = schema::NodeId, Path, description = "The node")),
    responses((status = 200, description = "The node", body = Node), Common, Known)
)]
pub(super) async fn find(State(room): State<Room>, who: Who, At(Text(node)): At<Text<NodeId>>) -> Result<Json<Node>> {
    let turn = who.light();
    let find = move |room: &Room| {
        let path = room.tree.locate(node)?.ok_or(tree::Error::Absent)?;
        room.tree.view(who.0.clone()).stat(&path)?;
        Ok(Node { node, path: path.to_string(), dangling: false })
    };
    Ok(Json(room.work(turn, find).await?))
}

fn at(room: &Room, who: &Who, path: TreePath) -> Result<Node> {
    let view = room.tree.view(who.0.clone());
    view.stat(&path)?;
    Ok(Node { node: view.node_id(&path)?, path: path.to_string(), dangling: false })
}

/// Returns the named nodes below a path that the caller can see in a listing.
fn below(
    room: &Room,
    who: &Who,
    under: &TreePath,
    after: Option<NodeId>,
    limit: usize,
) -> Result<tokens::ResultPage<NamedNode, NodeId>> {
    let access = who.0.access()?;
    let mut nodes = room.tree.nodes(under)?;
    nodes.retain(|node| after.is_none_or(|after| node.id > after) && access.is_listed(&node.path));
    nodes.sort_by_key(|node| node.id);
    Ok(tokens::ResultPage::from_items(nodes, limit, |node| node.id))
}
