//! JPEG XL (ISO/IEC 18181), lossless, lossy and recompressed JPEG, by jxl-oxide.
//!
//! The decoder hands out integers of 8 and 16 bits as they are and everything else as floats in 0..1;
//! for streams of up to sixteen bits the step back to the integer is exact. Colour comes out as RGB, because the codec inverts its own transform.

use jxl_oxide::{AllocTracker, JxlImage, JxlThreadPool};

use super::{Cells, Decoded, Header, broken};
use crate::pixel::{Layout, Limits, Photometric, Refusal};

pub(super) fn decode(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<Decoded, Refusal> {
    let memory = usize::try_from(limits.max_working_bytes).unwrap_or(usize::MAX);
    // Frames are decoded in parallel, not the parts of one.
    let mut image = JxlImage::builder()
        .pool(JxlThreadPool::none())
        .alloc_tracker(AllocTracker::with_limit(memory))
        .build_uninit();
    let mut image = {
        image.feed_bytes(bytes).map_err(broken)?;
        match image.try_init().map_err(broken)? {
            jxl_oxide::InitializeResult::Initialized(image) => image,
            jxl_oxide::InitializeResult::NeedMoreData(_) => {
                return Err(broken("it ends inside the header"));
            }
        }
    };
    let metadata = &image.image_header().metadata;
    let components = if metadata.grayscale() { 1 } else { 3 };
    let header = Header {
        rows: image.image_header().size.height as usize,
        columns: image.image_header().size.width as usize,
        components,
        precision: metadata.bit_depth.bits_per_sample(),
    };
    header.check(layout)?;
    if header.precision > 16 || metadata.orientation != 1 {
        return Err(Refusal::new(
            "bits-unsupported",
            "JPEG XL of more than 16 bits, or turned",
        ));
    }
    image.finalize().map_err(broken)?;
    if !image.is_loading_done() || image.num_loaded_keyframes() != 1 {
        return Err(broken("not exactly one whole picture"));
    }
    let render = image.render_frame(0).map_err(broken)?;
    let mut stream = render.stream_no_alpha();
    if (stream.height() as usize, stream.width() as usize) != (layout.rows, layout.columns)
        || stream.channels() as usize != components
    {
        return Err(broken("the picture is not the one that was announced"));
    }
    let samples = layout.frame_samples();
    let cells = match header.precision {
        8 => {
            let mut cells = vec![0u8; samples];
            stream.write_to_buffer(&mut cells);
            Cells::U8(cells)
        }
        16 => {
            let mut cells = vec![0u16; samples];
            stream.write_to_buffer(&mut cells);
            Cells::U16(cells)
        }
        precision => {
            let mut floats = vec![0f32; samples];
            stream.write_to_buffer(&mut floats);
            let scale = ((1u32 << precision) - 1) as f32;
            // The nearest integer; the cast cuts the fraction off.
            let nearest = |v: &f32| (v.clamp(0.0, 1.0) * scale + 0.5) as u16;
            Cells::U16(floats.iter().map(nearest).collect())
        }
    };
    Ok(Decoded {
        cells,
        precision: header.precision,
        photometric: if components == 3 {
            Photometric::Rgb
        } else {
            layout.photometric
        },
    })
}
