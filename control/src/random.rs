//! Random bytes of the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` random bytes. Waits only in the first moments after the machine started.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Without randomness there are neither keys nor addresses; the kernel has had this call since 3.17.
            Err(errno) => panic!("the kernel gives no random bytes: {errno}"),
        }
    }
    bytes
}

/// 16 random bytes as 32 lower-case hexadecimal digits: an address (`wire.md` A.4) or a flow-control id.
pub fn hex_id() -> String {
    crate::text::to_hex(&bytes::<16>())
}
