//! Bans.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Ban, BanOrigin, BannedNetwork, Lifetime, TextValue, UnixMillis, schema};
use crate::tokens::BanRequest;

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Ban)]
pub struct BanResponse {
    /// The banned address or network; an IPv6 address is banned with its /64.
    #[schema(value_type = schema::Network)]
    pub network: BannedNetwork,
    /// Time at which the ban began.
    #[schema(value_type = schema::Time)]
    pub since: TextValue<UnixMillis>,
    /// Time at which it ends; absent for one that holds until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub until: Option<TextValue<UnixMillis>>,
    /// Whether it was banned for failed logins, and not by an administrator.
    pub automatic: bool,
    /// Number of automatic bans of this network that followed soon after one another.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub repeats: u32,
    /// Reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 200)]
    pub reason: String,
}

impl From<Ban> for BanResponse {
    fn from(ban: Ban) -> Self {
        let Ban { network, since, until, origin, repeats, reason } = ban;
        Self {
            network,
            since: TextValue(since),
            until: until.map(TextValue),
            automatic: origin == BanOrigin::Automatic,
            repeats,
            reason,
        }
    }
}

/// Request to ban a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateBan)]
pub struct CreateBanRequest {
    /// The address or network; an IPv6 address is banned with its /64.
    #[schema(value_type = schema::Network)]
    pub network: BannedNetwork,
    /// How long; without it, until the ban is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub duration: Option<TextValue<Lifetime>>,
    /// Reason, on one line, for administrators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(value_type = schema::Label)]
    pub reason: String,
}

impl From<CreateBanRequest> for BanRequest {
    fn from(request: CreateBanRequest) -> Self {
        let CreateBanRequest { network, duration, reason } = request;
        Self { network, duration: duration.map(|TextValue(duration)| duration), reason }
    }
}

impl From<&BanRequest> for CreateBanRequest {
    fn from(request: &BanRequest) -> Self {
        let BanRequest { network, duration, reason } = request.clone();
        Self { network, duration: duration.map(TextValue), reason }
    }
}
