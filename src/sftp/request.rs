//! Requests as bytes (draft-ietf-secsh-filexfer-02 section 6 and OpenSSH's extensions).

use bytes::Bytes;

use super::attributes::Change;
use super::hashes::Hashes;
use super::input::Frame;

/// A request whose body breaks off or contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Names an open file or folder of a channel; zero names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandleId(pub(super) u64);

/// How OPEN asks for a file (section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFlags(u32);

impl OpenFlags {
    pub(super) const READ: Self = Self(0x01);
    pub(super) const WRITE: Self = Self(0x02);
    pub(super) const APPEND: Self = Self(0x04);
    pub(super) const CREATE: Self = Self(0x08);
    pub(super) const TRUNCATE: Self = Self(0x10);
    pub(super) const EXCLUSIVE: Self = Self(0x20);

    /// Tells whether all of `other` is asked for.
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a client asks for. Paths are bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Open { path: Bytes, flags: OpenFlags, attributes: Change },
    Close(HandleId),
    Read { handle: HandleId, offset: u64, length: u32 },
    Write { handle: HandleId, offset: u64, data: Vec<Bytes> },
    Stat(Bytes),
    LinkStat(Bytes),
    HandleStat(HandleId),
    SetStat { path: Bytes, attributes: Change },
    LinkSetStat { path: Bytes, attributes: Change },
    HandleSetStat { handle: HandleId, attributes: Change },
    OpenFolder(Bytes),
    ReadFolder(HandleId),
    MakeFolder { path: Bytes, attributes: Change },
    RemoveFolder(Bytes),
    Remove(Bytes),
    Rename { from: Bytes, to: Bytes },
    PosixRename { from: Bytes, to: Bytes },
    HardLink { from: Bytes, to: Bytes },
    Symlink { target: Bytes, path: Bytes },
    ReadLink(Bytes),
    RealPath(Bytes),
    ExpandPath(Bytes),
    HomeDirectory(Bytes),
    Space(Bytes),
    HandleSpace(HandleId),
    Sync(HandleId),
    CopyData { from: HandleId, offset: u64, length: u64, to: HandleId, to_offset: u64 },
    CheckName { path: Bytes, hashes: Hashes },
    CheckHandle { handle: HandleId, hashes: Hashes },
    Limits,
    Names { users: Bytes, groups: Bytes },
    Unknown,
}

/// A packet from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// The greeting. Its version and extensions change nothing: version 3 is answered.
    Init,
    /// A request and its id, which the answer carries.
    Request(u32, Result<Request, Malformed>),
    /// Too short to hold an id: nothing can be answered.
    Broken,
}

impl Packet {
    /// Reads a packet.
    pub(super) fn parse(frame: Frame) -> Self {
        const INIT: u8 = 1;
        const WRITE: u8 = 6;
        let mut fields = Fields(frame.head.clone());
        let (kind, id) = match (fields.byte(), fields.number()) {
            (Ok(INIT), Ok(_)) => return Self::Init,
            (Ok(kind), Ok(id)) => (kind, id),
            _ => return Self::Broken,
        };
        if kind == WRITE {
            return Self::Request(id, fields.write(frame.tail));
        }
        if !frame.tail.is_empty() {
            fields = Fields(frame.join().split_off(5));
        }
        Self::Request(id, fields.request(kind))
    }
}

/// Reads one field after the other.
struct Fields(Bytes);

impl Fields {
    fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < count { Err(Malformed) } else { Ok(self.0.split_to(count)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, _) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        let array = *array;
        self.take(N).map(|_| array)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<Bytes, Malformed> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    fn handle(&mut self) -> Result<HandleId, Malformed> {
        let name = self.string()?;
        Ok(HandleId(name[..].try_into().map_or(0, u64::from_be_bytes)))
    }

    fn attributes(&mut self) -> Result<Change, Malformed> {
        let flags = self.number()?;
        let mut change = Change::default();
        if flags & Change::SIZE != 0 {
            change.size = Some(self.long()?);
        }
        if flags & Change::OWNER != 0 {
            change.owner = Some((self.number()?, self.number()?));
        }
        if flags & Change::MODE != 0 {
            change.mode = Some(self.number()?);
        }
        if flags & Change::TIMES != 0 {
            change.times = Some((self.number()?, self.number()?));
        }
        if flags & Change::EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(change)
    }

    fn hashes(&mut self) -> Result<Hashes, Malformed> {
        Ok(Hashes { algorithms: self.string()?, offset: self.long()?, length: self.long()?, block: self.number()? })
    }

    fn write(mut self, tail: Vec<Bytes>) -> Result<Request, Malformed> {
        let (handle, offset) = (self.handle()?, self.long()?);
        let mut left = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let mut data = Vec::with_capacity(1 + tail.len());
        for mut piece in std::iter::once(self.0).chain(tail) {
            piece.truncate(left);
            left -= piece.len();
            if !piece.is_empty() {
                data.push(piece);
            }
        }
        if left == 0 { Ok(Request::Write { handle, offset, data }) } else { Err(Malformed) }
    }

    fn request(mut self, kind: u8) -> Result<Request, Malformed> {
        Ok(match kind {
            3 => {
                let (path, flags) = (self.string()?, OpenFlags(self.number()?));
                Request::Open { path, flags, attributes: self.attributes()? }
            }
            4 => Request::Close(self.handle()?),
            5 => Request::Read { handle: self.handle()?, offset: self.long()?, length: self.number()? },
            7 => Request::LinkStat(self.string()?),
            8 => Request::HandleStat(self.handle()?),
            9 => Request::SetStat { path: self.string()?, attributes: self.attributes()? },
            10 => Request::HandleSetStat { handle: self.handle()?, attributes: self.attributes()? },
            11 => Request::OpenFolder(self.string()?),
            12 => Request::ReadFolder(self.handle()?),
            13 => Request::Remove(self.string()?),
            14 => Request::MakeFolder { path: self.string()?, attributes: self.attributes()? },
            15 => Request::RemoveFolder(self.string()?),
            16 => Request::RealPath(self.string()?),
            17 => Request::Stat(self.string()?),
            18 => Request::Rename { from: self.string()?, to: self.string()? },
            19 => Request::ReadLink(self.string()?),
            // OpenSSH sends the target first, against the draft; so do clients that find
            // "OpenSSH" in our identification string. The others are known by name, see the door.
            20 => Request::Symlink { target: self.string()?, path: self.string()? },
            200 => self.extended()?,
            _ => Request::Unknown,
        })
    }

    fn extended(mut self) -> Result<Request, Malformed> {
        let name = self.string()?;
        Ok(match &name[..] {
            b"posix-rename@openssh.com" => Request::PosixRename { from: self.string()?, to: self.string()? },
            b"statvfs@openssh.com" => Request::Space(self.string()?),
            b"fstatvfs@openssh.com" => Request::HandleSpace(self.handle()?),
            b"hardlink@openssh.com" => Request::HardLink { from: self.string()?, to: self.string()? },
            b"fsync@openssh.com" => Request::Sync(self.handle()?),
            b"lsetstat@openssh.com" => Request::LinkSetStat { path: self.string()?, attributes: self.attributes()? },
            b"limits@openssh.com" => Request::Limits,
            b"expand-path@openssh.com" => Request::ExpandPath(self.string()?),
            b"copy-data" => Request::CopyData {
                from: self.handle()?,
                offset: self.long()?,
                length: self.long()?,
                to: self.handle()?,
                to_offset: self.long()?,
            },
            b"check-file-name" => Request::CheckName { path: self.string()?, hashes: self.hashes()? },
            // Clients also ask for the one by handle under the name of both.
            b"check-file-handle" | b"check-file" => {
                Request::CheckHandle { handle: self.handle()?, hashes: self.hashes()? }
            }
            b"home-directory" => Request::HomeDirectory(self.string()?),
            b"users-groups-by-id@openssh.com" => Request::Names { users: self.string()?, groups: self.string()? },
            _ => Request::Unknown,
        })
    }
}

/// The extensions that are announced, and their versions.
pub(super) const EXTENSIONS: [(&str, &str); 14] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("check-file", "1"),
    ("check-file-name", "1"),
    ("check-file-handle", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(head: impl Into<Bytes>) -> Frame {
        Frame { head: head.into(), tail: Vec::new() }
    }

    fn string(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).expect("length").to_be_bytes(), text].concat()
    }

    fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
        [&[kind][..], &id.to_be_bytes(), &fields.concat()].concat()
    }

    #[test]
    fn a_write_keeps_its_data_in_the_pieces_it_came_in() {
        let handle = string(&7u64.to_be_bytes());
        let front = packet(6, 9, &[&handle, &5u64.to_be_bytes(), &6u32.to_be_bytes(), b"ab"]);
        let tail = vec![Bytes::from_static(b"cd"), Bytes::from_static(b"efgh")];
        let wanted = Request::Write {
            handle: HandleId(7),
            offset: 5,
            data: ["ab", "cd", "ef"].map(|piece| Bytes::from_static(piece.as_bytes())).to_vec(),
        };
        assert_eq!(Packet::parse(Frame { head: front.clone().into(), tail }), Packet::Request(9, Ok(wanted)));
        assert_eq!(Packet::parse(frame(front)), Packet::Request(9, Err(Malformed)), "data breaks off");
    }

    #[test]
    fn a_body_that_breaks_off_keeps_its_id() {
        assert_eq!(Packet::parse(frame(packet(17, 3, &[&[0, 0, 0, 9], b"/a"]))), Packet::Request(3, Err(Malformed)));
        assert_eq!(Packet::parse(frame(packet(3, 4, &[&string(b"/a")]))), Packet::Request(4, Err(Malformed)));
        assert_eq!(Packet::parse(frame(packet(99, 5, &[]))), Packet::Request(5, Ok(Request::Unknown)));
        assert_eq!(
            Packet::parse(frame(packet(200, 6, &[&string(b"no@such")]))),
            Packet::Request(6, Ok(Request::Unknown))
        );
        assert_eq!(Packet::parse(frame(vec![17, 0, 0])), Packet::Broken);
    }

    #[test]
    fn a_handle_of_another_length_names_nothing() {
        let read = packet(4, 1, &[&string(b"abc")]);
        assert_eq!(Packet::parse(frame(read)), Packet::Request(1, Ok(Request::Close(HandleId(0)))));
    }

    #[test]
    fn extended_attributes_are_passed_over() {
        let attributes = [
            &(Change::MODE | Change::EXTENDED).to_be_bytes()[..],
            &0o600u32.to_be_bytes(),
            &1u32.to_be_bytes(),
            &string(b"a@b"),
            &string(b"c"),
        ]
        .concat();
        let change = Change { mode: Some(0o600), ..Change::default() };
        let wanted = Request::SetStat { path: Bytes::from_static(b"/x"), attributes: change };
        assert_eq!(Packet::parse(frame(packet(9, 2, &[&string(b"/x"), &attributes]))), Packet::Request(2, Ok(wanted)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            kind in prop_oneof![0u8..21, Just(200u8), any::<u8>()],
            head: Vec<u8>,
            tail: Vec<Vec<u8>>,
        ) {
            let head = packet(kind, 1, &[&head]);
            Packet::parse(Frame { head: head.into(), tail: tail.into_iter().map(Bytes::from).collect() });
        }

        #[test]
        fn no_extension_makes_the_parser_panic(at in 0..EXTENSIONS.len(), rest: Vec<u8>) {
            Packet::parse(frame(packet(200, 1, &[&string(EXTENSIONS[at].0.as_bytes()), &rest])));
        }
    }
}
