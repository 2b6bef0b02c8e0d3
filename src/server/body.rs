//! The body of a request, which must arrive in time: a peer that sends half of it would hold its call otherwise.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic::codegen::{Bytes, StdError};

use super::peers::Peer;
use crate::api::status::ApiError;
use crate::clock::{Clock, Sleep};

/// A body that fails if it is not complete in time.
pub(super) struct Timely<B> {
    body: Pin<Box<B>>,
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// Set when the reader first has to wait: most bodies are there when they are read.
    deadline: Option<Sleep>,
    /// Who pays for its bytes.
    peer: Option<Peer>,
}

impl<B> Timely<B> {
    pub(super) fn new(body: B, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { body: Box::pin(body), clock, limit, deadline: None, peer: None }
    }

    /// The same, whose bytes count as written by a peer.
    pub(super) fn paid_by(self, peer: Option<Peer>) -> Self {
        Self { peer, ..self }
    }
}

impl<B> Body for Timely<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) {
            if let (Some(peer), Some(Ok(frame))) = (&this.peer, &frame)
                && let Some(data) = frame.data_ref()
            {
                peer.write(data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = this.deadline.get_or_insert_with(|| this.clock.sleep(this.limit));
        ready!(deadline.as_mut().poll(cx));
        let late = Status::from(ApiError::RequestIncomplete { limit: this.limit });
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
