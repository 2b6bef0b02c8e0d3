//! Calls over HTTP/1.1: one at a time, carried out by their connection itself.
//!
//! What is known of a stream of HTTP/2 by the task that carries it out is known here by the connection: whether it is in use,
//! and whether its call is to end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Bytes, StdError};
use tower::Service;

use super::activity::{Activity, Open};
use super::edge::Edge;
use super::progress::{self, Progress};

/// The calls of one connection.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    edge: Edge,
    activity: Activity,
    progress: Arc<Progress>,
}

impl Calls {
    pub(super) fn new(edge: Edge, activity: Activity) -> Self {
        Self { edge, activity, progress: Arc::default() }
    }

    /// That of the call of HTTP/1.1 that is carried out.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl<B> Service<Request<B>> for Calls
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.version() >= Version::HTTP_2 {
            return self.edge.call(request);
        }
        let open = self.activity.begin();
        let answer = progress::of(self.progress.clone(), self.edge.call(request));
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Body::new(Lasting { body, _open: open })))
        })
    }
}

/// A body with which its connection is in use.
struct Lasting {
    body: Body,
    _open: Open,
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
