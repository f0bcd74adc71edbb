//! Properties of the parsers of JSON bodies, for [`crate::fuzzing`].

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::types::{
    CreateBanRequest, CreateGrantRequest, CreateUserRequest, ExplainRequest, RevokeTokensRequest, RotateTokenRequest,
    UpdatePolicyRequest, UpdateUserRequest,
};
use super::upload_service::GenerateTokenRequest;
use crate::tokens::{NarrowRequest, TokenRequest};

/// Bodies of requests: each type reads from text what it reads from the values in the text.
pub(crate) fn json_bodies(data: &[u8]) {
    check::<TokenRequest>(data);
    check::<NarrowRequest>(data);
    check::<GenerateTokenRequest>(data);
    check::<RotateTokenRequest>(data);
    check::<RevokeTokensRequest>(data);
    check::<CreateBanRequest>(data);
    check::<CreateGrantRequest>(data);
    check::<CreateUserRequest>(data);
    check::<UpdateUserRequest>(data);
    check::<UpdatePolicyRequest>(data);
    check::<ExplainRequest>(data);
    if let Ok(request) = serde_json::from_slice::<GenerateTokenRequest>(data) {
        let _ = request.into_token_request().is_ok();
    }
}

fn check<T: DeserializeOwned + Debug>(data: &[u8]) {
    let Ok(parsed) = serde_json::from_slice::<T>(data) else { return };
    let Ok(value) = serde_json::from_slice::<Value>(data) else { panic!("not JSON, but accepted") };
    match serde_json::from_value::<T>(value) {
        Ok(again) => assert_eq!(format!("{again:?}"), format!("{parsed:?}")),
        Err(error) => panic!("accepted as text alone: {error}"),
    }
}
