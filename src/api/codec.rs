//! The codec of the generated code: like tonic's own, but a message that cannot be decoded is the client's error, not
//! an internal one, and an event for many clients is encoded once.

use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use prost::bytes::BufMut as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::status::ApiError;

/// A message to send: either plain, or partly encoded in advance.
pub trait Wire {
    /// Bytes that it takes.
    fn size(&self) -> usize;

    /// Writes it in the wire format.
    fn put(&self, buffer: &mut EncodeBuf<'_>);
}

impl<M: Message> Wire for M {
    fn size(&self) -> usize {
        self.encoded_len()
    }

    fn put(&self, buffer: &mut EncodeBuf<'_>) {
        self.encode_raw(buffer);
    }
}

/// A message in two parts, one of which was encoded once for all recipients. On the wire fields may appear in any
/// order, so the parts are simply concatenated; no field may be set in both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded<M> {
    shared: Option<Arc<[u8]>>,
    own: M,
}

impl<M: Message + Default> Encoded<M> {
    /// A message with the fields of `own` and the encoded fields of `shared`.
    pub fn new(shared: Arc<[u8]>, own: M) -> Self {
        Self { shared: Some(shared), own }
    }

    /// The message as its recipient decodes it.
    ///
    /// # Errors
    /// If the shared part is not an encoded message.
    pub fn message(mut self) -> Result<M, prost::DecodeError> {
        if let Some(shared) = self.shared {
            self.own.merge(&*shared)?;
        }
        Ok(self.own)
    }
}

impl<M> From<M> for Encoded<M> {
    fn from(own: M) -> Self {
        Self { shared: None, own }
    }
}

impl<M: Message> Wire for Encoded<M> {
    fn size(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.len()) + self.own.encoded_len()
    }

    fn put(&self, buffer: &mut EncodeBuf<'_>) {
        if let Some(shared) = &self.shared {
            buffer.put_slice(shared);
        }
        self.own.encode_raw(buffer);
    }
}

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct Strict<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for Strict<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Strict<T, U>
where
    T: Wire + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = StrictEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        StrictEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Encodes `T`.
#[derive(Debug, Clone)]
pub struct StrictEncoder<T>(PhantomData<fn(T)>);

impl<T: Wire> Encoder for StrictEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // As much as it takes and no more: what is not sent yet is kept as it is.
        buffer.reserve(message.size());
        message.put(buffer);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn a_message_in_two_parts_is_the_whole_message() {
        let whole = pb::RunEvent {
            message: "step drain succeeded".to_owned(),
            snapshot: Some(pb::Run { run_id: "r".to_owned(), ..Default::default() }),
            revision: 7,
            r#type: pb::RunEventType::Removed.into(),
            ..Default::default()
        };
        let shared = pb::RunEvent { revision: 0, r#type: 0, ..whole.clone() };
        let own = pb::RunEvent { revision: 7, r#type: whole.r#type, ..Default::default() };
        let encoded = Encoded::new(shared.encode_to_vec().into(), own);
        assert_eq!(encoded.message().unwrap(), whole);
        assert_eq!(Encoded::from(whole.clone()).message().unwrap(), whole);
    }
}
