//! Deflated frames and deflated data sets: a stream that is cut, too long or a bomb is refused
//! before it costs memory.
#![no_main]

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom::dataset::identify_within;
use pacs_gateway_fuzz::{Shape, contain_library_panics, decode_all, part_10, read_limits};

const DEFLATED_FRAME: &str = "1.2.840.10008.1.2.8.1";
const DEFLATED_DATA_SET: &str = "1.2.840.10008.1.2.1.99";

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| {
        let Some((shape, rest)) = Shape::split(input) else {
            return;
        };
        match shape.choice % 4 {
            0 => decode_all(shape.attributes(1).fragment(rest).file(DEFLATED_FRAME)),
            // Deflating first lets the fuzzer reach what is behind a sound stream.
            1 => decode_all(shape.attributes(1).fragment(&deflate(rest)).file(DEFLATED_FRAME)),
            2 => data_set(rest),
            _ => data_set(&deflate(rest)),
        }
    }
);

fn data_set(stream: &[u8]) {
    let identity = identify_within(
        &mut Cursor::new(stream),
        0,
        DEFLATED_DATA_SET,
        &read_limits(),
    );
    if let Err(err) = identity {
        assert!(!err.is_io(), "memory does not fail: {err:?}");
    }
    decode_all(part_10(DEFLATED_DATA_SET, stream));
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
