//! Sockets: who may connect, how many at once, and how a listener stops.

mod deferred_end;
mod gate;
mod lingering;
mod listen;
mod pace;
mod relayed;
mod rewound;
mod tls;
mod unstalled;

pub use deferred_end::{DeferredEndStream, EndGate};
pub(crate) use gate::network;
pub use gate::{Answering, Gate, GateLimits, Pass, TooManyConnections};
pub use lingering::{DrainLimits, LingeringStream, UnreadInput};
pub use listen::{Connection, accept, tolerate_silence};
pub use pace::Pace;
pub use rewound::RewoundStream;
pub use tls::{TlsError, TlsFailure, certificate_fault, install_crypto, server_config};
pub use unstalled::{PeerEnd, Unstalled};
