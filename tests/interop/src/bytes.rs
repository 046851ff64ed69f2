//! Messages as bytes.

use crate::Kind;
use ockam_wire::{AddressRef, Outgoing, Route, RouteParts};

/// An address of transport type 0.
pub fn local(name: &str) -> AddressRef<'_> {
    AddressRef { kind: ockam_wire::LOCAL, name: name.as_bytes() }
}

/// An address of transport type 1.
pub fn tcp(host_port: &str) -> AddressRef<'_> {
    AddressRef { kind: ockam_wire::TCP, name: host_port.as_bytes() }
}

/// The body of a frame (what follows its length), encoded by our codec.
pub fn body(onward: &[AddressRef], return_route: &[AddressRef], payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
    let outgoing = Outgoing {
        onward: RouteParts { front: onward, rest: Route::EMPTY },
        return_route: RouteParts { front: return_route, rest: Route::EMPTY },
        payload_len: payload.len(),
        tracing,
    };
    outgoing.to_frame(payload).split_off(4)
}

/// Checks a body that a node of that kind made, to the byte. `expected` is hexadecimal and ends with the tracing text
/// `{}`, which real nodes always send and ours may leave out (`wire.md` A.3).
#[track_caller]
pub fn assert_body(by: Kind, got: &[u8], expected: &str) {
    let full = hex::decode(expected).expect("a vector is hexadecimal");
    assert_eq!(full[0], 0x84, "a vector has four elements");
    let mut bare = full.strip_suffix(b"\x62{}").expect("a vector ends with the tracing text {}").to_vec();
    bare[0] = 0x83;
    let holds = got == full || (by == Kind::Ours && got == bare);
    assert!(holds, "{by:?} sent\n  {}\nwhere this was expected\n  {expected}", hex::encode(got));
}

/// `len` bytes without a pattern that a lost, doubled or reordered part could hide in.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
