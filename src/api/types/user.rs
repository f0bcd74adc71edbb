//! Users and grants in JSON, and requests to create and change them.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::domain::{ByteSize, Login, Permission, Roles, TextValue, TreePath, deserialize_objects, schema};
use crate::store::{self, LocatedScope};
use crate::tokens::{CreatedUser, Grant, HomeOption, UserProfile, UserRequest};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = User)]
pub struct UserResponse {
    /// The login.
    #[schema(value_type = schema::Login)]
    pub login: Login,
    /// Time of creation.
    #[schema(value_type = schema::Time)]
    pub created_at: String,
    /// Time since which the user is disabled, so that none of its tokens is accepted.
    #[schema(value_type = Option<schema::Time>)]
    pub disabled_at: Option<String>,
    /// Roles that its tokens may have.
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Grants.
    pub grants: Vec<LocatedScope>,
    /// Number of its live tokens.
    #[schema(minimum = 0)]
    pub live_tokens: u32,
    /// Storage quota: maximum number of bytes of the files where the user may write; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota: Option<ByteSize>,
    /// Bytes that count for the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota_used: Option<u64>,
    /// End of the last count of the files; absent before the first, and while one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub quota_counted_at: Option<String>,
    /// Bytes that the count under way has found so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota_recount_bytes: Option<u64>,
}

impl UserResponse {
    /// Converts a user.
    pub fn from_profile(UserProfile { user, grants, live_tokens, storage }: UserProfile) -> Self {
        Self {
            created_at: user.created_at.to_string(),
            disabled_at: user.disabled_at.map(|at| at.to_string()),
            roles: user.roles,
            grants,
            live_tokens,
            quota: user.quota,
            quota_used: storage.map(|storage| storage.used),
            quota_counted_at: storage.and_then(|storage| storage.counted_at).map(|at| at.to_string()),
            quota_recount_bytes: storage.and_then(|storage| storage.recount_bytes),
            login: user.login,
        }
    }
}

/// A user that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = CreatedUser)]
pub struct CreatedUserResponse {
    /// The user.
    #[serde(flatten)]
    pub user: UserResponse,
    /// Path of its home, if it has one.
    #[schema(value_type = Option<schema::Path>)]
    pub home: Option<String>,
    /// Whether the home existed before, with all its content.
    pub home_was_there: bool,
}

impl CreatedUserResponse {
    /// Combines a user and the outcome of its creation.
    pub fn new(user: UserResponse, created: &CreatedUser) -> Self {
        let home = created.home.as_ref().map(ToString::to_string);
        Self { user, home, home_was_there: created.home_existed }
    }
}

/// A grant to create.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGrantRequest {
    /// Path of the node.
    #[schema(value_type = schema::Path)]
    pub path: TextValue<TreePath>,
    /// Permission on the node and below it.
    #[schema(value_type = schema::Permission)]
    pub permission: Permission,
}

impl From<CreateGrantRequest> for Grant {
    fn from(request: CreateGrantRequest) -> Self {
        Self { path: request.path.0, permission: request.permission }
    }
}

impl From<&Grant> for CreateGrantRequest {
    fn from(grant: &Grant) -> Self {
        Self { path: TextValue(grant.path.clone()), permission: grant.permission }
    }
}

/// A user to create.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUserRequest {
    /// The login.
    #[schema(value_type = schema::Login)]
    pub login: Login,
    /// Roles that its tokens may have.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Grants.
    #[serde(default, deserialize_with = "deserialize_objects")]
    pub grants: Vec<CreateGrantRequest>,
    /// Whether to create a home, `/LOGIN`; by default only if no grants are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<bool>,
    /// Storage quota: maximum number of bytes of the files where the user may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota: Option<ByteSize>,
}

impl CreateUserRequest {
    /// Converts a request to create a user.
    pub fn from_user_request(request: &UserRequest) -> Self {
        Self {
            login: request.login.clone(),
            roles: request.roles.clone(),
            grants: request.grants.iter().map(CreateGrantRequest::from).collect(),
            home: Some(request.home == HomeOption::Create),
            quota: request.quota,
        }
    }
}

impl From<CreateUserRequest> for UserRequest {
    fn from(request: CreateUserRequest) -> Self {
        let home = request.home.unwrap_or(request.grants.is_empty());
        Self {
            login: request.login,
            roles: request.roles,
            grants: request.grants.into_iter().map(Grant::from).collect(),
            home: if home { HomeOption::Create } else { HomeOption::Skip },
            quota: request.quota,
        }
    }
}

/// Changes of a user; omitted fields are not changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUserRequest {
    /// Whether the user is disabled, so that none of its tokens is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Roles in place of the present ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Role>>)]
    pub roles: Option<Roles>,
    /// Storage quota in bytes; null removes it. The files are counted anew, also where the quota is the same.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota: Option<Option<ByteSize>>,
}

/// Deserializes a field that is present, and may be null.
fn deserialize_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<ByteSize>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<UpdateUserRequest> for store::UserUpdate {
    fn from(UpdateUserRequest { disabled, roles, quota }: UpdateUserRequest) -> Self {
        Self { disabled, roles, quota }
    }
}
