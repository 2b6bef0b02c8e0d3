//! Requests of Connect as calls of gRPC.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use tonic::Status;
use tonic::codegen::{Bytes, StdError};

use super::query;
use super::shape::{Call, Format, Shape};
use crate::api::REQUEST_BYTES_MAX;
use crate::api::status::ApiError;
use crate::executor::EngineError;
use crate::json::{self, JsonError};
use crate::server::limits::JSON_BYTES_MAX;

/// The head that an envelope has, of Connect and of gRPC: flags, and the length of the message.
pub(super) const ENVELOPE_BYTES: usize = 5;

/// A message in an envelope.
pub(super) fn enveloped(flags: u8, message: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + message.len());
    bytes.push(flags);
    // No message of ours comes near to what a length can say.
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}

impl Call {
    /// The call of gRPC that a request means.
    ///
    /// # Errors
    /// The status that refuses it.
    pub(in crate::server) fn translated<B>(
        self: &Arc<Self>,
        request: Request<B>,
    ) -> Result<Request<Carried<B>>, Status> {
        let (mut head, body) = request.into_parts();
        let headers = &mut head.headers;
        if headers.remove("connect-protocol-version").is_some_and(|version| version != "1") {
            return Err(invalid("connect-protocol-version", "must be 1"));
        }
        let encoding = match self.shape {
            Shape::Unary | Shape::Get => headers.remove(CONTENT_ENCODING),
            Shape::Stream => headers.remove("connect-content-encoding"),
        };
        if let Some(encoding) = encoding.filter(|encoding| encoding != "identity") {
            let encoding = encoding.to_str().unwrap_or_default();
            let message = format!("Content is compressed with `{encoding}` which isn't supported");
            return Err(ApiError::CompressionUnsupported(message).into());
        }
        // What is said in the terms of gRPC is not meant here.
        for name in ["grpc-timeout", "grpc-encoding"] {
            headers.remove(name);
        }
        if let Some(timeout) = headers.remove("connect-timeout-ms") {
            headers.insert("grpc-timeout", of_grpc(&timeout)?);
        }
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let given = match self.shape {
            Shape::Get => {
                let message =
                    query::message(head.uri.query(), self.format).map_err(ApiError::from)?;
                Some(self.framed(&message)?)
            }
            Shape::Unary | Shape::Stream => None,
        };
        head.method = Method::POST;
        head.uri = only_path(&head.uri);
        Ok(Request::from_parts(
            head,
            Carried { body, call: Some(self.clone()), read: Vec::new(), given, done: false },
        ))
    }

    /// The most bytes that the body of a request may have.
    fn bytes_max(&self) -> usize {
        let message = match self.format {
            Format::Json => JSON_BYTES_MAX,
            Format::Proto => REQUEST_BYTES_MAX,
        };
        message + if self.shape == Shape::Stream { ENVELOPE_BYTES } else { 0 }
    }

    /// The message of a whole body, as gRPC frames it.
    fn framed(&self, body: &[u8]) -> Result<Bytes, Status> {
        let message = match self.shape {
            Shape::Stream => opened(body)?,
            Shape::Unary | Shape::Get => body,
        };
        match self.format {
            Format::Proto => Ok(enveloped(0, message)),
            Format::Json => match self.method {
                Some(method) => Ok(enveloped(0, &from_json(&method.input, message)?)),
                // No one reads the body of a call that does not exist.
                None => Ok(Bytes::new()),
            },
        }
    }
}

fn from_json(descriptor: &MessageDescriptor, json: &[u8]) -> Result<Vec<u8>, Status> {
    match json::read(descriptor, json) {
        Ok(message) => Ok(message.encode_to_vec()),
        Err(JsonError { field, problem }) if field.is_empty() => Err(ApiError::MessageMalformed(
            format!("it is no JSON of {}: {problem}", descriptor.name()),
        )
        .into()),
        Err(JsonError { field, problem }) => Err(invalid(&field, &problem)),
    }
}

/// The only message of a request in envelopes.
fn opened(body: &[u8]) -> Result<&[u8], Status> {
    let malformed = |why: &str| Status::from(ApiError::MessageMalformed(why.to_owned()));
    let Some((head, rest)) = body.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Err(malformed(
            "it has no envelope: one byte of flags and four of length come before the message",
        ));
    };
    let [flags, length @ ..] = *head;
    if flags != 0 {
        return Err(malformed("the flags of its envelope are not 0: send it uncompressed"));
    }
    match usize::try_from(u32::from_be_bytes(length))
        .ok()
        .and_then(|length| rest.split_at_checked(length))
    {
        Some((message, [])) => Ok(message),
        Some(_) => Err(malformed("more than one message was sent")),
        None => Err(malformed("it is shorter than its envelope says")),
    }
}

fn invalid(field: &str, problem: &str) -> Status {
    ApiError::Engine(EngineError::invalid(field, problem)).into()
}

/// The deadline of a call in the words of gRPC, which has at most eight digits.
fn of_grpc(timeout: &HeaderValue) -> Result<HeaderValue, Status> {
    let digits = timeout.to_str().ok().filter(|text| {
        (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    });
    let milliseconds: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    let Some(milliseconds) = milliseconds else {
        return Err(invalid("connect-timeout-ms", "must be 1 to 10 digits"));
    };
    let text = match milliseconds {
        0..=99_999_999 => format!("{milliseconds}m"),
        _ => format!("{}S", milliseconds / 1000),
    };
    HeaderValue::try_from(text).map_err(|_| invalid("connect-timeout-ms", "must be 1 to 10 digits"))
}

/// Without authority and query: routes are chosen by the path.
fn only_path(uri: &Uri) -> Uri {
    PathAndQuery::try_from(uri.path()).map(Uri::from).unwrap_or_default()
}

/// The body of a request as gRPC has it.
pub(in crate::server) struct Carried<B> {
    body: B,
    /// `None` if it is so already.
    call: Option<Arc<Call>>,
    read: Vec<u8>,
    /// The message, if it is not in the body.
    given: Option<Bytes>,
    done: bool,
}

impl<B> Carried<B> {
    /// A body that stays as it is.
    pub(in crate::server) fn plain(body: B) -> Self {
        Self { body, call: None, read: Vec::new(), given: None, done: false }
    }

    /// The call whose body is read as a whole. Messages of protobuf in envelopes are framed already.
    fn whole(&self) -> Option<&Arc<Call>> {
        let is_framed =
            |call: &&Arc<Call>| call.shape == Shape::Stream && call.format == Format::Proto;
        self.call.as_ref().filter(|call| !is_framed(call))
    }
}

impl<B> Body for Carried<B>
where
    B: Body<Data = Bytes, Error = StdError> + Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        let Some(call) = this.whole().cloned() else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(given) = this.given.take() {
            this.done = true;
            return Poll::Ready(Some(Ok(Frame::data(given))));
        }
        let most = call.bytes_max();
        let announced = usize::try_from(this.body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            this.done = true;
            return Poll::Ready(Some(Err(Status::from(ApiError::MessageTooLarge).into())));
        }
        loop {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if this.read.len() + data.len() > most {
                        this.done = true;
                        let large = Status::from(ApiError::MessageTooLarge);
                        return Poll::Ready(Some(Err(large.into())));
                    }
                    this.read.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.done = true;
                    let framed = call.framed(&std::mem::take(&mut this.read));
                    return Poll::Ready(Some(framed.map(Frame::data).map_err(Into::into)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.whole() {
            Some(_) => self.done,
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.whole() {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

/// Headers of a call in the shape of gRPC say nothing to its caller.
pub(super) fn is_of_grpc(name: &str) -> bool {
    name.starts_with("grpc-") || name == "content-type" || name == "content-length"
}

/// Headers of an answer that its caller gets.
pub(super) fn kept(headers: &HeaderMap) -> impl Iterator<Item = (&http::HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| !is_of_grpc(name.as_str()))
}
