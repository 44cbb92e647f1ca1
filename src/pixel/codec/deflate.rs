//! Deflated Image Frame Compression (PS3.5 A.4.15): each frame is a raw deflate stream of its own.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Decoded, broken, native};
use crate::pixel::{Layout, Refusal};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded, Refusal> {
    let length = usize::try_from(native::frame_bits(layout, false)?.div_ceil(8))
        .map_err(|_| Refusal::new("too-large", "a frame beyond the address space"))?;
    // One byte more than needed: room for a padding byte, and a bomb stops there.
    let mut frame = vec![0; length + 1];
    let mut state = Decompress::new(false);
    let status = state
        .decompress(bytes, &mut frame, FlushDecompress::Finish)
        .map_err(broken)?;
    let written = usize::try_from(state.total_out()).unwrap_or(usize::MAX);
    if status != Status::StreamEnd || written < length {
        return Err(broken("it does not inflate to the size of a frame"));
    }
    frame.truncate(length);
    native::decode(frame, 0, native::ByteOrder::Little, layout, false)
}
