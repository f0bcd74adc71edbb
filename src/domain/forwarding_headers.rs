//! Header fields of trusted proxies in front of the server.

use std::str::FromStr;

/// Family of header fields in which trusted proxies pass on the address of the client.
///
/// A proxy writes one family and passes on the other as its client sent it: only the configured one is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingHeaders {
    /// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `-Prefix`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl FromStr for ForwardingHeaders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "x-forwarded" => Ok(Self::XForwarded),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("give x-forwarded or forwarded".to_owned()),
        }
    }
}
