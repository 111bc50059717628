//! How messages become bytes: as tonic does it, with small buffers.
//!
//! Each open stream keeps a buffer for each direction. Tonic's own are 8 KiB,
//! most of what an idle agent's session would cost a controller of thousands.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// First size of a stream's buffers, in bytes; what is larger makes them grow.
const SIZE: usize = 1024;
/// Encoded bytes after which a stream hands over what it has, as tonic does.
const YIELD: usize = 32 << 10;

/// Names the codec in generated code.
#[derive(Clone, Debug)]
pub struct Small<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Small<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for Small<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(SIZE, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(SIZE, YIELD))
    }
}
