//! JPEG-LS: a frame header that CharLS may read differently from ours must not decide what is allocated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::{code_stream, contain_library_panics};

const TRANSFER_SYNTAXES: &[&str] = &["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| code_stream(input, TRANSFER_SYNTAXES)
);
