//! A stream arrives whole and unchanged, or is refused.

use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity {
        kind: "test".into(),
        version: 1,
        config: vec![("workers".into(), 2)],
    }
}

fn stream(state: &[u8]) -> Vec<u8> {
    let mut outgoing = Outgoing::new(&identity());
    outgoing.finish(state).expect("short enough");
    let mut bytes = vec![0; outgoing.remaining() as usize];
    assert_eq!(outgoing.read(&mut bytes), bytes.len());
    bytes
}

/// The state that the pieces carry; an error as soon as one is refused, or when the end is missing.
fn load<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, StreamError> {
    let mut incoming = Incoming::new(identity());
    let mut state = Vec::new();
    for piece in pieces {
        if let Progress::Complete(complete) = incoming.push(piece)? {
            state = complete;
        }
    }
    incoming.leave().map(|_| state)
}

/// A stream put together by hand: checksums that match, and anything else.
#[derive(Clone, Default)]
struct Forged {
    bytes: Vec<u8>,
    checksum: u32,
}

impl Forged {
    fn new() -> Self {
        Self::default().part(&MAGIC).part(&VERSION.to_le_bytes())
    }

    fn with_header() -> Self {
        Self::new().record(1, &encode_identity(&identity()))
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.bytes.extend(bytes);
        self
    }

    fn checksum(mut self) -> Self {
        self.bytes.extend(self.checksum.to_le_bytes());
        self
    }

    fn announce(self, number: u32, len: u32) -> Self {
        self.part(&number.to_le_bytes())
            .part(&len.to_le_bytes())
            .checksum()
    }

    fn record(self, number: u32, payload: &[u8]) -> Self {
        self.announce(number, payload.len() as u32)
            .part(payload)
            .checksum()
    }

    fn end(self, records: u64, bytes: u64) -> Self {
        self.record(3, &[records.to_le_bytes(), bytes.to_le_bytes()].concat())
    }

    fn load(&self) -> Result<Vec<u8>, StreamError> {
        load([&self.bytes[..]])
    }
}

proptest! {
    #[test]
    fn a_state_arrives_however_the_stream_is_cut(
        state in prop::collection::vec(any::<u8>(), 0..5000),
        cuts in prop::collection::vec(1_usize..600, 1..50),
    ) {
        let bytes = stream(&state);
        let mut rest = &bytes[..];
        let mut pieces = Vec::new();
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        prop_assert_eq!(load(pieces), Ok(state));
    }

    #[test]
    fn any_bytes_at_all_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        load([&bytes[..]]).expect_err("not a stream");
        load([&Forged::new().bytes[..], &bytes]).expect_err("not a header");
        Forged::new().record(1, &bytes).load().expect_err("not an identity");
    }
}

#[test]
fn every_bit_flip_is_refused_by_the_time_the_last_byte_is_written() {
    let whole = stream(b"a state of some bytes");
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Incoming::new(identity())
            .push(&bytes)
            .expect_err("a flipped bit is an error, and not a wait for more");
        load(bytes.chunks(1)).expect_err("in small pieces too");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let whole = stream(b"state");
    for len in 1..whole.len() {
        assert_eq!(
            load([&whole[..len]]),
            Err(StreamError::Truncated { bytes: len as u64 })
        );
    }
    assert_eq!(Incoming::new(identity()).leave(), Ok(Left::Untouched));
}

#[test]
fn bytes_after_the_end_are_refused() {
    let whole = stream(b"state");
    assert_eq!(load([&whole[..], &[0]]), Err(StreamError::TrailingBytes));
    assert_eq!(
        load([&[&whole[..], &whole].concat()[..]]),
        Err(StreamError::TrailingBytes)
    );
}

#[test]
fn an_error_stays() {
    let mut incoming = Incoming::new(identity());
    let error = incoming.push(b"something else").expect_err("not a stream");
    assert_eq!(incoming.push(&stream(b"state")), Err(error.clone()));
    assert_eq!(incoming.leave(), Err(error));
}

#[test]
fn records_that_are_missing_doubled_or_swapped_are_noticed() {
    let start = Forged::with_header().bytes.len();
    let one = Forged::with_header().record(2, b"one").bytes.len();
    let whole = Forged::with_header().record(2, b"one").record(2, b"two");
    let two = whole.bytes.len();
    let whole = whole.end(3, two as u64);
    assert_eq!(whole.load(), Ok(b"onetwo".to_vec()));

    let bytes = &whole.bytes;
    let (head, one, two, end) = (
        &bytes[..start],
        &bytes[start..one],
        &bytes[one..two],
        &bytes[two..],
    );
    for records in [
        &[one][..],
        &[two],
        &[one, one, two],
        &[two, one],
        &[one, one],
        &[one, two, two],
    ] {
        let pieces = std::iter::once(head).chain(records.iter().copied()).chain([end]);
        let error = load(pieces).expect_err("not the stream that was written");
        assert!(matches!(error, StreamError::Damaged { .. }), "{error}");
    }
}

#[test]
fn an_end_record_of_another_stream_is_refused() {
    let stream = Forged::with_header().record(2, b"state");
    let bytes = stream.bytes.len() as u64;
    stream
        .clone()
        .end(2, bytes)
        .load()
        .expect("that is the right one");
    for (records, bytes) in [
        (1, bytes),
        (3, bytes),
        (2, bytes - 1),
        (2, bytes + 1),
        (u64::MAX, u64::MAX),
    ] {
        assert_eq!(
            stream.clone().end(records, bytes).load(),
            Err(StreamError::EndMismatch)
        );
    }
}

#[test]
fn records_out_of_place_are_refused() {
    let second_header = Forged::with_header().record(1, &encode_identity(&identity()));
    assert_eq!(second_header.load(), Err(StreamError::OutOfPlace { record: 1 }));
    let no_header = Err(StreamError::OutOfPlace { record: 0 });
    assert_eq!(Forged::new().record(2, b"state").load(), no_header);
    assert_eq!(Forged::new().end(0, 12).load(), no_header);
}

#[test]
fn other_versions_and_records_are_named() {
    let later = Forged::default().part(&MAGIC).part(&2_u32.to_le_bytes());
    assert_eq!(later.load(), Err(StreamError::UnknownVersion(2)));
    let unknown = Forged::with_header().record(4, b"?");
    assert_eq!(
        unknown.load(),
        Err(StreamError::UnknownRecord { record: 1, number: 4 })
    );
}

#[test]
fn another_device_is_refused_as_soon_as_the_header_has_arrived() {
    let mut other = identity();
    other.config[0].1 = 4;
    let mut outgoing = Outgoing::new(&other);
    let mut bytes = vec![0; outgoing.remaining() as usize];
    outgoing.read(&mut bytes);
    let error = load([&bytes[..]]).expect_err("another configuration");
    assert_eq!(
        error.to_string(),
        "the stream is for another device: workers: 2 here, 4 in the stream"
    );
}

#[test]
fn a_length_that_cannot_be_is_refused_before_its_payload_comes() {
    for (number, len) in [
        (2, 0),
        (2, MAX_CHUNK_LEN as u32 + 1),
        (2, u32::MAX),
        (3, 15),
        (3, 17),
    ] {
        let announced = Forged::with_header().announce(number, len);
        assert_eq!(announced.load(), Err(StreamError::BadLength { record: 1, len }));
    }
}

#[test]
fn a_state_has_a_limit_at_both_ends() {
    let largest = vec![0xa5; MAX_STATE_LEN];
    assert_eq!(
        load([&stream(&largest)[..]]).expect("just fits").len(),
        MAX_STATE_LEN
    );
    let mut outgoing = Outgoing::new(&identity());
    let before = outgoing.remaining();
    outgoing
        .finish(&vec![0; MAX_STATE_LEN + 1])
        .expect_err("one too many");
    assert_eq!(outgoing.remaining(), before, "the stream is as it was");

    let chunk = vec![0; MAX_CHUNK_LEN];
    let chunks = 0..MAX_STATE_LEN / MAX_CHUNK_LEN;
    let endless = chunks.fold(Forged::with_header(), |stream, _| stream.record(2, &chunk));
    assert!(
        matches!(endless.load(), Err(StreamError::Truncated { .. })),
        "up to the limit"
    );
    assert_eq!(endless.record(2, b"x").load(), Err(StreamError::TooLong));
}

#[test]
fn leftovers_in_the_header_are_refused() {
    let mut payload = encode_identity(&identity());
    payload.push(0);
    let error = Forged::new().record(1, &payload).load().expect_err("leftovers");
    assert!(matches!(error, StreamError::BadHeader(_)), "{error}");
}

#[test]
fn the_announced_length_is_that_of_the_stream() {
    for len in [0, 1, MAX_CHUNK_LEN, MAX_CHUNK_LEN + 1, 3 * MAX_CHUNK_LEN] {
        assert_eq!(
            stream(&vec![1; len]).len() as u64,
            Outgoing::whole_len(&identity(), len)
        );
    }
}
