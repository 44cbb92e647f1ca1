//! Encapsulated pixel data: offset tables, fragments and delimiters that lie never give a frame
//! that is not one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::{Shape, contain_library_panics, decode_all};

/// One per codec, and a native one whose pixel data may not be encapsulated.
const TRANSFER_SYNTAXES: &[&str] = &[
    "1.2.840.10008.1.2.1.98",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.1",
];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| {
        let Some((shape, items)) = Shape::split(input) else {
            return;
        };
        let syntax = TRANSFER_SYNTAXES[usize::from(shape.choice & 7)];
        let frames = usize::from(shape.choice >> 3) + 1;
        decode_all(shape.attributes(frames).encapsulated(items).file(syntax));
    }
);
