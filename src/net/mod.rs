//! Sockets: accept loop and connection limits, TLS, the PROXY protocol, and streams with timeouts.

mod acme_challenges;
mod certificate;
mod connection_activity;
mod connection_limit;
mod deferred_eof;
mod file_transfer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gathered_writes;
mod inherited_listeners;
mod lingering_close;
mod listen;
mod min_transfer_rate;
mod proxy_protocol;
mod reachable_addresses;
mod rewind;
mod syslog;
mod tls;
mod write_timeout;

pub use acme_challenges::{AcmeChallenges, ChallengeError};
pub use certificate::{CertificateValidity, FileStamp};
pub use connection_activity::ActiveRequest;
pub(crate) use connection_limit::address_network;
pub use connection_limit::{
    ConnectionLimiter, ConnectionLimits, ConnectionPermit, ConnectionUsage, TooManyConnections,
};
pub use deferred_eof::{DeferredEofStream, EofGate};
pub use file_transfer::{FileTransfer, FileTransferStream, MAX_FILE_RANGE_BYTES};
pub use gathered_writes::{GatheredWrites, WriteFlusher};
pub use inherited_listeners::{InheritedListenerError, InheritedListeners};
pub use lingering_close::{DrainLimits, LingeringStream, UnreadInput};
pub use listen::{AcceptedConnection, accept, set_peer_timeout};
pub use min_transfer_rate::MinTransferRate;
pub use reachable_addresses::ReachableAddresses;
pub use rewind::RewindStream;
pub use syslog::SyslogSender;
pub use tls::{
    TlsError, TlsFailure, acme_server_config, certificate_validity, check_certificate, install_default_crypto_provider,
    server_config,
};
pub use write_timeout::{PeerShutdown, WriteTimeoutStream};
