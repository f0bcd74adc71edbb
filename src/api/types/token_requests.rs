//! Requests to rotate and revoke tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Lifetime, Login, SshPublicKey, TokenId, schema};

/// Options of a rotation.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateTokenRequest {
    /// Grace period during which the old secret is still accepted, 24 h at most; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub grace: Option<Lifetime>,
    /// SSH public key that proves the token from now on, in place of a new secret; needed for a token that a key proves.
    #[serde(default, rename = "sshKey", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SshPublicKey>)]
    pub ssh_key: Option<SshPublicKey>,
}

/// Tokens to revoke together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeTokensRequest {
    /// Ids of the tokens.
    #[schema(value_type = Vec<schema::TokenId>, max_items = 1000)]
    pub ids: Vec<TokenId>,
}

/// Number of revoked tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RevokedTokens)]
pub struct RevokedTokensResponse {
    /// Login of the owner.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// Number of tokens that had not been revoked before.
    pub revoked: usize,
}

#[cfg(test)]
mod tests {
    use crate::tokens::{NarrowRequest, RequestedLifetime, TokenRequest};

    #[test]
    fn token_request_has_one_json_form() {
        let json = concat!(
            r#"{"owner":"alice","name":"laptop","description":"old","lifetime":"30d","#,
            r#""window":"1h","scopes":["path:/a:r"],"limits":{"ips":["192.0.2.7/32"],"user_agents":["rclone/*"],"#,
            r#""mimes":["image/*"],"tags":["a"],"max_file_size":10},"roles":["admin"]}"#
        );
        let request: TokenRequest = serde_json::from_str(json).expect("a request");
        assert_eq!(request.lifetime, Some(RequestedLifetime::For("30d".parse().expect("lifetime"))));
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        let json = r#"{"limits":{},"roles":[],"expires_at":"2030-05-05T08:00:00Z"}"#;
        let change: NarrowRequest = serde_json::from_str(json).expect("a change");
        assert_eq!(serde_json::to_string(&change).expect("JSON"), json);
    }

    #[test]
    fn null_is_an_absent_field_and_unknown_fields_are_refused() {
        let nulls = r#"{"owner":null,"name":null,"description":null,"lifetime":null,"expires_at":null,"window":null}"#;
        assert_eq!(serde_json::from_str::<TokenRequest>(nulls).expect("a request"), TokenRequest::default());
        for json in [r#"{"foreign_roles":[]}"#, r#"{"limits":[]}"#, r#"{"limits":{"x":1}}"#, r#"{"lifetime":"soon"}"#] {
            assert!(serde_json::from_str::<TokenRequest>(json).is_err(), "{json}");
        }
    }
}
