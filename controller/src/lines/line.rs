//! One connection.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{Place, Seen};

/// One connection, over which TLS is spoken.
#[derive(Debug)]
pub(crate) struct Line {
    stream: Box<TlsStream<TcpStream>>,
    seen: Seen,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
    _place: Place,
}

impl Line {
    pub(super) fn new(stream: TlsStream<TcpStream>, seen: Seen, place: Place) -> Self {
        let over = Box::pin(place.over().cancelled_owned());
        Self { stream: Box::new(stream), seen, over, is_over: false, _place: place }
    }

    /// Whether it was cut; else whoever waits on it is woken by that.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.is_over && self.over.as_mut().poll(context).is_ready() {
            self.is_over = true;
        }
        if self.is_over { Err(cut()) } else { Ok(()) }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the controller ended the connection")
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Only a reader is woken by the end: a connection is always read from.
        if self.is_over {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Line {
    type ConnectInfo = Seen;

    fn connect_info(&self) -> Seen {
        self.seen.clone()
    }
}
