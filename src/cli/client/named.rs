//! Calls of methods by their name, with messages as bytes.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{Client, MESSAGE_BYTES_MAX};
use crate::cli::error::Error;

impl Client {
    /// Calls a method with one answer.
    pub(crate) async fn call_named(
        &self,
        path: &PathAndQuery,
        message: Bytes,
    ) -> Result<Bytes, Error> {
        self.unary(message, |channel, request| {
            let path = path.clone();
            async move { ready(channel).await?.unary(request, path, AsBytes).await }
        })
        .await
    }

    /// Calls a method with several answers.
    pub(crate) async fn stream_named(
        &self,
        path: &PathAndQuery,
        message: Bytes,
    ) -> Result<Streaming<Bytes>, Status> {
        let request: Request<Bytes> = self.request(message);
        let answer: Response<_> = ready(self.channel.clone())
            .await?
            .server_streaming(request, path.clone(), AsBytes)
            .await?;
        Ok(answer.into_inner())
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
