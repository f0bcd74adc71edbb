//! The token calls of an upload service, compatible with its clients: `/auth/token/generate` and `/auth/token/{id}`.
//! Field names are those of that service, and times are `2030-05-05 08:00:00` in UTC.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::extract::{self, PathParam};
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::RevealedSecret;
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::{
    ByteSize, FileTag, ForeignRole, ForeignRoles, MimePattern, Role, Roles, TokenExpiry, TokenId, TokenLimits,
    UnixMillis, UserAgentPattern, deserialize_object_or_empty, deserialize_user_agents, parse_network, schema,
};
use crate::store::{TokenRecord, TokenState};
use crate::tokens::{RequestedLifetime, TokenRequest};

/// A token to create.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GenerateTokenRequest {
    /// Roles; those of the upload service are kept on the token and grant nothing here.
    #[serde(default, deserialize_with = "deserialize_null_as_default")]
    #[schema(value_type = Option<Vec<schema::AnyRole>>)]
    roles: Vec<String>,
    /// Limits; null or an empty array limits nothing.
    #[serde(default, deserialize_with = "deserialize_object_or_empty")]
    #[schema(value_type = Option<GenerateTokenLimits>)]
    data: GenerateTokenLimits,
    /// Expiration: `2030-05-05 08:00:00`, `never`, or `auto`, `automatic`, an empty string or null for the default.
    #[serde(default, deserialize_with = "deserialize_null_as_default")]
    #[schema(
        value_type = Option<String>,
        pattern = "^([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}|auto|automatic|never|)$",
        example = "auto"
    )]
    expires: String,
}

/// Limits on a token; an empty array limits nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct GenerateTokenLimits {
    /// Tags that its uploads may have.
    #[serde(deserialize_with = "deserialize_null_as_default")]
    #[schema(value_type = Option<Vec<schema::Tag>>)]
    tags: Vec<FileTag>,
    /// Media types that it may upload.
    #[serde(deserialize_with = "deserialize_null_as_default")]
    #[schema(value_type = Option<Vec<schema::Mime>>)]
    allowed_mime_types: Vec<MimePattern>,
    /// Maximum size of a file that it writes, in bytes; 0 limits nothing.
    #[schema(value_type = Option<schema::Bytes>)]
    max_allowed_file_size: Option<ByteSize>,
    /// User agents that may use it.
    #[serde(deserialize_with = "deserialize_user_agents")]
    #[schema(value_type = Option<Vec<schema::UserAgent>>)]
    allowed_user_agents: Vec<UserAgentPattern>,
    /// Addresses and networks that it may be used from.
    #[serde(deserialize_with = "deserialize_null_as_default")]
    #[schema(value_type = Option<Vec<schema::Network>>)]
    allowed_ip_addresses: Vec<String>,
}

/// A token that was created.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GeneratedToken)]
pub(super) struct GenerateTokenResponse {
    /// Public id.
    #[schema(value_type = schema::TokenId)]
    token_id: TokenId,
    /// Expiration.
    #[schema(value_type = schema::UploadTime)]
    expires: String,
    /// The token with its secret, which no later response reveals.
    #[schema(value_type = schema::TokenText)]
    token: RevealedSecret,
}

/// The fields of a token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadToken)]
pub(super) struct UploadTokenResponse {
    /// Public id.
    #[serde(rename = "tokenId")]
    #[schema(value_type = schema::TokenId)]
    token_id: TokenId,
    /// Expiration.
    #[schema(value_type = schema::UploadTime)]
    expires: String,
    /// Roles.
    #[schema(value_type = Vec<schema::AnyRole>)]
    roles: Vec<String>,
    /// Tags that its uploads may have.
    #[schema(value_type = Vec<schema::Tag>)]
    tags: Vec<FileTag>,
    /// Media types that it may upload.
    #[schema(value_type = Vec<schema::Mime>)]
    mimes: Vec<MimePattern>,
    /// Maximum size of a file that it writes, in bytes.
    #[schema(value_type = Option<schema::Bytes>)]
    max_file_size: Option<ByteSize>,
    /// Whether the token or one of its parents was revoked; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    revoked: bool,
}

impl GenerateTokenRequest {
    pub(super) fn into_token_request(self) -> Result<TokenRequest> {
        let invalid_value = |why: String| Error::InvalidValue(why);
        let (lifetime, expires_at) = match self.expires.as_str() {
            "" | "auto" | "automatic" => (None, None),
            "never" => (Some(RequestedLifetime::Never), None),
            text => (None, Some(UnixMillis::parse_utc(text).map_err(invalid_value)?)),
        };
        let (roles, foreign_roles) = split_foreign_roles(&self.roles).map_err(invalid_value)?;
        let data = self.data;
        let ips = data.allowed_ip_addresses.iter().map(|text| parse_network(text));
        let limits = TokenLimits {
            ips: ips.collect::<std::result::Result<_, _>>().map_err(invalid_value)?,
            user_agents: data.allowed_user_agents,
            mimes: data.allowed_mime_types,
            tags: data.tags,
            // In that API 0 means no limit.
            max_file_size: data.max_allowed_file_size.filter(|size| size.bytes() > 0),
            ..TokenLimits::default()
        };
        Ok(TokenRequest { lifetime, expires_at, roles, foreign_roles, limits, ..TokenRequest::default() })
    }
}

/// Splits role names into those of this server and those of another service.
fn split_foreign_roles(names: &[String]) -> std::result::Result<(Roles, ForeignRoles), String> {
    let (mut own_roles, mut other_roles) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse::<Role>() {
            Ok(role) => own_roles.push(role),
            Err(_) => other_roles.push(name.parse::<ForeignRole>()?),
        }
    }
    Ok((own_roles.into_iter().collect(), ForeignRoles::new(other_roles)?))
}

/// Deserializes a field, null as its default.
fn deserialize_null_as_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl UploadTokenResponse {
    fn from_record(record: TokenRecord) -> Self {
        let own_roles = record.roles.iter().map(|role| role.to_string());
        Self {
            token_id: record.id,
            expires: format_expiration(&record),
            // Clients of that service expect one list with all roles that they have sent.
            roles: own_roles.chain(record.foreign_roles.iter().map(ToString::to_string)).collect(),
            revoked: record.state == TokenState::Revoked,
            tags: record.limits.tags,
            mimes: record.limits.mimes,
            max_file_size: record.limits.max_file_size,
        }
    }
}

fn format_expiration(record: &TokenRecord) -> String {
    match record.expiry() {
        TokenExpiry::Never => "never".to_owned(),
        TokenExpiry::Hard(_) | TokenExpiry::Sliding { .. } => record.deadline().format_utc(),
    }
}

/// Creates a token for the caller.
#[utoipa::path(
    post, path = "/auth/token/generate", tag = "upload", operation_id = "generateToken", request_body = GenerateTokenRequest,
    responses((status = 200, description = "Created", body = GenerateTokenResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn generate(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(request): extract::JsonBody<GenerateTokenRequest>,
) -> Result<Json<GenerateTokenResponse>> {
    let request = request.into_token_request()?;
    let issued = state.tokens.issue_queued(caller.principal(), request, || ()).await?;
    // Its requests name no SSH key.
    let text = issued.text.ok_or(Error::Internal)?;
    let token = text.reveal().to_string().into();
    Ok(Json(GenerateTokenResponse { token_id: issued.record.id, expires: format_expiration(&issued.record), token }))
}

/// Looks up a token.
#[utoipa::path(
    get, path = "/auth/token/{id}", tag = "upload", operation_id = "tokenFields",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 200, description = "The fields of the token", body = UploadTokenResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn find(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
) -> Result<Json<UploadTokenResponse>> {
    let record =
        state.run_blocking(caller.light_permit(), move |state| Ok(state.tokens.find(&caller.principal(), id)?)).await?;
    Ok(Json(UploadTokenResponse::from_record(record)))
}

/// Revokes a token and returns its fields. The role to revoke tokens is enough, without the one to look them up.
#[utoipa::path(
    delete, path = "/auth/token/{id}", tag = "upload", operation_id = "dropToken",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 200, description = "The fields of the token", body = UploadTokenResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
) -> Result<Json<UploadTokenResponse>> {
    let record = state
        .run_blocking(caller.revocation_permit(), move |state| Ok(state.tokens.revoke_one(&caller.principal(), id)?))
        .await?;
    Ok(Json(UploadTokenResponse::from_record(record)))
}
