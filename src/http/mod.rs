//! What the HTTP rooms share: bodies, credentials, and where a request really came from.

mod body;
mod credential;
mod origin;
mod public;
mod stream;
mod target;
mod untrusted_proxy;

pub use body::{Body, BodyError, Proven, empty, full, linger, text};
pub use credential::{challenge, credential, retry_after};
pub use origin::{Contradiction, Origin, TrustedProxies};
pub use public::{Forwarding, PublicAddress, ServerName};
pub use stream::{Buffers, Source, streamed};
pub use target::{normalized_path, normalized_target};
