//! Sending of syslog messages (RFC 5424) to a socket of this machine, over UDP or over TCP.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::domain::SyslogTarget;

/// Maximum time that connecting, and sending one message, may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection to a syslog receiver; it is opened by the first message, and again after an error.
#[derive(Debug)]
pub struct SyslogSender {
    target: SyslogTarget,
    socket: Option<SyslogSocket>,
}

#[derive(Debug)]
enum SyslogSocket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl SyslogSender {
    /// Returns the sender to a receiver, without connecting.
    pub fn new(target: SyslogTarget) -> Self {
        Self { target, socket: None }
    }

    /// Sends a message, which begins with the header of RFC 5424.
    ///
    /// # Errors
    /// Those of the socket. Over TCP the end of the connection is noticed late: a message before may be lost.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        // Put back after success only: a connection that has failed is not used again.
        self.socket = Some(socket.send(message)?);
        Ok(())
    }

    fn connect(&self) -> io::Result<SyslogSocket> {
        match &self.target {
            SyslogTarget::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(SyslogSocket::Unix(socket))
            }
            SyslogTarget::Udp(address) => {
                let address = resolve(address)?;
                let local = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
                socket.connect(address)?;
                Ok(SyslogSocket::Udp(socket))
            }
            SyslogTarget::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&resolve(address)?, SEND_TIMEOUT)?;
                stream.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(SyslogSocket::Tcp(stream))
            }
        }
    }
}

impl SyslogSocket {
    fn send(self, message: &[u8]) -> io::Result<Self> {
        match self {
            Self::Unix(socket) => socket.send(message).map(|_| Self::Unix(socket)),
            Self::Udp(socket) => socket.send(message).map(|_| Self::Udp(socket)),
            Self::Tcp(mut stream) => {
                // In one write, so that a timeout leaves no frame without its length.
                let frame = [message.len().to_string().as_bytes(), b" ", message].concat();
                stream.write_all(&frame).map(|()| Self::Tcp(stream))
            }
        }
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let not_found = || io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    address.to_socket_addrs()?.next().ok_or_else(not_found)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn message_is_one_datagram_or_has_its_length_in_front() {
        let folder = tempfile::tempdir().expect("directory");
        let path = folder.path().join("log");
        let unix = UnixDatagram::bind(&path).expect("bound");
        SyslogSender::new(SyslogTarget::Unix(path)).send(b"<110>1 one").expect("sent");
        let mut buffer = [0; 64];
        let length = unix.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"<110>1 one");

        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = udp.local_addr().expect("bound").to_string();
        SyslogSender::new(SyslogTarget::Udp(address)).send(b"<110>1 two").expect("sent");
        let length = udp.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"<110>1 two");

        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut sender = SyslogSender::new(SyslogTarget::Tcp(tcp.local_addr().expect("bound").to_string()));
        sender.send(b"three").expect("sent");
        sender.send(b"four").expect("sent");
        drop(sender);
        let mut received = String::new();
        tcp.accept().expect("accepted").0.read_to_string(&mut received).expect("received");
        assert_eq!(received, "5 three4 four");
    }

    #[test]
    fn sender_connects_again_after_an_error() {
        let folder = tempfile::tempdir().expect("directory");
        let path = folder.path().join("log");
        let mut sender = SyslogSender::new(SyslogTarget::Unix(path.clone()));
        assert!(sender.send(b"lost").is_err());
        let first = UnixDatagram::bind(&path).expect("bound");
        sender.send(b"x").expect("sent");
        drop(first);
        std::fs::remove_file(&path).expect("removed");
        let _second = UnixDatagram::bind(&path).expect("bound");
        assert!(sender.send(b"lost").is_err());
        sender.send(b"y").expect("sent");
    }
}
