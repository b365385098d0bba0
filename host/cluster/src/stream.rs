//! A connection with another node, plain or with TLS.
//!
//! [`PeerStream`] is such a connection, or one direction of it, or one on its way to another thread: whatever holds the socket is
//! its type. TLS goes along as a [`Session`], which knows no socket, so a connection is split and moved as a plain one is. Without
//! TLS nothing is added but the question whether there is a session.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::Connection;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::net::TcpStream;

/// Bytes by which two protocols can be told apart.
pub(crate) const HEAD_BYTES: usize = 4;

/// Bytes read from the system at once while hands are shaken.
const CHUNK_BYTES: usize = 4 * 1024;

/// A connection with another node; `S` is its socket, or a half of it.
#[derive(Debug)]
pub struct PeerStream<S = TcpStream> {
    socket: S,
    session: Option<Session>,
}

impl<S> PeerStream<S> {
    /// One over a socket whose handshake is done, or that has none.
    pub(crate) fn new(socket: S, session: Option<Session>) -> PeerStream<S> {
        PeerStream { socket, session }
    }

    /// One without TLS.
    pub fn plain(socket: S) -> PeerStream<S> {
        PeerStream::new(socket, None)
    }

    /// The socket alone, to say a last word over it.
    pub(crate) fn into_socket(self) -> S {
        self.socket
    }

    /// The socket, to wait for it. What is read from it or written to it directly is lost to TLS.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The same connection on another socket, such as this one on another thread.
    ///
    /// # Errors
    /// Those of `change`. The connection is closed then.
    pub fn map<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<PeerStream<T>> {
        Ok(PeerStream::new(change(self.socket)?, self.session))
    }

    /// The two directions, as `split` divides the socket.
    pub fn split<R, W>(self, split: impl FnOnce(S) -> (R, W)) -> (PeerStream<R>, PeerStream<W>) {
        let (from, to) = split(self.socket);
        let session = self.session.clone();
        (
            PeerStream::new(from, session),
            PeerStream::new(to, self.session),
        )
    }

    /// Writes what the connection takes now, `write` being how the socket does that. What was refused with `WouldBlock` has to
    /// come again, and first: some of it may be on its way.
    ///
    /// # Errors
    /// Those of the socket; the connection is of no use then, except after `WouldBlock`.
    pub fn try_write(
        &self,
        bytes: &[u8],
        write: impl Fn(&S, &[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &self.session {
            None => write(&self.socket, bytes),
            Some(session) => session
                .lock()
                .write(bytes, |sealed| write(&self.socket, sealed)),
        }
    }

    /// What TLS says of the connection's end, if that was not an ordinary one.
    pub(crate) fn fault(&self) -> Option<rustls::Error> {
        self.session.as_ref()?.lock().fault.clone()
    }

    /// The certificate of the other side, which a CA of the cluster has signed. None without TLS.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let session = self.session.as_ref()?.lock();
        Some(
            session
                .tls
                .peer_certificates()?
                .first()?
                .clone()
                .into_owned(),
        )
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let PeerStream { socket, session } = self.get_mut();
        let mut socket = Pin::new(socket);
        let Some(session) = session else {
            return socket.poll_read(cx, buffer);
        };
        let read = session.lock().read(buffer, |sealed| {
            let mut sealed = ReadBuf::new(sealed);
            or_would_block(socket.as_mut().poll_read(cx, &mut sealed))?;
            Ok(sealed.filled().len())
        });
        or_pending(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let PeerStream { socket, session } = self.get_mut();
        let mut socket = Pin::new(socket);
        let Some(session) = session else {
            return socket.poll_write(cx, bytes);
        };
        let written = session.lock().write(bytes, |sealed| {
            or_would_block(socket.as_mut().poll_write(cx, sealed))
        });
        or_pending(written)
    }

    /// What is written is with the socket already.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

/// The task is woken by the socket, which was asked last.
fn or_pending<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

/// The TLS of one connection, for both of its directions.
#[derive(Clone, Debug)]
pub(crate) struct Session(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    tls: Connection,
    /// Bytes that are sealed and not all written, so that the writer has not been told of them yet.
    taken: usize,
    fault: Option<rustls::Error>,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Opens what has come, and gets more by `read` when that is nothing. Reads nothing at the end of the connection.
    fn read(
        &mut self,
        into: &mut ReadBuf<'_>,
        read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut source = Source(read);
        loop {
            let mut opened = self.tls.reader();
            match opened.fill_buf() {
                Ok(chunk) => {
                    let count = chunk.len().min(into.remaining());
                    into.put_slice(chunk.get(..count).unwrap_or_default());
                    opened.consume(count);
                    return Ok(());
                }
                // A process that was killed says no goodbye, and whether its last frame was whole the frame says.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.tls.read_tls(&mut source)?;
            if let Err(error) = self.tls.process_new_packets() {
                self.fault = Some(error.clone());
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
    }

    /// Seals bytes and has them written. They count when the last of them is written: else nobody would know that there is more
    /// to write.
    fn write(
        &mut self,
        bytes: &[u8],
        write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.taken == 0 {
            self.taken = self.tls.writer().write(bytes)?;
        }
        let mut sink = Sink(write);
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut sink)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(std::mem::take(&mut self.taken))
    }
}

struct Source<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Source<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (self.0)(into)
    }
}

struct Sink<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum ShakeError {
    /// The other side began with these bytes, which are not TLS.
    Plain([u8; HEAD_BYTES]),
    /// The connection broke or ended.
    Broken(ErrorKind),
    /// One side does not trust the other, or they have nothing in common.
    Tls(rustls::Error),
}

impl From<io::Error> for ShakeError {
    fn from(error: io::Error) -> ShakeError {
        ShakeError::Broken(error.kind())
    }
}

impl From<rustls::Error> for ShakeError {
    fn from(error: rustls::Error) -> ShakeError {
        ShakeError::Tls(error)
    }
}

/// Whether a connection that begins like this speaks TLS: a record of a handshake or an alert, in a version that records name.
/// The third byte of a hello is 0, because it is short.
pub(crate) fn is_tls(head: [u8; HEAD_BYTES]) -> bool {
    matches!(head, [0x15 | 0x16, 3, 1..=4, _])
}

/// Shakes hands over a socket. If that fails the other side was told, and the socket is of no more use than to tell it more.
pub(crate) async fn shake(
    socket: &mut TcpStream,
    mut tls: Connection,
) -> Result<Session, ShakeError> {
    write_sealed(socket, &mut tls).await?;
    let mut head = [0; HEAD_BYTES];
    socket.read_exact(&mut head).await?;
    if !is_tls(head) {
        return Err(ShakeError::Plain(head));
    }
    open(&mut tls, &head)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    while tls.is_handshaking() {
        let count = socket.read(&mut chunk).await?;
        if count == 0 {
            return Err(ShakeError::Broken(ErrorKind::UnexpectedEof));
        }
        let opened = open(&mut tls, chunk.get(..count).unwrap_or_default());
        // Also why it was not opened.
        write_sealed(socket, &mut tls).await?;
        opened?;
    }
    let state = State {
        tls,
        taken: 0,
        fault: None,
    };
    Ok(Session(Arc::new(Mutex::new(state))))
}

/// The handshake is small enough for TLS to keep all of it.
fn open(tls: &mut Connection, mut sealed: &[u8]) -> Result<(), ShakeError> {
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed)?;
        tls.process_new_packets()?;
    }
    Ok(())
}

async fn write_sealed(socket: &mut TcpStream, tls: &mut Connection) -> io::Result<()> {
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed)?;
    }
    socket.write_all(&sealed).await
}
