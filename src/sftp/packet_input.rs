//! Input of a channel that is not processed yet, split into packets without copying.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Maximum size of a packet, without its length field; `limits@openssh.com` announces it.
pub(super) const MAX_PACKET_BYTES: usize = 256 * 1024;
/// Minimum contiguous size of a packet's front: all of a WRITE but its data.
const FRAME_HEAD_MIN_BYTES: usize = 512;

/// Error for a packet length of zero or above the maximum: the stream can't be parsed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} bytes, expected 1 to {max}", max = MAX_PACKET_BYTES)]
pub(super) struct InvalidPacketLength(usize);

/// A packet without its length field: a contiguous front, and the rest in the pieces in which it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PacketFrame {
    /// The front: the whole packet, or at least its first 512 bytes.
    pub(super) head: Bytes,
    /// The rest, in order.
    pub(super) tail: Vec<Bytes>,
}

impl PacketFrame {
    /// Returns the packet in one piece; copies only if it was received in several.
    pub(super) fn join(self) -> Bytes {
        if self.tail.is_empty() {
            return self.head;
        }
        let mut joined = BytesMut::with_capacity(self.len());
        joined.extend_from_slice(&self.head);
        self.tail.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }

    /// Returns the packet's size in bytes.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.tail.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Received bytes that were not taken as packets yet.
#[derive(Debug, Default)]
pub(super) struct PacketInput {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl PacketInput {
    /// Adds received bytes.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Returns the number of bytes that are queued.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Takes the next packet; `None` while it is incomplete.
    ///
    /// # Errors
    /// [`InvalidPacketLength`] for a length of zero or above [`MAX_PACKET_BYTES`], again on every call.
    pub(super) fn next_frame(&mut self) -> Result<Option<PacketFrame>, InvalidPacketLength> {
        let Some(length) = self.peek_length() else { return Ok(None) };
        // Before anything is awaited or copied: a length of 4 GiB must not be buffered for.
        if length == 0 || length > MAX_PACKET_BYTES {
            return Err(InvalidPacketLength(length));
        }
        if self.length < 4 + length {
            return Ok(None);
        }
        self.skip(4);
        let mut head = self.take_from_front(length);
        let mut remaining = length - head.len();
        // A front that is split across SSH packets is joined, so that the fields before a WRITE's data are in one
        // piece.
        if remaining > 0 && head.len() < FRAME_HEAD_MIN_BYTES {
            let head_bytes = FRAME_HEAD_MIN_BYTES.min(length);
            let mut joined = BytesMut::with_capacity(head_bytes);
            joined.extend_from_slice(&head);
            while joined.len() < head_bytes {
                let piece = self.take_from_front(head_bytes - joined.len());
                joined.extend_from_slice(&piece);
            }
            head = joined.freeze();
            remaining = length - head.len();
        }
        let mut tail = Vec::new();
        while remaining > 0 {
            let piece = self.take_from_front(remaining);
            remaining -= piece.len();
            tail.push(piece);
        }
        Ok(Some(PacketFrame { head, tail }))
    }

    fn peek_length(&self) -> Option<usize> {
        let mut length = [0; 4];
        // The length field itself may be split across pieces.
        let mut bytes = self.pieces.iter().flat_map(|piece| piece.iter());
        for byte in &mut length {
            *byte = *bytes.next()?;
        }
        usize::try_from(u32::from_be_bytes(length)).ok()
    }

    fn skip(&mut self, mut count: usize) {
        while count > 0 {
            let taken = self.take_from_front(count).len();
            // Never reached, since the callers check the length; without it a mistake would loop for ever.
            if taken == 0 {
                return;
            }
            count -= taken;
        }
    }

    /// Takes at most `max_bytes` bytes from the first piece.
    fn take_from_front(&mut self, max_bytes: usize) -> Bytes {
        let Some(front) = self.pieces.front_mut() else { return Bytes::new() };
        let piece = if front.len() <= max_bytes {
            self.pieces.pop_front().unwrap_or_default()
        } else {
            // Shares the buffer: nothing is copied, and the buffer is freed with its last packet.
            let piece = front.slice(..max_bytes);
            front.advance(max_bytes);
            piece
        };
        self.length -= piece.len();
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let mut packet = u32::try_from(body.len()).expect("length").to_be_bytes().to_vec();
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn contiguous_packet_is_not_copied() {
        let bytes = Bytes::from(packet(b"hello"));
        let mut input = PacketInput::default();
        input.push(bytes.clone());
        let frame = input.next_frame().expect("length").expect("whole");
        assert_eq!(frame.head.as_ptr(), bytes[4..].as_ptr());
        assert_eq!((frame.tail.len(), input.len()), (0, 0));
    }

    #[test]
    fn zero_or_oversized_packet_length_is_an_error() {
        for length in [0u32, 256 * 1024 + 1, u32::MAX] {
            let mut input = PacketInput::default();
            input.push(Bytes::copy_from_slice(&length.to_be_bytes()));
            assert!(input.next_frame().is_err(), "{length}");
        }
        let mut input = PacketInput::default();
        input.push(Bytes::copy_from_slice(&(256u32 * 1024).to_be_bytes()));
        assert_eq!(input.next_frame(), Ok(None));
    }

    proptest! {
        #[test]
        fn packets_survive_any_fragmentation(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..1500), 1..6),
            cuts in proptest::collection::vec(1usize..700, 1..40),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| packet(body)).collect();
            let (mut input, mut found, mut rest) = (PacketInput::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                input.push(Bytes::copy_from_slice(piece));
                rest = left;
                while let Some(frame) = input.next_frame().expect("length") {
                    prop_assert!(frame.tail.is_empty() || frame.head.len() >= FRAME_HEAD_MIN_BYTES);
                    found.push(frame.join().to_vec());
                }
                if rest.is_empty() { break }
            }
            prop_assert_eq!(found, bodies);
            prop_assert_eq!(input.len(), 0);
        }
    }
}
