//! What the HTTP rooms share: bodies, credentials, and where a request really came from.

mod body;
mod content_coding;
mod credential;
mod cross_origin;
mod introduction;
mod origin;
mod public;
mod request_body;
mod stream;
mod target;
mod untrusted_proxy;

pub use body::{Body, BodyError, Proven, date_now, empty, full, text};
pub use content_coding::is_encoded;
pub use credential::{challenge, credential, retry_after};
pub use cross_origin::is_cross_origin;
pub use introduction::{Introduction, ProvenConnection};
pub use origin::{Origin, TrustedProxies};
pub use public::{Forwarding, PublicAddress, ServerName};
pub use request_body::{BodyRest, RequestBody, RequestBodyError, UnreadBody};
pub use stream::{Buffers, Source, streamed};
pub use target::{normalized_path, normalized_target};
