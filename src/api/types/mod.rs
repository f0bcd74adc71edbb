//! Requests and responses in JSON: one type for the REST API and for `--json` of the command line.

mod ban;
mod event;
mod explanation;
mod nodes_and_policy;
mod revealed_secret;
mod token;
mod token_requests;
mod user;

pub use super::error::ProblemDetails;
pub use ban::{BanResponse, CreateBanRequest};
pub use event::EventResponse;
pub use explanation::{ExplainRequest, ExplainResponse, ExplainSource};
pub use nodes_and_policy::{NodeResponse, PolicyResponse, UpdatePolicyRequest};
pub use revealed_secret::RevealedSecret;
pub use token::TokenWithSecret;
pub use token_requests::{RevokeTokensRequest, RevokedTokensResponse, RotateTokenRequest};
pub use user::{CreateGrantRequest, CreateUserRequest, CreatedUserResponse, UpdateUserRequest, UserResponse};
