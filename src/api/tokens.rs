//! `/tokens`: made, listed, looked up, narrowed, given new secrets and revoked.

use axum::extract::State;
use axum::{Extension, Json};

use super::shape::Token;
use super::{Error, Result, Room};
use crate::auth::Session;
use crate::tokens::Authority;

/// Looks up the token that asks.
#[utoipa::path(get, path = "/tokens/self", responses((status = 200, body = Token)))]
pub(super) async fn own(State(room): State<Room>, Extension(session): Extension<Session>) -> Result<Json<Token>> {
    let find = move || {
        let id = session.token();
        let record = room.tokens.find(&Authority::Session(session), id)?;
        Ok::<_, Error>(Token::of(&record))
    };
    Ok(Json(tokio::task::spawn_blocking(find).await.map_err(|_| Error::Lost)??))
}
