//! Properties of the parser of SFTP packets, for [`crate::fuzzing`].

use bytes::Bytes;

use super::packet_input::{InvalidPacketLength, MAX_PACKET_BYTES, PacketInput};
use super::request::{ClientPacket, SftpRequest};

/// Packets: the pieces in which they arrive don't matter, and they hold no more than has arrived.
pub(crate) fn packets(data: &[u8]) {
    let Some((piece_bytes, stream)) = data.split_first() else { return };
    let whole = parse_in_pieces(stream, stream.len().max(1));
    assert_eq!(whole, parse_in_pieces(stream, usize::from(*piece_bytes).max(1)));
    let requests = whole.0.iter().filter_map(|packet| match packet {
        ClientPacket::Request(_, request) => request.as_ref().ok(),
        ClientPacket::Init | ClientPacket::Truncated => None,
    });
    let mut content_bytes = 0;
    for request in requests {
        content_bytes += request.content_bytes();
        let (_, path) = request.describe();
        assert!(path.is_none_or(|path| path.len() < stream.len()));
        let _ = request.name();
    }
    assert!(content_bytes <= stream.len() as u64);
}

/// Returns all packets, the data of each WRITE in one piece, and the error that ends the stream.
fn parse_in_pieces(stream: &[u8], piece_bytes: usize) -> (Vec<ClientPacket>, Option<InvalidPacketLength>) {
    let (mut input, mut packets) = (PacketInput::default(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        input.push(Bytes::copy_from_slice(piece));
        loop {
            match input.next_frame() {
                Ok(Some(frame)) => {
                    assert!((1..=MAX_PACKET_BYTES).contains(&frame.len()));
                    packets.push(joined(ClientPacket::parse(frame)));
                }
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

fn joined(packet: ClientPacket) -> ClientPacket {
    match packet {
        ClientPacket::Request(id, Ok(SftpRequest::Write { handle, offset, data })) => {
            let data = vec![Bytes::from(data.concat())];
            ClientPacket::Request(id, Ok(SftpRequest::Write { handle, offset, data }))
        }
        packet => packet,
    }
}
