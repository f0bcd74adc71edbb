//! Events of the audit trail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Actor, AuditEvent, EventKind, Login, Protocol, TextValue, TokenId, UnixMillis, schema};
use crate::store::RecordedEvent;

/// An event, or several alike that were recorded as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct EventResponse {
    /// Number of the event, which increases with time.
    #[schema(minimum = 1)]
    pub id: u64,
    /// Time of the event; of several, of the last.
    #[schema(value_type = schema::Time)]
    pub at: TextValue<UnixMillis>,
    /// Kind of the event.
    #[schema(value_type = schema::EventKind)]
    pub event: TextValue<EventKind>,
    /// The user concerned, or the owner of the token concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub user: Option<Login>,
    /// The token concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenId>)]
    pub token: Option<TokenId>,
    /// The actor: `administrator:NAME` for a user of the operating system who works on the state directory, `server`,
    /// or `LOGIN/TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub by: Option<TextValue<Actor>>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// User agent of the client, as it identified itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Protocol of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
    /// Path concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Number of events that are recorded as this one.
    #[schema(minimum = 1)]
    pub count: u64,
    /// Further details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl EventResponse {
    /// Converts a stored event.
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
