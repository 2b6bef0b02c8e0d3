//! Answers of gRPC as answers of Connect.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, response};
use http_body::Frame;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::Serialize;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use super::error::{ErrorBody, http_status};
use super::request::{ENVELOPE_BYTES, enveloped, kept};
use super::shape::{Call, Format, Shape};
use crate::api::status::ApiError;
use crate::executor::EngineError;
use crate::json::Canonical;
use crate::server::room::Held;
use crate::server::sending;
use crate::server::watches::Watching;

/// Flag of the envelope that ends a stream.
const END: u8 = 2;

/// A longer message is written as JSON beside the threads that carry connections, which it would keep from others.
const LARGE_BYTES: usize = 128 * 1024;

impl Call {
    const fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match (self.shape, self.format) {
            (Shape::Unary | Shape::Get, Format::Json) => "application/json",
            (Shape::Unary | Shape::Get, Format::Proto) => "application/proto",
            (Shape::Stream, Format::Json) => "application/connect+json",
            (Shape::Stream, Format::Proto) => "application/connect+proto",
        })
    }

    /// An answer that says in its head that the call was refused, in our terms; any other as it is.
    pub(in crate::server) fn refused(&self, response: Response<Body>) -> Response<Body> {
        let Some(status) = Status::from_header_map(response.headers()) else { return response };
        let (head, _) = response.into_parts();
        match self.shape {
            Shape::Stream => {
                let end = enveloped(END, &end(&status, &HeaderMap::new()));
                self.with(
                    &head,
                    StatusCode::OK,
                    self.content_type(),
                    end.len(),
                    Body::new(Once(Some(end))),
                )
            }
            Shape::Unary | Shape::Get => self.error(&head, &status),
        }
    }

    fn error(&self, head: &response::Parts, status: &Status) -> Response<Body> {
        let body = Bytes::from(to_json(&ErrorBody::new(status)));
        let json = HeaderValue::from_static("application/json");
        let code = http_status(status.code());
        let mut response = self.with(head, code, json, body.len(), Body::new(Once(Some(body))));
        if code == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }

    /// An answer that has begun.
    pub(in crate::server) async fn answered(
        &self,
        head: response::Parts,
        body: Body,
        held: Option<Held>,
        watching: Option<Watching>,
    ) -> Response<Body> {
        match self.shape {
            Shape::Stream => self.stream(head, body, watching),
            Shape::Unary | Shape::Get => self.whole(head, body, held).await,
        }
    }

    /// The answer of one message, as a whole, which is counted until it is written.
    async fn whole(&self, head: response::Parts, body: Body, held: Option<Held>) -> Response<Body> {
        let (pieces, trailers) = sending::collected(body).await;
        let trailers = trailers.unwrap_or_default();
        let status = Status::from_header_map(&trailers);
        if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
            return self.error(&head, &status);
        }
        let framed = Bytes::from(pieces.concat());
        let message = framed.slice(framed.len().min(ENVELOPE_BYTES)..);
        let body = match self.written(message).await {
            Ok(body) => body,
            Err(status) => return self.error(&head, &status),
        };
        let length = body.len();
        let body = match held {
            Some(held) => sending::owned(vec![body], None, held),
            None => Body::new(Once(Some(body))),
        };
        let mut response = self.with(&head, StatusCode::OK, self.content_type(), length, body);
        for (name, value) in kept(&trailers) {
            if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    }

    /// The answer of several messages.
    fn stream(
        &self,
        mut head: response::Parts,
        body: Body,
        watching: Option<Watching>,
    ) -> Response<Body> {
        let output = self.method.map(|method| method.output.clone());
        let output = output.filter(|_| self.format == Format::Json);
        let body = Envelopes { body, output, read: Vec::new(), at: 0, has_ended: false };
        let body = sending::noted(Body::new(body), watching);
        head.headers.insert(CONTENT_TYPE, self.content_type());
        head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Response::from_parts(head, body)
    }

    fn with(
        &self,
        head: &response::Parts,
        status: StatusCode,
        content_type: HeaderValue,
        length: usize,
        body: Body,
    ) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in kept(&head.headers) {
            headers.append(name, value.clone());
        }
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// A message of gRPC in the format of the call.
    async fn written(&self, message: Bytes) -> Result<Bytes, Status> {
        match (self.format, self.method) {
            (Format::Json, Some(method)) if message.len() > LARGE_BYTES => {
                let written =
                    tokio::task::spawn_blocking(move || as_json(&method.output, &message)).await;
                written.unwrap_or_else(|error| Err(bug(&method.output, &error))).map(Bytes::from)
            }
            (Format::Json, Some(method)) => as_json(&method.output, &message).map(Bytes::from),
            (Format::Json | Format::Proto, _) => Ok(message),
        }
    }
}

fn as_json(descriptor: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, Status> {
    let message = DynamicMessage::decode(descriptor.clone(), message)
        .map_err(|error| bug(descriptor, &error))?;
    serde_json::to_vec(&Canonical::new(message)).map_err(|error| bug(descriptor, &error))
}

fn bug(descriptor: &MessageDescriptor, error: &dyn std::fmt::Display) -> Status {
    let bug = format!("a {} cannot be written as JSON: {error}", descriptor.name());
    ApiError::Engine(EngineError::Internal(bug)).into()
}

/// JSON of what always has one.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The last message of a stream.
#[derive(Serialize)]
struct EndOfStream {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, Vec<String>>,
}

fn end(status: &Status, trailers: &HeaderMap) -> Vec<u8> {
    let mut metadata: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in kept(trailers) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        metadata.entry(name.as_str().to_owned()).or_default().push(value);
    }
    let error = (status.code() != Code::Ok).then(|| ErrorBody::new(status));
    to_json(&EndOfStream { error, metadata })
}

/// A body of one piece.
struct Once(Option<Bytes>);

impl http_body::Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// The messages of a stream, one envelope at a time, and its end.
struct Envelopes {
    body: Body,
    /// What its messages are; `None` if they stay as they are.
    output: Option<MessageDescriptor>,
    read: Vec<u8>,
    /// How far that has been handed over.
    at: usize,
    has_ended: bool,
}

impl Envelopes {
    /// The next message that has been read as a whole.
    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        let rest = self.read.get(self.at..)?;
        let (head, rest) = rest.split_first_chunk::<ENVELOPE_BYTES>()?;
        let [_, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        let message = rest.get(..length)?;
        let next = match &self.output {
            Some(output) => as_json(output, message).map(|json| enveloped(0, &json)),
            None => Ok(enveloped(0, message)),
        };
        self.at += ENVELOPE_BYTES + length;
        if self.at == self.read.len() {
            self.read.clear();
            self.at = 0;
        }
        Some(next)
    }

    fn end(&mut self, status: &Status, trailers: &HeaderMap) -> Bytes {
        self.has_ended = true;
        enveloped(END, &end(status, trailers))
    }
}

impl http_body::Body for Envelopes {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        let none = HeaderMap::new();
        loop {
            let piece = match this.next() {
                Some(Ok(message)) => message,
                Some(Err(status)) => this.end(&status, &none),
                None => match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            this.read.drain(..std::mem::take(&mut this.at));
                            this.read.extend_from_slice(&data);
                            continue;
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            let status = Status::from_header_map(&trailers);
                            this.end(&status.unwrap_or_else(cut_off), &trailers)
                        }
                    },
                    Some(Err(status)) => this.end(&status, &none),
                    None => this.end(&cut_off(), &none),
                },
            };
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// The status of a stream that ends without one, which is a bug.
fn cut_off() -> Status {
    let bug = EngineError::Internal("a stream ended without a status".to_owned());
    ApiError::Engine(bug).into()
}
