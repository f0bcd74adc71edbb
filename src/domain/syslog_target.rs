//! The address of a syslog receiver.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Receiver of syslog messages: `unix:PATH`, `udp:HOST:PORT` or `tcp:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// Datagram socket of this machine, such as `/dev/log`.
    Unix(PathBuf),
    /// Host and port, one message a datagram.
    Udp(String),
    /// Host and port, messages with their length in front (RFC 6587 section 3.4.1).
    Tcp(String),
}

impl FromStr for SyslogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "give unix:/dev/log, udp:HOST:PORT or tcp:HOST:PORT".to_owned();
        let (kind, address) = text.split_once(':').ok_or_else(form)?;
        let has_port = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(())
        };
        match kind {
            "unix" if address.starts_with('/') => Ok(Self::Unix(PathBuf::from(address))),
            "udp" if has_port(address).is_some() => Ok(Self::Udp(address.to_owned())),
            "tcp" if has_port(address).is_some() => Ok(Self::Tcp(address.to_owned())),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_targets_roundtrip_and_others_are_refused() {
        for text in ["unix:/dev/log", "udp:collector.example.org:514", "tcp:[2001:db8::1]:601"] {
            assert_eq!(text.parse::<SyslogTarget>().map(|target| target.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "/dev/log", "unix:dev/log", "udp:host", "udp::514", "tcp:host:0", "tls:host:6514", "tcp:host:x"]
        {
            assert!(text.parse::<SyslogTarget>().is_err(), "{text}");
        }
    }
}
