//! JPEG 2000 and HTJ2K: size markers, tiles and boxes stay within what the attributes allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::{code_stream, contain_library_panics};

const TRANSFER_SYNTAXES: &[&str] = &[
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.92",
    "1.2.840.10008.1.2.4.93",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| code_stream(input, TRANSFER_SYNTAXES)
);
