//! Files that go from the page cache to a socket without passing through the process (sendfile(2)).
//!
//! The HTTP library writes only bytes. So a range of a file is represented by placeholder bytes in its place: a slice of
//! one static buffer, which is known by its address. The stream below the library recognizes them and sends the range
//! instead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::sendfile;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Maximum number of bytes of one range.
pub const MAX_FILE_RANGE_BYTES: usize = 1 << 20;

/// Placeholder bytes, which are never sent. Allocated, since a constant would be a part of the program; as nothing writes
/// or reads them, they take no memory.
static PLACEHOLDER: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; MAX_FILE_RANGE_BYTES].into_boxed_slice());

/// Ranges of files that a [`FileTransferStream`] is to send, in the order of their placeholders. Clones share it.
#[derive(Clone, Default)]
pub struct FileTransfer(Arc<Mutex<VecDeque<FileRange>>>);

/// Range of a file that is still to be sent.
struct FileRange {
    file: Arc<dyn AsFd + Send + Sync>,
    offset: u64,
    remaining_bytes: usize,
}

impl FileTransfer {
    /// Queues a range of a file and returns its placeholder, which is to be written to the stream next.
    ///
    /// Only for a stream whose writer passes the bytes on as they are, without a copy: a copy has another address. The
    /// range is [`MAX_FILE_RANGE_BYTES`] long at most; a longer one is cut to that.
    pub fn placeholder(&self, file: Arc<dyn AsFd + Send + Sync>, offset: u64, length: usize) -> Bytes {
        let length = length.min(MAX_FILE_RANGE_BYTES);
        if length > 0 {
            self.0.lock().push_back(FileRange { file, offset, remaining_bytes: length });
        }
        Bytes::from_static(&PLACEHOLDER[..length])
    }

    /// Sends what it can of the first range, `max_bytes` at most, without waiting.
    fn send(&self, socket: &TcpStream, max_bytes: usize) -> io::Result<usize> {
        let mut ranges = self.0.lock();
        let Some(range) = ranges.front_mut() else {
            return Err(io::Error::other("a placeholder without its file"));
        };
        let count = range.remaining_bytes.min(max_bytes);
        let sent = socket.try_io(Interest::WRITABLE, || {
            loop {
                match sendfile(socket, range.file.as_fd(), Some(&mut range.offset), count) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return result.map_err(io::Error::from),
                }
            }
        })?;
        // The file was truncated while it was sent. Padding would corrupt it silently: the response ends early instead.
        if sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if sent < count {
            note_full(socket);
        }
        range.remaining_bytes -= sent;
        if range.remaining_bytes == 0 {
            ranges.pop_front();
        }
        Ok(sent)
    }
}

/// Notes for the next write that a socket takes no more, if it is so. Another sendfile(2) would find out as well, but reads
/// pages of the file first.
fn note_full(socket: &TcpStream) {
    // By poll(2), which also has the kernel report when there is space again. That a call has sent less than it was asked
    // for proves nothing: it may have been interrupted.
    let _ = socket.try_io(Interest::WRITABLE, || {
        let mut polled = [PollFd::new(socket, PollFlags::OUT)];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    });
}

/// Socket on which ranges of files are sent in place of their placeholders.
pub struct FileTransferStream {
    socket: TcpStream,
    transfer: FileTransfer,
}

impl FileTransferStream {
    /// Wraps a socket; `transfer` has the ranges.
    pub fn new(socket: TcpStream, transfer: FileTransfer) -> Self {
        Self { socket, transfer }
    }

    fn poll_send(&self, cx: &mut Context<'_>, max_bytes: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.transfer.send(&self.socket, max_bytes) {
                // The readiness was cleared: the next poll registers the waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsRef<TcpStream> for FileTransferStream {
    fn as_ref(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for FileTransferStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for FileTransferStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match is_placeholder(data) {
            true => self.poll_send(cx, data.len()),
            false => Pin::new(&mut self.socket).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let data = &data[data.iter().take_while(|slice| slice.is_empty()).count()..];
        // What comes before a placeholder is written first; the caller comes again with the rest.
        match data.iter().position(|slice| is_placeholder(slice)) {
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, data),
            Some(0) => self.poll_send(cx, data[0].len()),
            Some(count) => Pin::new(&mut self.socket).poll_write_vectored(cx, &data[..count]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // The HTTP library would copy placeholders otherwise, and their address is lost.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Tells by their address whether bytes are placeholders.
fn is_placeholder(data: &[u8]) -> bool {
    !data.is_empty() && PLACEHOLDER.as_ptr_range().contains(&data.as_ptr())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn socket_pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().expect("it")), listener.accept());
        (ours.expect("connected"), theirs.expect("accepted").0)
    }

    fn file_of(content: &[u8]) -> Arc<dyn AsFd + Send + Sync> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        Arc::new(file)
    }

    #[tokio::test]
    async fn ranges_take_the_places_of_their_placeholders() {
        let (ours, mut theirs) = socket_pair().await;
        let transfer = FileTransfer::default();
        let mut ours = FileTransferStream::new(ours, transfer.clone());
        // More than a socket takes at once, so that ranges are sent in parts.
        let content: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
        let file = file_of(&content);
        let sending = tokio::spawn(async move {
            ours.write_all(b"head").await.expect("sent");
            for offset in (0..content.len()).step_by(MAX_FILE_RANGE_BYTES) {
                let mut placeholder = transfer.placeholder(Arc::clone(&file), offset as u64, MAX_FILE_RANGE_BYTES);
                let mut text = Bytes::from_static(b"between");
                while !placeholder.is_empty() || !text.is_empty() {
                    let slices = [io::IoSlice::new(&placeholder), io::IoSlice::new(&text)];
                    let written = ours.write_vectored(&slices).await.expect("sent");
                    let from_file = written.min(placeholder.len());
                    let _ = (placeholder.split_to(from_file), text.split_to(written - from_file));
                }
            }
            content
        });
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.expect("read");
        let content = sending.await.expect("joined");
        let parts = content.chunks(MAX_FILE_RANGE_BYTES).flat_map(|part| [part, b"between"].concat());
        assert!(received == b"head".iter().copied().chain(parts).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn truncated_file_is_an_error() {
        let (ours, _theirs) = socket_pair().await;
        let transfer = FileTransfer::default();
        let mut ours = FileTransferStream::new(ours, transfer.clone());
        let placeholder = transfer.placeholder(file_of(b"abc"), 0, 5);
        assert_eq!(ours.write(&placeholder).await.expect("sent"), 3);
        let error = ours.write(&placeholder[3..]).await.expect_err("it ends");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
