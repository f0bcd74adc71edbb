//! What a channel has sent and nobody has answered yet, cut into packets without copying.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// The longest packet that is taken, without its length field.
pub(super) const MAX_PACKET: usize = 256 * 1024;
/// How much of a packet lies in one piece at least: all of a WRITE but its data.
const HEAD: usize = 512;

/// A packet that no honest client sends: the stream can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} bytes")]
pub(super) struct BadLength(usize);

/// A packet without its length field: the front in one piece, what follows as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The front: all of the packet, or at least its first 512 bytes.
    pub(super) head: Bytes,
    /// What follows the front, in order.
    pub(super) tail: Vec<Bytes>,
}

impl Frame {
    /// Joins a packet into one piece; copies only where it came in several.
    pub(super) fn join(self) -> Bytes {
        if self.tail.is_empty() {
            return self.head;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        self.tail.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// Returns how many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.tail.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The bytes that a channel has sent and nobody has taken.
#[derive(Debug, Default)]
pub(super) struct Input {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Input {
    /// Adds what came in.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Takes the next packet, when all of it is there.
    ///
    /// # Errors
    /// [`BadLength`] for a length of zero or past [`MAX_PACKET`].
    pub(super) fn next(&mut self) -> Result<Option<Frame>, BadLength> {
        let Some(length) = self.peek_length() else { return Ok(None) };
        if length == 0 || length > MAX_PACKET {
            return Err(BadLength(length));
        }
        if self.length < 4 + length {
            return Ok(None);
        }
        self.skip(4);
        let mut head = self.take(length);
        let mut left = length - head.len();
        if left > 0 && head.len() < HEAD {
            let wanted = HEAD.min(length);
            let mut joined = BytesMut::with_capacity(wanted);
            joined.extend_from_slice(&head);
            while joined.len() < wanted {
                let piece = self.take(wanted - joined.len());
                joined.extend_from_slice(&piece);
            }
            head = joined.freeze();
            left = length - head.len();
        }
        let mut tail = Vec::new();
        while left > 0 {
            let piece = self.take(left);
            left -= piece.len();
            tail.push(piece);
        }
        Ok(Some(Frame { head, tail }))
    }

    fn peek_length(&self) -> Option<usize> {
        let mut length = [0; 4];
        let mut bytes = self.pieces.iter().flat_map(|piece| piece.iter());
        for byte in &mut length {
            *byte = *bytes.next()?;
        }
        usize::try_from(u32::from_be_bytes(length)).ok()
    }

    fn skip(&mut self, mut count: usize) {
        while count > 0 {
            let taken = self.take(count).len();
            if taken == 0 {
                return;
            }
            count -= taken;
        }
    }

    /// Takes at most `most` bytes, of one piece.
    fn take(&mut self, most: usize) -> Bytes {
        let Some(front) = self.pieces.front_mut() else { return Bytes::new() };
        let piece = if front.len() <= most {
            self.pieces.pop_front().unwrap_or_default()
        } else {
            let piece = front.slice(..most);
            front.advance(most);
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
    fn a_packet_in_one_piece_is_not_copied() {
        let bytes = Bytes::from(packet(b"hello"));
        let mut input = Input::default();
        input.push(bytes.clone());
        let frame = input.next().expect("length").expect("whole");
        assert_eq!(frame.head.as_ptr(), bytes[4..].as_ptr());
        assert_eq!((frame.tail.len(), input.len()), (0, 0));
    }

    #[test]
    fn zero_and_over_long_lengths_end_the_stream() {
        for length in [0u32, 256 * 1024 + 1, u32::MAX] {
            let mut input = Input::default();
            input.push(Bytes::copy_from_slice(&length.to_be_bytes()));
            assert!(input.next().is_err(), "{length}");
        }
        let mut input = Input::default();
        input.push(Bytes::copy_from_slice(&(256u32 * 1024).to_be_bytes()));
        assert_eq!(input.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_they_were_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..1500), 1..6),
            cuts in proptest::collection::vec(1usize..700, 1..40),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| packet(body)).collect();
            let (mut input, mut found, mut rest) = (Input::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                input.push(Bytes::copy_from_slice(piece));
                rest = left;
                while let Some(frame) = input.next().expect("length") {
                    prop_assert!(frame.tail.is_empty() || frame.head.len() >= HEAD);
                    found.push(frame.join().to_vec());
                }
                if rest.is_empty() { break }
            }
            prop_assert_eq!(found, bodies);
            prop_assert_eq!(input.len(), 0);
        }
    }
}
