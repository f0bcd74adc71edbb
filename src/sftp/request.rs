//! Parsing of requests (draft-ietf-secsh-filexfer-02 section 6 and OpenSSH's extensions).

use bytes::Bytes;

use super::attributes::SftpAttributes;
use super::packet_input::PacketFrame;
use crate::telemetry::SftpRequestName;

/// Error for a request whose body is truncated or inconsistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedSftpRequest;

/// Identifies an open file or directory of a channel; zero is never assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandleId(pub(super) u64);

/// `pflags` of SSH_FXP_OPEN (section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFlags(u32);

impl OpenFlags {
    pub(super) const READ: Self = Self(0x01);
    pub(super) const WRITE: Self = Self(0x02);
    pub(super) const APPEND: Self = Self(0x04);
    pub(super) const CREATE: Self = Self(0x08);
    pub(super) const TRUNCATE: Self = Self(0x10);
    pub(super) const EXCLUSIVE: Self = Self(0x20);

    /// Returns whether all flags of `other` are set.
    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Parameters of a `check-file` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckFileRequest {
    /// Comma-separated names of algorithms, in the client's order of preference.
    pub(super) algorithms: Bytes,
    /// Offset of the first byte.
    pub(super) offset: u64,
    /// Number of bytes; zero for all up to the end of the file.
    pub(super) length: u64,
    /// Size of the blocks that are hashed separately; zero for one hash of the whole range.
    pub(super) block_bytes: u32,
}

/// A parsed request. Paths are the client's bytes, not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SftpRequest {
    Open { path: Bytes, flags: OpenFlags, attributes: SftpAttributes },
    Close(HandleId),
    Read { handle: HandleId, offset: u64, length: u32 },
    Write { handle: HandleId, offset: u64, data: Vec<Bytes> },
    Stat(Bytes),
    Lstat(Bytes),
    Fstat(HandleId),
    Setstat { path: Bytes, attributes: SftpAttributes },
    Lsetstat { path: Bytes, attributes: SftpAttributes },
    Fsetstat { handle: HandleId, attributes: SftpAttributes },
    Opendir(Bytes),
    Readdir(HandleId),
    Mkdir { path: Bytes, attributes: SftpAttributes },
    Rmdir(Bytes),
    Remove(Bytes),
    Rename { from: Bytes, to: Bytes },
    PosixRename { from: Bytes, to: Bytes },
    Hardlink { from: Bytes, to: Bytes },
    Symlink { target: Bytes, path: Bytes },
    Readlink(Bytes),
    Realpath(Bytes),
    ExpandPath(Bytes),
    HomeDirectory(Bytes),
    Statvfs(Bytes),
    Fstatvfs(HandleId),
    Fsync(HandleId),
    CopyData { from: HandleId, offset: u64, length: u64, to: HandleId, to_offset: u64 },
    CheckFileName { path: Bytes, hashes: CheckFileRequest },
    CheckFileHandle { handle: HandleId, hashes: CheckFileRequest },
    Limits,
    UsersGroupsById { users: Bytes, groups: Bytes },
    Unknown,
}

impl SftpRequest {
    /// Returns the name of the request in metrics and in the access log.
    pub(super) fn name(&self) -> SftpRequestName {
        match self {
            Self::Open { .. } => SftpRequestName::Open,
            Self::Close(_) => SftpRequestName::Close,
            Self::Read { .. } => SftpRequestName::Read,
            Self::Write { .. } => SftpRequestName::Write,
            Self::Stat(_) => SftpRequestName::Stat,
            Self::Lstat(_) => SftpRequestName::Lstat,
            Self::Fstat(_) => SftpRequestName::Fstat,
            Self::Setstat { .. } => SftpRequestName::Setstat,
            Self::Lsetstat { .. } => SftpRequestName::Lsetstat,
            Self::Fsetstat { .. } => SftpRequestName::Fsetstat,
            Self::Opendir(_) => SftpRequestName::Opendir,
            Self::Readdir(_) => SftpRequestName::Readdir,
            Self::Mkdir { .. } => SftpRequestName::Mkdir,
            Self::Rmdir(_) => SftpRequestName::Rmdir,
            Self::Remove(_) => SftpRequestName::Remove,
            Self::Rename { .. } => SftpRequestName::Rename,
            Self::PosixRename { .. } => SftpRequestName::PosixRename,
            Self::Hardlink { .. } => SftpRequestName::Hardlink,
            Self::Symlink { .. } => SftpRequestName::Symlink,
            Self::Readlink(_) => SftpRequestName::Readlink,
            Self::Realpath(_) => SftpRequestName::Realpath,
            Self::ExpandPath(_) => SftpRequestName::ExpandPath,
            Self::HomeDirectory(_) => SftpRequestName::HomeDirectory,
            Self::Statvfs(_) => SftpRequestName::Statvfs,
            Self::Fstatvfs(_) => SftpRequestName::Fstatvfs,
            Self::Fsync(_) => SftpRequestName::Fsync,
            Self::CopyData { .. } => SftpRequestName::CopyData,
            Self::CheckFileName { .. } | Self::CheckFileHandle { .. } => SftpRequestName::CheckFile,
            Self::Limits => SftpRequestName::Limits,
            Self::UsersGroupsById { .. } => SftpRequestName::UsersGroupsById,
            Self::Unknown => SftpRequestName::Other,
        }
    }

    /// Returns the number of bytes of content that the request carries.
    pub(super) fn content_bytes(&self) -> u64 {
        match self {
            Self::Write { data, .. } => data.iter().map(|piece| piece.len() as u64).sum(),
            _ => 0,
        }
    }

    /// Returns the name of the request and the path that it changes or reads, for the log.
    pub(super) fn describe(&self) -> (&'static str, Option<Bytes>) {
        let (name, path) = match self {
            Self::Open { path, .. } => ("OPEN", path),
            Self::Stat(path) => ("STAT", path),
            Self::Lstat(path) => ("LSTAT", path),
            Self::Setstat { path, .. } | Self::Lsetstat { path, .. } => ("SETSTAT", path),
            Self::Opendir(path) => ("OPENDIR", path),
            Self::Mkdir { path, .. } => ("MKDIR", path),
            Self::Rmdir(path) => ("RMDIR", path),
            Self::Remove(path) => ("REMOVE", path),
            Self::Rename { from, .. } | Self::PosixRename { from, .. } => ("RENAME", from),
            Self::Hardlink { to, .. } => ("LINK", to),
            Self::Symlink { path, .. } => ("SYMLINK", path),
            Self::Readlink(path) => ("READLINK", path),
            Self::Realpath(path) | Self::ExpandPath(path) => ("REALPATH", path),
            Self::Statvfs(path) => ("statvfs", path),
            Self::CheckFileName { path, .. } => ("check-file", path),
            Self::Read { .. } => return ("READ", None),
            Self::Write { .. } => return ("WRITE", None),
            Self::Close(_) => return ("CLOSE", None),
            Self::Fsetstat { .. } => return ("FSETSTAT", None),
            Self::Readdir(_) => return ("READDIR", None),
            Self::Fsync(_) => return ("fsync", None),
            Self::CopyData { .. } => return ("copy-data", None),
            Self::CheckFileHandle { .. } => return ("check-file", None),
            Self::Fstat(_) | Self::Fstatvfs(_) => return ("FSTAT", None),
            Self::HomeDirectory(_) | Self::Limits | Self::UsersGroupsById { .. } | Self::Unknown => {
                return ("request", None);
            }
        };
        (name, Some(path.clone()))
    }
}

/// A packet from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientPacket {
    /// SSH_FXP_INIT. Its version and extensions are ignored: the reply is always version 3.
    Init,
    /// A request and its id, which the reply repeats.
    Request(u32, Result<SftpRequest, MalformedSftpRequest>),
    /// A packet too short to hold an id: no reply is possible.
    Truncated,
}

impl ClientPacket {
    /// Parses a packet.
    pub(super) fn parse(frame: PacketFrame) -> Self {
        const INIT: u8 = 1;
        const WRITE: u8 = 6;
        let mut fields = FieldReader(frame.head.clone());
        let (kind, id) = match (fields.read_u8(), fields.read_u32()) {
            (Ok(INIT), Ok(_)) => return Self::Init,
            (Ok(kind), Ok(id)) => (kind, id),
            _ => return Self::Truncated,
        };
        // First: the data of a WRITE stays in the pieces in which it was received. Other requests are small and joined.
        if kind == WRITE {
            return Self::Request(id, fields.read_write_request(frame.tail));
        }
        if !frame.tail.is_empty() {
            // Type and id, five bytes, were read above.
            fields = FieldReader(frame.join().split_off(5));
        }
        Self::Request(id, fields.read_request(kind))
    }
}

/// Reads the fields of a packet, one after the other.
struct FieldReader(Bytes);

impl FieldReader {
    fn take(&mut self, count: usize) -> Result<Bytes, MalformedSftpRequest> {
        // `split_to` panics beyond the end.
        if self.0.len() < count { Err(MalformedSftpRequest) } else { Ok(self.0.split_to(count)) }
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], MalformedSftpRequest> {
        let (array, _) = self.0.split_first_chunk::<N>().ok_or(MalformedSftpRequest)?;
        let array = *array;
        self.take(N).map(|_| array)
    }

    fn read_u8(&mut self) -> Result<u8, MalformedSftpRequest> {
        self.read_array::<1>().map(|[byte]| byte)
    }

    fn read_u32(&mut self) -> Result<u32, MalformedSftpRequest> {
        self.read_array().map(u32::from_be_bytes)
    }

    fn read_u64(&mut self) -> Result<u64, MalformedSftpRequest> {
        self.read_array().map(u64::from_be_bytes)
    }

    fn read_string(&mut self) -> Result<Bytes, MalformedSftpRequest> {
        let length = self.read_u32()?;
        self.take(usize::try_from(length).map_err(|_| MalformedSftpRequest)?)
    }

    fn read_handle(&mut self) -> Result<HandleId, MalformedSftpRequest> {
        let name = self.read_string()?;
        // A handle of another length was never issued. With id zero the request fails on its handle, as it does for one
        // that was closed, and not as malformed.
        Ok(HandleId(name[..].try_into().map_or(0, u64::from_be_bytes)))
    }

    fn read_attributes(&mut self) -> Result<SftpAttributes, MalformedSftpRequest> {
        let flags = self.read_u32()?;
        let mut attributes = SftpAttributes::default();
        if flags & SftpAttributes::SIZE != 0 {
            attributes.size = Some(self.read_u64()?);
        }
        if flags & SftpAttributes::UIDGID != 0 {
            attributes.owner = Some((self.read_u32()?, self.read_u32()?));
        }
        if flags & SftpAttributes::PERMISSIONS != 0 {
            attributes.mode = Some(self.read_u32()?);
        }
        if flags & SftpAttributes::ACMODTIME != 0 {
            attributes.times = Some((self.read_u32()?, self.read_u32()?));
        }
        if flags & SftpAttributes::EXTENDED != 0 {
            // Ends with the packet, whatever count a client claims: each string takes four bytes at least.
            for _ in 0..self.read_u32()? {
                self.read_string()?;
                self.read_string()?;
            }
        }
        Ok(attributes)
    }

    fn read_check_file(&mut self) -> Result<CheckFileRequest, MalformedSftpRequest> {
        Ok(CheckFileRequest {
            algorithms: self.read_string()?,
            offset: self.read_u64()?,
            length: self.read_u64()?,
            block_bytes: self.read_u32()?,
        })
    }

    fn read_write_request(mut self, tail: Vec<Bytes>) -> Result<SftpRequest, MalformedSftpRequest> {
        let front = self.0.clone();
        let (handle, offset, mut remaining) = match self.read_write_fields() {
            Ok(fields) => fields,
            // A handle that is longer than the front was never issued. The request fails on it, as it does in one piece.
            Err(_) if !tail.is_empty() => {
                return Self(PacketFrame { head: front, tail }.join()).read_write_request(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut data = Vec::with_capacity(1 + tail.len());
        for mut piece in std::iter::once(self.0).chain(tail) {
            // Data beyond the stated length is ignored, like all bytes after the last field.
            piece.truncate(remaining);
            remaining -= piece.len();
            if !piece.is_empty() {
                data.push(piece);
            }
        }
        if remaining == 0 { Ok(SftpRequest::Write { handle, offset, data }) } else { Err(MalformedSftpRequest) }
    }

    /// Reads handle, offset and length of the data.
    fn read_write_fields(&mut self) -> Result<(HandleId, u64, usize), MalformedSftpRequest> {
        let (handle, offset) = (self.read_handle()?, self.read_u64()?);
        Ok((handle, offset, usize::try_from(self.read_u32()?).map_err(|_| MalformedSftpRequest)?))
    }

    fn read_request(mut self, kind: u8) -> Result<SftpRequest, MalformedSftpRequest> {
        // Bytes after the last field are ignored: clients append fields of later drafts, for instance to REALPATH.
        Ok(match kind {
            3 => {
                let (path, flags) = (self.read_string()?, OpenFlags(self.read_u32()?));
                SftpRequest::Open { path, flags, attributes: self.read_attributes()? }
            }
            4 => SftpRequest::Close(self.read_handle()?),
            5 => SftpRequest::Read { handle: self.read_handle()?, offset: self.read_u64()?, length: self.read_u32()? },
            7 => SftpRequest::Lstat(self.read_string()?),
            8 => SftpRequest::Fstat(self.read_handle()?),
            9 => SftpRequest::Setstat { path: self.read_string()?, attributes: self.read_attributes()? },
            10 => SftpRequest::Fsetstat { handle: self.read_handle()?, attributes: self.read_attributes()? },
            11 => SftpRequest::Opendir(self.read_string()?),
            12 => SftpRequest::Readdir(self.read_handle()?),
            13 => SftpRequest::Remove(self.read_string()?),
            14 => SftpRequest::Mkdir { path: self.read_string()?, attributes: self.read_attributes()? },
            15 => SftpRequest::Rmdir(self.read_string()?),
            16 => SftpRequest::Realpath(self.read_string()?),
            17 => SftpRequest::Stat(self.read_string()?),
            18 => SftpRequest::Rename { from: self.read_string()?, to: self.read_string()? },
            19 => SftpRequest::Readlink(self.read_string()?),
            // OpenSSH sends the target first, against the draft; so do clients that find "OpenSSH" in the server's
            // identification string. `handler` knows the others by name, and `worker` swaps their arguments.
            20 => SftpRequest::Symlink { target: self.read_string()?, path: self.read_string()? },
            200 => self.read_extended_request()?,
            // Answered with OP_UNSUPPORTED under its id, and the session goes on.
            _ => SftpRequest::Unknown,
        })
    }

    fn read_extended_request(mut self) -> Result<SftpRequest, MalformedSftpRequest> {
        let name = self.read_string()?;
        Ok(match &name[..] {
            b"posix-rename@openssh.com" => {
                SftpRequest::PosixRename { from: self.read_string()?, to: self.read_string()? }
            }
            b"statvfs@openssh.com" => SftpRequest::Statvfs(self.read_string()?),
            b"fstatvfs@openssh.com" => SftpRequest::Fstatvfs(self.read_handle()?),
            b"hardlink@openssh.com" => SftpRequest::Hardlink { from: self.read_string()?, to: self.read_string()? },
            b"fsync@openssh.com" => SftpRequest::Fsync(self.read_handle()?),
            b"lsetstat@openssh.com" => {
                SftpRequest::Lsetstat { path: self.read_string()?, attributes: self.read_attributes()? }
            }
            b"limits@openssh.com" => SftpRequest::Limits,
            b"expand-path@openssh.com" => SftpRequest::ExpandPath(self.read_string()?),
            b"copy-data" => SftpRequest::CopyData {
                from: self.read_handle()?,
                offset: self.read_u64()?,
                length: self.read_u64()?,
                to: self.read_handle()?,
                to_offset: self.read_u64()?,
            },
            b"check-file-name" => {
                SftpRequest::CheckFileName { path: self.read_string()?, hashes: self.read_check_file()? }
            }
            // Some clients send the request by handle under `check-file`, the name of the reply and the extension.
            b"check-file-handle" | b"check-file" => {
                SftpRequest::CheckFileHandle { handle: self.read_handle()?, hashes: self.read_check_file()? }
            }
            b"home-directory" => SftpRequest::HomeDirectory(self.read_string()?),
            b"users-groups-by-id@openssh.com" => {
                SftpRequest::UsersGroupsById { users: self.read_string()?, groups: self.read_string()? }
            }
            _ => SftpRequest::Unknown,
        })
    }
}

/// Extensions that SSH_FXP_VERSION announces, with their versions.
pub(super) const EXTENSIONS: [(&str, &str); 14] = [
    // Keep in step with `read_extended_request`: clients use what is announced here.
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

    fn frame(head: impl Into<Bytes>) -> PacketFrame {
        PacketFrame { head: head.into(), tail: Vec::new() }
    }

    fn string(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).expect("length").to_be_bytes(), text].concat()
    }

    fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
        [&[kind][..], &id.to_be_bytes(), &fields.concat()].concat()
    }

    #[test]
    fn write_data_is_not_copied() {
        let handle = string(&7u64.to_be_bytes());
        let head = packet(6, 9, &[&handle, &5u64.to_be_bytes(), &6u32.to_be_bytes(), b"ab"]);
        let tail = vec![Bytes::from_static(b"cd"), Bytes::from_static(b"efgh")];
        let expected = SftpRequest::Write {
            handle: HandleId(7),
            offset: 5,
            data: ["ab", "cd", "ef"].map(|piece| Bytes::from_static(piece.as_bytes())).to_vec(),
        };
        assert_eq!(
            ClientPacket::parse(PacketFrame { head: head.clone().into(), tail }),
            ClientPacket::Request(9, Ok(expected))
        );
        assert_eq!(
            ClientPacket::parse(frame(head)),
            ClientPacket::Request(9, Err(MalformedSftpRequest)),
            "data is truncated"
        );
    }

    #[test]
    fn write_with_overlong_handle_is_parsed_alike_in_any_pieces() {
        let whole = packet(6, 9, &[&string(&[b'h'; 600]), &5u64.to_be_bytes(), &2u32.to_be_bytes(), b"ab"]);
        let in_pieces = PacketFrame {
            head: Bytes::copy_from_slice(&whole[..512]),
            tail: whole[512..].chunks(60).map(Bytes::copy_from_slice).collect(),
        };
        let data = vec![Bytes::from_static(b"ab")];
        let expected = ClientPacket::Request(9, Ok(SftpRequest::Write { handle: HandleId(0), offset: 5, data }));
        assert_eq!(ClientPacket::parse(frame(whole)), expected);
        assert_eq!(ClientPacket::parse(in_pieces), expected);
    }

    #[test]
    fn truncated_request_keeps_its_id() {
        assert_eq!(
            ClientPacket::parse(frame(packet(17, 3, &[&[0, 0, 0, 9], b"/a"]))),
            ClientPacket::Request(3, Err(MalformedSftpRequest))
        );
        assert_eq!(
            ClientPacket::parse(frame(packet(3, 4, &[&string(b"/a")]))),
            ClientPacket::Request(4, Err(MalformedSftpRequest))
        );
        assert_eq!(ClientPacket::parse(frame(packet(99, 5, &[]))), ClientPacket::Request(5, Ok(SftpRequest::Unknown)));
        assert_eq!(
            ClientPacket::parse(frame(packet(200, 6, &[&string(b"no@such")]))),
            ClientPacket::Request(6, Ok(SftpRequest::Unknown))
        );
        assert_eq!(ClientPacket::parse(frame(vec![17, 0, 0])), ClientPacket::Truncated);
    }

    #[test]
    fn handle_of_wrong_length_is_invalid() {
        let read = packet(4, 1, &[&string(b"abc")]);
        assert_eq!(ClientPacket::parse(frame(read)), ClientPacket::Request(1, Ok(SftpRequest::Close(HandleId(0)))));
    }

    #[test]
    fn extended_attributes_are_ignored() {
        let attributes = [
            &(SftpAttributes::PERMISSIONS | SftpAttributes::EXTENDED).to_be_bytes()[..],
            &0o600u32.to_be_bytes(),
            &1u32.to_be_bytes(),
            &string(b"a@b"),
            &string(b"c"),
        ]
        .concat();
        let attributes_read = SftpAttributes { mode: Some(0o600), ..SftpAttributes::default() };
        let expected = SftpRequest::Setstat { path: Bytes::from_static(b"/x"), attributes: attributes_read };
        assert_eq!(
            ClientPacket::parse(frame(packet(9, 2, &[&string(b"/x"), &attributes]))),
            ClientPacket::Request(2, Ok(expected))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in prop_oneof![0u8..21, Just(200u8), any::<u8>()],
            head: Vec<u8>,
            tail: Vec<Vec<u8>>,
        ) {
            let head = packet(kind, 1, &[&head]);
            ClientPacket::parse(PacketFrame { head: head.into(), tail: tail.into_iter().map(Bytes::from).collect() });
        }

        #[test]
        fn arbitrary_extension_bodies_never_panic(at in 0..EXTENSIONS.len(), rest: Vec<u8>) {
            ClientPacket::parse(frame(packet(200, 1, &[&string(EXTENSIONS[at].0.as_bytes()), &rest])));
        }
    }
}
