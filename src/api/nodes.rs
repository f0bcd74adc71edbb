//! `/nodes`: the ids of files and directories that the caller can see.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{PathParam, QueryParams};
use super::openapi::{CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::types::NodeResponse;
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::{NodeId, TextValue, TreePath, schema};
use crate::tokens;
use crate::tree::{self, NamedNode};

/// A path to look up, or a page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListNodesQuery {
    /// Only the node at this path, which gets an id if it has none.
    #[param(value_type = Option<schema::Path>)]
    path: Option<TextValue<TreePath>>,
    /// Only nodes at or below this path that have an id already and that a listing shows, which excludes the content of
    /// a drop box.
    #[param(value_type = Option<schema::Path>)]
    under: Option<TextValue<TreePath>>,
    /// Maximum number of nodes.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Start of the page, from the `Link` header of the previous one.
    #[param(value_type = Option<schema::NodeId>)]
    cursor: Option<TextValue<NodeId>>,
}

/// Looks up the node at a path, or lists the nodes below one, ordered by id.
#[utoipa::path(
    get, path = "/api/v1/nodes", tag = "nodes", operation_id = "listNodes", params(ListNodesQuery),
    responses(
        (status = 200, description = "The nodes", body = [NodeResponse],
            headers(("Link" = String, description = "The next page, if there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: ApiCaller,
    uri: Uri,
    QueryParams(params): QueryParams<ListNodesQuery>,
) -> Result<Response> {
    let ListNodesQuery { path, under, limit, cursor } = params;
    let limit = pagination::page_limit(limit)?;
    if let Some(TextValue(path)) = path {
        if under.is_some() || cursor.is_some() {
            return Err(Error::InvalidValue("path can't be combined with under or cursor".to_owned()));
        }
        let node = state.run_blocking(caller.light_permit(), move |state| node_at_path(state, &caller, path)).await?;
        return Ok(Json([node]).into_response());
    }
    let under = under.map(|under| under.0).unwrap_or_default();
    let after = cursor.map(|cursor| cursor.0);
    // Heavy, because all nodes below the path are read for each page.
    let nodes = state
        .run_blocking(caller.heavy_permit(), move |state| listed_nodes_below(state, &caller, &under, after, limit))
        .await?;
    Ok(PageResponse::new(&uri, nodes, |id| id.to_string(), |named| NodeResponse::from_named_node(&named))
        .into_response())
}

/// Looks up a node by its id.
#[utoipa::path(
    get, path = "/api/v1/nodes/{uuid}", tag = "nodes", operation_id = "findNode",
    params(("uuid" = schema::NodeId, Path, description = "The node")),
    responses((status = 200, description = "The node", body = NodeResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn find(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(TextValue(node)): PathParam<TextValue<NodeId>>,
) -> Result<Json<NodeResponse>> {
    let permit = caller.light_permit();
    let find_node = move |state: &ApiState| {
        let path = state.tree.locate(node)?.ok_or(tree::Error::Absent)?;
        // A node that the caller may not see fails here exactly like one that does not exist.
        state.tree.view(caller.0.clone()).stat(&path)?;
        Ok(NodeResponse { node, path: path.to_string(), dangling: false })
    };
    Ok(Json(state.run_blocking(permit, find_node).await?))
}

fn node_at_path(state: &ApiState, caller: &ApiCaller, path: TreePath) -> Result<NodeResponse> {
    let view = state.tree.view(caller.0.clone());
    // First, so that a path that the caller may not see gets no id.
    view.stat(&path)?;
    Ok(NodeResponse { node: view.node_id(&path)?, path: path.to_string(), dangling: false })
}

/// Returns the named nodes below a path that the caller can see in a listing.
fn listed_nodes_below(
    state: &ApiState,
    caller: &ApiCaller,
    under: &TreePath,
    after: Option<NodeId>,
    limit: usize,
) -> Result<tokens::ResultPage<NamedNode, NodeId>> {
    let access = caller.0.access()?;
    let mut nodes = state.tree.nodes(under)?;
    // Nodes are filtered by what a listing would show: an id must not reveal an entry of a drop box or beside a scope.
    nodes.retain(|node| after.is_none_or(|after| node.id > after) && access.is_listed(&node.path));
    // By id, which never changes: a rename between two pages neither repeats nor skips a node.
    nodes.sort_by_key(|node| node.id);
    Ok(tokens::ResultPage::from_items(nodes, limit, |node| node.id))
}
