//! Streams from a state and an async step.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;

/// A stream that calls `step` with its state for every item; it ends when `step` gives `None`.
///
/// The step runs only while the stream is polled, and goes on where it was: a poll that is given up loses nothing.
pub(crate) fn unfold<S, F, Fut, T>(state: S, step: F) -> Unfold<S, F, Fut>
where
    F: FnMut(S) -> Fut,
    Fut: Future<Output = Option<(T, S)>>,
{
    Unfold { idle: Some(state), step, busy: None }
}

/// See [`unfold`].
pub(crate) struct Unfold<S, F, Fut> {
    idle: Option<S>,
    step: F,
    busy: Option<Pin<Box<Fut>>>,
}

// Nothing in it is pinned but the future, which has its own box.
impl<S, F, Fut> Unpin for Unfold<S, F, Fut> {}

impl<S, F, Fut, T> Stream for Unfold<S, F, Fut>
where
    F: FnMut(S) -> Fut,
    Fut: Future<Output = Option<(T, S)>>,
{
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        if let Some(state) = this.idle.take() {
            this.busy = Some(Box::pin((this.step)(state)));
        }
        let Some(busy) = &mut this.busy else { return Poll::Ready(None) };
        let next = ready!(busy.as_mut().poll(context));
        this.busy = None;
        Poll::Ready(next.map(|(item, state)| {
            this.idle = Some(state);
            item
        }))
    }
}
