//! JPEG: markers that our parser and libjpeg-turbo may read differently, in every process we decode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::{code_stream, contain_library_panics};

const TRANSFER_SYNTAXES: &[&str] = &[
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| code_stream(input, TRANSFER_SYNTAXES)
);
