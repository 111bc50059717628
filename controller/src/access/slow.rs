//! A message that does not come.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::codegen::Bytes;

/// How long the message of a call that has one may take.
const MESSAGE: Duration = Duration::from_secs(30);

/// A request's body that must be there in time.
pub(super) struct Timely {
    body: tonic::body::Body,
    until: Pin<Box<Sleep>>,
}

impl Timely {
    pub(super) fn within(body: tonic::body::Body) -> tonic::body::Body {
        tonic::body::Body::new(Self { body, until: Box::pin(sleep(MESSAGE)) })
    }
}

impl Body for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let late = || Status::deadline_exceeded(format!("the message was not there within {} s", MESSAGE.as_secs()));
        self.until.as_mut().poll(context).map(|()| Some(Err(late())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
