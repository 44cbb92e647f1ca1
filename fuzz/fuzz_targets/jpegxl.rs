//! JPEG XL: a picture that is not the one announced, or needs more memory than allowed, is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::{code_stream, contain_library_panics};

const TRANSFER_SYNTAXES: &[&str] = &[
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.111",
    "1.2.840.10008.1.2.4.112",
];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| code_stream(input, TRANSFER_SYNTAXES)
);
