//! HTTP code that `webdav`, `api`, `console` and `gateway` share: bodies, credentials, and the source of a request.

mod body;
mod connection_handle;
mod content_coding;
mod credential;
mod cross_origin;
mod forwarded;
mod forwarding_header_names;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod last_session;
mod public_address;
mod queued_body;
mod request_body;
mod request_target;
mod streamed_body;
mod untrusted_proxy;

pub use crate::net::{FileTransfer, MAX_FILE_RANGE_BYTES, TooManyConnections};
pub use body::{
    AuthenticatedSession, BodyError, RequestingSession, ResponseBody, bytes_with_reservation, current_date_header,
    empty, full, text_response,
};
pub use connection_handle::{AuthenticatedConnection, ConnectionHandle};
pub use content_coding::has_content_coding;
pub use credential::{add_challenges, parse_credential, set_retry_after};
pub use cross_origin::is_cross_origin;
pub use forwarded::{RequestSource, TrustedProxies};
pub use last_session::{LastSession, user_agent};
pub use public_address::{ForwardedAddress, PublicAddress, ServerName};
pub use queued_body::{BodyStart, queued_body};
pub use request_body::{ReceivedBytes, RequestBody, RequestBodyError, UnreadBody, UnreadBodyRest};
pub use request_target::{is_path_within, normalized_path, normalized_target};
pub use streamed_body::{BlockBufferPool, BlockProducer, streamed_body};
pub use untrusted_proxy::untrusted_proxy;
