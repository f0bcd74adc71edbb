//! What happened.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::schema;
use super::TextValue;
use crate::domain::{Actor, AuditEvent, EventKind, Login, Protocol, TokenId, UnixMillis};
use crate::store::RecordedEvent;

/// Something that happened, or several like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct EventResponse {
    /// Its number: later ones have higher ones.
    #[schema(minimum = 1)]
    pub id: u64,
    /// When; of several, when the last of them.
    #[schema(value_type = schema::Time)]
    pub at: TextValue<UnixMillis>,
    /// What.
    #[schema(value_type = schema::EventKind)]
    pub event: TextValue<EventKind>,
    /// To which user, or to whose token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub user: Option<Login>,
    /// To which token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenId>)]
    pub token: Option<TokenId>,
    /// By whom: `administrator:NAME` for a user of the operating system who works on the state directory, `server`, or
    /// `LOGIN/TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub by: Option<TextValue<Actor>>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With which program, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// By which door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
    /// At which path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often.
    #[schema(minimum = 1)]
    pub count: u64,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl EventResponse {
    /// Shows an event.
    pub fn from_stored(recorded: RecordedEvent) -> Self {
        let AuditEvent { at, kind, user, token, by, address, client, protocol, path, count, detail } = recorded.event;
        Self {
            id: recorded.id,
            at: TextValue(at),
            event: TextValue(kind),
            user,
            token,
            by: by.map(TextValue),
            address,
            client,
            protocol,
            path,
            count,
            detail,
        }
    }
}
