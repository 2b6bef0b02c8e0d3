//! A codec for bytes that no generated client would send. The fuzz targets use this file too.

use prost::bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::Routes;
use tonic::{Request, Status};

/// Sends bytes as they are and drops the responses.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// The status of a call with this message; OK once the first response has come.
pub(super) async fn call(routes: &Routes, path: &str, message: &[u8]) -> Status {
    call_by::<()>(routes, path, message, None).await
}

/// The same, with extensions on the request, such as a deadline.
pub(super) async fn call_by<E: Clone + Send + Sync + 'static>(
    routes: &Routes,
    path: &str,
    message: &[u8],
    beside: Option<E>,
) -> Status {
    let mut client = tonic::client::Grpc::new(routes.clone());
    let path = path.parse().expect("a path");
    let mut request = Request::new(message.to_vec());
    if let Some(beside) = beside {
        request.extensions_mut().insert(beside);
    }
    let first = match client.server_streaming(request, path, Raw).await {
        Ok(response) => response.into_inner().message().await,
        Err(status) => return status,
    };
    first.err().unwrap_or_else(|| Status::ok(""))
}
