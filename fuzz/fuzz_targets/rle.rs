//! RLE Lossless: segment tables and PackBits runs that lie give a refusal, never a wrong image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::code_stream;

fuzz_target!(|input: &[u8]| code_stream(input, &["1.2.840.10008.1.2.5"]));
