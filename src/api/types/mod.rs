//! Requests and responses in JSON: one type for the REST API and for `--json` of the command line.

mod event;
mod explanation;
mod json_values;
mod nodes_and_policy;
mod token;
mod token_requests;
mod user;

pub use super::error::ProblemDetails;
pub use event::EventResponse;
pub use explanation::{ExplainRequest, ExplainResponse, ExplainSource};
pub use json_values::{JsonObject, RevealedSecret, TextValue};
pub(super) use json_values::{deserialize_object, deserialize_object_or_empty};
pub use nodes_and_policy::{NodeResponse, PolicyResponse, UpdatePolicyRequest};
pub(super) use token::deserialize_user_agents;
pub use token::{LastUseResponse, NodePermission, TokenLimitsJson, TokenResponse, TokenWithSecret};
pub use token_requests::{
    CreateTokenRequest, RevokeTokensRequest, RevokedTokensResponse, RotateTokenRequest, UpdateTokenRequest,
};
pub use user::{CreateGrantRequest, CreateUserRequest, CreatedUserResponse, UpdateUserRequest, UserResponse};
