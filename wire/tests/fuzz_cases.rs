//! Inputs that fuzzing found or that were worth writing down, each with the sentence that says why. An ordinary test runs
//! them through the same oracles as the fuzz targets in `tests/fuzz`, on every platform and without a fuzzer.

mod oracle;

type Case = (&'static str, &'static [u8]);

const FRAME_STREAM: &[Case] = &[
    ("no cuts and no stream", b""),
    ("cuts, but no stream to cut", b"\x1f\x01\x02"),
    ("a length cut after each of its bytes", b"\x04\x01\x01\x01\x01\0\0\0\x04\x83\x80\x80\x40"),
    ("two heartbeats and the start of a third", b"\x01\x09\0\0\0\x04\x83\x80\x80\x40\0\0\0\x04\x83\x80\x80\x40\0\0"),
    ("an empty frame behind a good one", b"\0\0\0\0\x04\x83\x80\x80\x40\0\0\0\0\0\0\0\x04\x83\x80\x80\x40"),
    ("a claim of 16 MiB, then the end", b"\0\x01\0\0\0\x83"),
    ("a claim above 16 MiB, then more chunks", b"\x03\x05\x01\x01\x01\0\0\x01\0\0\0\0\0\0"),
    ("chunks of no bytes", b"\x05\0\0\0\0\0\0\0\0\x01\xff"),
];

const ROUTE_MESSAGE: &[Case] = &[
    ("a heartbeat", b"\x83\x80\x80\x40"),
    ("a count that no slice can hold", b"\x83\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("a length that no slice can hold", b"\x83\x80\x80\x5b\xff\xff\xff\xff\xff\xff\xff\xff\0"),
    ("an indefinite message without its end", b"\x9f\x80\x80\x40"),
    ("an indefinite message with tracing and without its end", b"\x9f\x80\x80\x40\x62{}"),
    ("an indefinite address with a third element", b"\x83\x81\x9f\0\x41a\0\xff\x80\x40"),
    ("a break where an address should be in a route of known length", b"\x83\x81\xff\x80\x40"),
    ("arrays nested where an address should be", b"\x83\x81\x82\x81\x81\x81\x81\x81\x81\x41a\x80\x40"),
    ("a name that would move a terminal's cursor", b"\x83\x81\x82\0\x44\x1b[2J\x80\x40"),
    ("a name cut inside a UTF-8 sequence", b"\x83\x81\x82\0\x42\xe2\x82\x80\x40"),
    (
        "tracing that is an offer",
        b"\x84\x81\x82\0\x41a\x80\x40\x78\x3b{\"undeliverable\":\"00112233445566778899aabbccddeeff 00 000\"}",
    ),
    (
        "tracing that is almost a notice",
        b"\x84\x81\x82\0\x41a\x80\x40\x78\x3b{\"undeliverable\":\"00112233445566778899aabbccddeeff 07 256\"}",
    ),
    (
        "tracing that is a notice in capitals",
        b"\x84\x81\x82\0\x41a\x80\x40\x78\x3b{\"undeliverable\":\"00112233445566778899AABBCCDDEEFF 07 002\"}",
    ),
    ("an extra element cut off in the middle", b"\x85\x81\x82\0\x41a\x80\x40\xf6\x5a"),
];

const PORTAL_MESSAGE: &[Case] = &[
    ("nothing", b""),
    ("a Ping as real inlets send it", b"\0"),
    ("a Ping with an offer", b"\0flow\x01\0\x04\0\0"),
    ("a Ping with an offer that is cut", b"\0flow\x01\0\x04\0"),
    ("a Ping with an offer of a later version", b"\0flow\x02\0\x04\0\0"),
    ("a Ping with somebody else's bytes", b"\0\0EXT"),
    ("a Pong with an offer and more", b"\x01flow\x01\xff\xff\xff\xff\0"),
    ("a Disconnect with an unknown reason", b"\x02\x02"),
    ("a payload of nothing", b"\x03\0"),
    ("a payload with a counter and more", b"\x03\x05hello\x01\x07\0\0"),
    ("a payload with a trailer too short for a counter", b"\x03\x05hello\x01\x07"),
    ("a payload that claims to count nothing", b"\x03\x05hello\0\x07\0"),
    ("a length with all the padding there may be", b"\x03\x85\x80\x80\x80\x80\x80\x80\x80\x80\0hello"),
    ("a length with more than that", b"\x03\x85\x80\x80\x80\x80\x80\x80\x80\x80\x80\0hello"),
    ("a length that no slice can have", b"\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ("a length that no integer can have", b"\x03\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"),
    ("a length one above what is there", b"\x03\x06hello"),
    ("an End of nothing", b"\x04\0\0\0\0\0\0\0\0"),
    ("an End that is cut", b"\x04\0\0\0\0\0\0\0"),
    ("a Credit of everything", b"\x05\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("a Credit that is cut", b"\x05\0\0\0\0\0\0\0"),
    ("a kind that there is not", b"\x06"),
];

const MULTIADDR: &[Case] = &[
    ("what a URL parser would normalise", b"/service/../worker/%2e%2e/node/."),
    ("a NUL", b"/service/\0"),
    ("text written right to left", "/service/\u{202e}oof".as_bytes()),
    ("two spellings of one letter", "/service/e\u{301}/service/\u{e9}".as_bytes()),
    ("a port with a sign", b"/tcp/+80"),
    ("a port with a leading zero", b"/tcp/080"),
    ("port zero", b"/tcp/0"),
    ("an empty port", b"/tcp//udp/1"),
    ("an IPv4 address in IPv6 clothes", b"/ip6/::ffff:127.0.0.1/tcp/1"),
    ("an IPv6 address in its long form", b"/ip6/0:0:0:0:0:0:0:1"),
    ("an IPv6 zone", b"/ip6/fe80::1%25eth0"),
    ("a slash inside a binary text", b"\xbe\xe8\x03\x03a/b"),
    ("an empty binary text", b"\xbe\xe8\x03\0"),
    ("a padded code and a padded length", b"\xbe\xe8\x83\x00\x81\x00a"),
    ("only slashes", b"////"),
];

fn run(oracle: fn(&[u8]), cases: &[Case]) {
    for (name, input) in cases {
        println!("{name}");
        oracle(input);
    }
}

#[test]
fn frame_stream() {
    run(oracle::frame_stream, FRAME_STREAM);
}

#[test]
fn route_message() {
    run(oracle::route_message, ROUTE_MESSAGE);
}

#[test]
fn portal_message() {
    run(oracle::portal_message, PORTAL_MESSAGE);
}

#[test]
fn multiaddr() {
    run(oracle::multiaddr, MULTIADDR);
}
