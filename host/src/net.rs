//! The network as the data world sees it: the machine's, or the simulator's with the feature `sim`.
//!
//! A connection belongs to the runtime of one thread. To go to another one it is detached there and attached here.

pub use vnode_cluster::net::{TcpListener, TcpStream};

#[cfg(feature = "sim")]
pub use self::simulated::*;
#[cfg(not(feature = "sim"))]
pub use self::system::*;

#[cfg(not(feature = "sim"))]
mod system {
    use std::io::Result;

    use super::{TcpListener, TcpStream};

    pub use std::net::TcpStream as Detached;
    pub use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

    /// Takes a connection off this thread.
    pub fn detach(stream: TcpStream) -> Result<Detached> {
        stream.into_std()
    }

    /// Serves a connection from this thread on.
    pub fn attach(stream: Detached) -> Result<TcpStream> {
        TcpStream::from_std(stream)
    }

    /// Accepts on this thread.
    pub fn listen(listener: std::net::TcpListener) -> Result<TcpListener> {
        TcpListener::from_std(listener)
    }

    /// The two directions of a connection.
    pub fn split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
        stream.into_split()
    }
}

/// The simulator's connections have no halves that can be written to without waiting, so the whole is shared by both.
#[cfg(feature = "sim")]
mod simulated {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::io::{Error, ErrorKind, Result};
    use std::pin::{Pin, pin};
    use std::rc::Rc;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, ReadBuf};

    use super::{TcpListener, TcpStream};

    /// There is one thread.
    pub type Detached = TcpStream;

    /// Takes a connection off this thread.
    pub fn detach(stream: TcpStream) -> Result<Detached> {
        Ok(stream)
    }

    /// Serves a connection from this thread on.
    pub fn attach(stream: Detached) -> Result<TcpStream> {
        Ok(stream)
    }

    /// Fails: the simulator does not have the machine's sockets.
    pub fn listen(_listener: std::net::TcpListener) -> Result<TcpListener> {
        let why = "this program was built for the simulator; build it without the feature `sim`";
        Err(Error::new(ErrorKind::Unsupported, why))
    }

    /// The two directions of a connection.
    pub fn split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
        let shared = Rc::new(RefCell::new(stream));
        (OwnedReadHalf(Rc::clone(&shared)), OwnedWriteHalf(shared))
    }

    /// What can be read.
    pub struct OwnedReadHalf(Rc<RefCell<TcpStream>>);

    impl OwnedReadHalf {
        /// The connection again.
        pub fn reunite(self, other: OwnedWriteHalf) -> Result<TcpStream> {
            drop(other);
            let whole = Rc::into_inner(self.0).map(RefCell::into_inner);
            whole.ok_or_else(|| ErrorKind::InvalidInput.into())
        }
    }

    impl AsyncRead for OwnedReadHalf {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
        }
    }

    /// What can be written to.
    pub struct OwnedWriteHalf(Rc<RefCell<TcpStream>>);

    impl OwnedWriteHalf {
        /// Writes what the connection takes now.
        pub fn try_write(&self, bytes: &[u8]) -> Result<usize> {
            self.0.borrow().try_write(bytes)
        }

        /// Waits until the connection takes more.
        pub async fn writable(&self) -> Result<()> {
            // It keeps nothing from one look to the next.
            poll_fn(|cx| pin!(self.0.borrow().writable()).poll(cx)).await
        }
    }
}
