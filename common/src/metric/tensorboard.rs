//! Points as an event file of TensorBoard: records of the protocol buffer `Event`, each framed as in a
//! TFRecord file:
//!
//! ```text
//! length u64 | masked CRC32C of the length u32 | record | masked CRC32C of the record u32     little endian
//! ```
//!
//! The messages are those of `event.proto` and `summary.proto` of TensorFlow; of their fields four are
//! written, so they are put together here by hand: `Event {wall_time = 1 (double), step = 2 (int64),
//! file_version = 3 (string) | summary = 5}`, `Summary {value = 1 (repeated)}`,
//! `Value {tag = 1 (string), simple_value = 2 (float)}`.

use bytes::Bytes;

use super::MetricPoint;

/// The points in the order in which they were recorded, which is that of an event file.
pub fn by_time(points: Vec<MetricPoint>) -> Vec<MetricPoint> {
    let mut points = points;
    points.sort_by_key(|point| (point.recorded_at, point.step));
    points
}

/// What the first record of a file says.
const FILE_VERSION: &str = "brain.Event:2";

/// An event file with these points, one record for each, in their order. Tags are the names of metrics,
/// behind `rank_N/` for all ranks but the first. Values become 32-bit floats, as TensorBoard has them.
pub fn event_file(points: &[MetricPoint]) -> Bytes {
    let mut file = Vec::new();
    let seconds = |point: &MetricPoint| point.recorded_at.0 as f64 / 1000.0;
    let mut first = Vec::new();
    double(&mut first, 1, points.first().map_or(0.0, seconds));
    text(&mut first, 3, FILE_VERSION.as_bytes());
    frame(&mut file, &first);
    for point in points {
        let tag = match point.rank {
            0 => point.name.to_string(),
            rank => format!("rank_{rank}/{}", point.name),
        };
        let mut value = Vec::new();
        text(&mut value, 1, tag.as_bytes());
        key(&mut value, 2, FIXED_32);
        #[expect(clippy::cast_possible_truncation, reason = "the format has floats of 32 bits")]
        value.extend((point.value as f32).to_le_bytes());
        let mut summary = Vec::new();
        text(&mut summary, 1, &value);
        let mut event = Vec::new();
        double(&mut event, 1, seconds(point));
        key(&mut event, 2, VARINT);
        varint(&mut event, point.step);
        text(&mut event, 5, &summary);
        frame(&mut file, &event);
    }
    file.into()
}

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

fn key(message: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(message, field << 3 | wire_type);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(0x80 | u8::try_from(value & 0x7f).unwrap_or_default());
        value >>= 7;
    }
    message.push(u8::try_from(value).unwrap_or_default());
}

fn double(message: &mut Vec<u8>, field: u64, value: f64) {
    key(message, field, FIXED_64);
    message.extend(value.to_le_bytes());
}

/// A string, bytes, or a message within a message.
fn text(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(message, field, LENGTH);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn frame(file: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(record);
    file.extend(masked(crc32c(record)).to_le_bytes());
}

/// TFRecord's mask: a checksum of data that holds checksums would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4): reflected polynomial 0x82f63b78.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        (0..8).fold(index, |rest, _| (rest >> 1) ^ (0x82f6_3b78 & (rest & 1).wrapping_neg()))
            ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn numbers_have_seven_bits_a_byte() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
        bytes.clear();
        varint(&mut bytes, u64::MAX);
        assert_eq!(bytes.len(), 10);
    }
}
