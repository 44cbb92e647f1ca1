//! The one place with `unsafe`: libjpeg-turbo's functions for more than eight bits, which its safe
//! Rust binding does not offer.
//!
//! Each call hands the library an input slice, which it reads within its length, and an output
//! vector that was allocated for exactly the width, height and components that the library itself
//! reads from the same header. Errors come back as return codes (the library catches its own
//! `longjmp`s before returning), warnings are made errors, and memory and scans are capped.

#![allow(unsafe_code)]

use turbojpeg::{libc, raw};

use super::broken;
use crate::pixel::Refusal;

/// Cap on the library's own memory in megabytes; coefficients of a progressive image.
const MAX_MEMORY_MB: libc::c_int = 512;
/// More scans than any encoder writes; decoding time grows with each (libjpeg-turbo, "Two issues
/// with the JPEG standard").
const MAX_SCANS: libc::c_int = 500;

/// A decompressor that is destroyed on every way out.
struct Handle(raw::tjhandle);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle came from tj3Init, is not null, and is destroyed once.
        unsafe { raw::tj3Destroy(self.0) }
    }
}

impl Handle {
    fn new() -> Result<Self, Refusal> {
        // SAFETY: tj3Init takes an enumerator and returns null on failure.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as libc::c_int) };
        if handle.is_null() {
            return Err(Refusal::new("codec-error", "libjpeg-turbo did not start"));
        }
        let this = Self(handle);
        this.set(raw::TJPARAM_TJPARAM_STOPONWARNING, 1)?;
        this.set(raw::TJPARAM_TJPARAM_MAXMEMORY, MAX_MEMORY_MB)?;
        this.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
        Ok(this)
    }

    fn set(&self, parameter: raw::TJPARAM, value: libc::c_int) -> Result<(), Refusal> {
        // SAFETY: the handle is valid; unknown parameters and values are errors, not undefined.
        self.check(unsafe { raw::tj3Set(self.0, parameter as libc::c_int, value) })
    }

    fn get(&self, parameter: raw::TJPARAM) -> Option<usize> {
        // SAFETY: the handle is valid; unknown parameters give -1.
        usize::try_from(unsafe { raw::tj3Get(self.0, parameter as libc::c_int) }).ok()
    }

    fn check(&self, result: libc::c_int) -> Result<(), Refusal> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: tj3GetErrorStr returns a NUL-terminated string that lives as long as the handle.
        let text = unsafe { std::ffi::CStr::from_ptr(raw::tj3GetErrorStr(self.0)) };
        Err(broken(text.to_string_lossy()))
    }

    /// Reads the header and confirms that the output will have exactly this shape.
    fn expect_shape(
        &self,
        jpeg: &[u8],
        columns: usize,
        rows: usize,
        precision: std::ops::RangeInclusive<usize>,
    ) -> Result<(), Refusal> {
        // SAFETY: the pointer and length describe one live slice.
        let result =
            unsafe { raw::tj3DecompressHeader(self.0, jpeg.as_ptr(), jpeg.len() as raw::size_t) };
        self.check(result)?;
        let bits = self.get(raw::TJPARAM_TJPARAM_PRECISION);
        if self.get(raw::TJPARAM_TJPARAM_JPEGWIDTH) == Some(columns)
            && self.get(raw::TJPARAM_TJPARAM_JPEGHEIGHT) == Some(rows)
            && bits.is_some_and(|bits| precision.contains(&bits))
        {
            Ok(())
        } else {
            Err(broken("the library reads another header"))
        }
    }
}

/// The library's pixel format, samples in the output, and samples in a row.
fn shape(
    columns: usize,
    rows: usize,
    components: usize,
) -> Result<(libc::c_int, usize, libc::c_int), Refusal> {
    let format = match components {
        1 => raw::TJPF_TJPF_GRAY,
        3 => raw::TJPF_TJPF_RGB,
        _ => return Err(broken("neither one nor three components")),
    };
    let row = columns * components;
    match (rows.checked_mul(row), libc::c_int::try_from(row)) {
        (Some(length), Ok(pitch)) => Ok((format as libc::c_int, length, pitch)),
        _ => Err(Refusal::new(
            "too-large",
            "a JPEG frame beyond the address space",
        )),
    }
}

/// Decodes a stream of 2 to 8 bits per sample into `rows * columns * components` samples.
pub(super) fn decode_8(
    jpeg: &[u8],
    columns: usize,
    rows: usize,
    components: usize,
) -> Result<Vec<u8>, Refusal> {
    let (format, length, pitch) = shape(columns, rows, components)?;
    let handle = Handle::new()?;
    handle.expect_shape(jpeg, columns, rows, 2..=8)?;
    let mut out = vec![0u8; length];
    // SAFETY: the input is one live slice. The output has rows * pitch samples, and the library
    // writes `rows` rows of at most `pitch` samples, as the header read above says; there is no
    // scaling or cropping, and the format has `components` samples per pixel.
    let result = unsafe {
        raw::tj3Decompress8(
            handle.0,
            jpeg.as_ptr(),
            jpeg.len() as raw::size_t,
            out.as_mut_ptr(),
            pitch,
            format,
        )
    };
    handle.check(result)?;
    Ok(out)
}

/// Decodes a stream of 9 to 16 bits per sample into `rows * columns * components` samples.
pub(super) fn decode_16(
    jpeg: &[u8],
    columns: usize,
    rows: usize,
    components: usize,
    precision: u32,
) -> Result<Vec<u16>, Refusal> {
    let (format, length, pitch) = shape(columns, rows, components)?;
    let handle = Handle::new()?;
    let bits = precision as usize;
    handle.expect_shape(jpeg, columns, rows, bits..=bits)?;
    let mut out = vec![0u16; length];
    let size = jpeg.len() as raw::size_t;
    // SAFETY: as in `decode_8`. The 12-bit function writes non-negative 16-bit integers, for which
    // the signed and unsigned layouts are the same.
    let result = unsafe {
        if precision <= 12 {
            let out = out.as_mut_ptr().cast::<libc::c_short>();
            raw::tj3Decompress12(handle.0, jpeg.as_ptr(), size, out, pitch, format)
        } else {
            raw::tj3Decompress16(
                handle.0,
                jpeg.as_ptr(),
                size,
                out.as_mut_ptr(),
                pitch,
                format,
            )
        }
    };
    handle.check(result)?;
    Ok(out)
}
