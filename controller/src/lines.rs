//! Connections that can be ended all at once.
//!
//! A controller that lost the lead ends them: whoever was connected finds the
//! new leader by connecting again, and no answer of the old one is on its way.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// All connections of a server; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    generation: Arc<Mutex<CancellationToken>>,
}

impl Lines {
    /// Makes each connection one that [`Self::cut`] ends.
    pub(crate) fn incoming<S: Stream<Item = io::Result<TcpStream>>>(
        &self,
        accepted: S,
    ) -> impl Stream<Item = io::Result<Line>> + use<S> {
        let generation = self.generation.clone();
        accepted.map(move |stream| {
            let stream = stream?;
            let over = generation.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Line { stream, over: Box::pin(over.cancelled_owned()), is_over: false })
        })
    }

    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *generation).cancel();
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
}

impl Line {
    /// Whether it was cut; else whoever waits on it is woken by that.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.is_over && self.over.as_mut().poll(context).is_ready() {
            self.is_over = true;
        }
        if self.is_over { Err(io::Error::new(io::ErrorKind::ConnectionReset, "the lead is over")) } else { Ok(()) }
    }
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
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the lead is over")));
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
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_nothing_that_comes_after() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lines = Lines::default();
        let accepted = futures::stream::unfold(listener, |listener| async {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            Some((stream, listener))
        });
        let mut incoming = Box::pin(lines.incoming(accepted));
        let _first = TcpStream::connect(address).await.unwrap();
        let mut open = incoming.next().await.unwrap().unwrap();
        let mut byte = [0];
        let cut = async {
            tokio::task::yield_now().await;
            lines.cut();
        };
        let (read, ()) = tokio::join!(open.read(&mut byte), cut);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(open.write(&byte).await.is_err());
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut later = incoming.next().await.unwrap().unwrap();
        second.write_all(&[7]).await.unwrap();
        later.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [7]);
    }
}
