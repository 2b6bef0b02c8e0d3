//! The codec of the generated code: as tonic's own, but what cannot be decoded is the client's fault, not ours.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::status::ApiError;

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct Strict<T, U> {
    inner: ProstCodec<T, U>,
}

impl<T, U> Default for Strict<T, U> {
    fn default() -> Self {
        Self { inner: ProstCodec::default() }
    }
}

impl<T, U> Codec for Strict<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.inner.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Decodes `U`.
#[derive(Debug, Clone)]
pub struct StrictDecoder<U>(PhantomData<fn() -> U>);

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        match U::decode(buffer) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(ApiError::MessageMalformed(error.to_string()).into()),
        }
    }
}
