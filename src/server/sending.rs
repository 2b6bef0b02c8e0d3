//! Answers on their way: what is held of them until it is written, and the end of streams whose peer takes nothing.
//!
//! hyper gives no hand on a stream once it has its answer. But it has every stream carried out by an executor of ours, and
//! dropping the future of a stream resets it. The answer tells this executor, by a value of the task, whether it waits for
//! the peer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::Bytes;

use super::activity::Activity;
use super::limits::{PIECE_BYTES, STALL};
use super::progress::{self, Progress};
use super::refusals::Refusals;
use super::room::Held;
use super::watches::Watching;
use crate::clock::{Clock, Sleep};

/// Carries out the streams of one connection, and ends those whose peer takes nothing of what waits for it.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) activity: Activity,
    pub(super) refusals: Refusals,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = self.activity.begin();
        let Self { clock, refusals, .. } = self.clone();
        let progress = Arc::new(Progress::default());
        // Each future around it would have room for it more than once: 6 KB for a call that waits.
        let stream = Box::pin(stream);
        tokio::spawn(progress::of(progress.clone(), async move {
            match carried_out(stream, &progress, &*clock).await {
                End::Done => {}
                End::Stalled => refusals.count("stalled"),
                End::GaveWay => refusals.count("watch_gave_way"),
            }
            drop(open);
        }));
    }
}

/// How a stream ended.
enum End {
    /// By itself.
    Done,
    /// Its peer took nothing.
    Stalled,
    /// Another connection needed its place.
    GaveWay,
}

async fn carried_out(stream: impl Future, progress: &Progress, clock: &dyn Clock) -> End {
    let mut stream = pin!(stream);
    let mut timer: Option<(u64, Sleep)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Done);
        }
        if progress.has_ended_at(cx) {
            return Poll::Ready(End::GaveWay);
        }
        let piece = progress.piece_waiting();
        if piece == 0 {
            timer = None;
            return Poll::Pending;
        }
        if timer.as_ref().is_none_or(|(of, _)| *of != piece) {
            timer = Some((piece, clock.sleep(STALL)));
        }
        let stalled = timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if stalled { Poll::Ready(End::Stalled) } else { Poll::Pending }
    })
    .await
}

/// An answer that says whether it waits for its peer.
struct Noted {
    body: Body,
    progress: Arc<Progress>,
    _watching: Option<Watching>,
}

/// Has a stream of messages say whether it waits for its peer, and keep its place as long as it lasts.
pub(super) fn noted(body: Body, watching: Option<Watching>) -> Body {
    match Progress::of_this_stream() {
        Some(progress) => Body::new(Noted { body, progress, _watching: watching }),
        None => body,
    }
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.progress.waits_for_us();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            self.progress.handed_over();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The bytes of an answer, whose room is given back when the last of them has been written.
struct Owned {
    bytes: Bytes,
    _held: Arc<Held>,
    /// Dropped with the rest.
    _written: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer of one message, as bytes.
struct Whole {
    /// What is to be sent of the data, each with a sign that it has been written.
    data: VecDeque<(Option<Bytes>, oneshot::Receiver<()>)>,
    trailers: Option<HeaderMap>,
    is_long: bool,
    progress: Option<Arc<Progress>>,
}

/// Turns an answer of one message into bytes at once, and counts them until they are written. The message that they are made
/// of takes more, and is gone then.
pub(super) async fn whole(body: Body, held: Held) -> Body {
    let (pieces, trailers) = collected(body).await;
    owned(pieces, trailers, held)
}

/// All of an answer.
pub(super) async fn collected(body: Body) -> (Vec<Bytes>, Option<HeaderMap>) {
    let mut body = pin!(body);
    let (mut pieces, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => pieces.push(data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(status) => {
                trailers = Some(status.into_http::<Body>().headers().clone());
                break;
            }
        }
    }
    (pieces, trailers)
}

/// An answer of these bytes, which are counted until they are written.
pub(super) fn owned(pieces: Vec<Bytes>, trailers: Option<HeaderMap>, mut held: Held) -> Body {
    let bytes = pieces.iter().map(Bytes::len).sum::<usize>();
    held.resize(bytes as u64);
    let held = Arc::new(held);
    let own = |bytes: Bytes| {
        let (written, sign) = oneshot::channel();
        (Some(Bytes::from_owner(Owned { bytes, _held: held.clone(), _written: written })), sign)
    };
    Body::new(Whole {
        data: pieces.into_iter().map(own).collect(),
        trailers,
        is_long: bytes > PIECE_BYTES,
        progress: Progress::of_this_stream(),
    })
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while let Some((data, written)) = this.data.front_mut() {
            if let Some(mut bytes) = data.take() {
                // In pieces: each that the peer takes is progress.
                let piece = match bytes.len() <= PIECE_BYTES {
                    true => std::mem::take(&mut bytes),
                    false => bytes.split_to(PIECE_BYTES),
                };
                if !bytes.is_empty() {
                    *data = Some(bytes);
                } else if !this.is_long {
                    this.data.pop_front();
                }
                if let Some(progress) = &this.progress {
                    progress.handed_over();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            // The end of a long answer is sent when the rest is written: once all is handed over, a stream cannot be reset.
            // The sign is that the sender is gone.
            let _gone = ready!(Pin::new(written).poll(cx));
            this.data.pop_front();
        }
        if let Some(progress) = &this.progress {
            progress.waits_for_us();
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}
