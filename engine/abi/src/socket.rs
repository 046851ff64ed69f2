//! One record per message of a `SOCK_SEQPACKET` Unix socket.
//!
//! A message is a tag byte and the record. A record above [`INLINE_MAX`] (a `Punt` or `Transmit` of a large frame) does not
//! fit a seqpacket message: it travels in a memfd, the last descriptor beside the tag. At most one other descriptor
//! (a listening socket, the counters) comes before it.

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zeroize::Zeroize;

/// Longest record that is part of the message itself, in bytes.
pub const INLINE_MAX: usize = 64 * 1024;

const INLINE: u8 = 0;
const IN_MEMFD: u8 = 1;
const DESCRIPTORS_MAX: usize = 2;

thread_local! {
    /// Where messages are received before their length is known: records are small, and one buffer per message would cost
    /// more than all the rest. Wiped behind each message, since records may hold keys.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A received record and the descriptor that came beside it.
#[derive(Debug)]
pub struct Received {
    /// The record's bytes.
    pub record: Vec<u8>,
    /// The descriptor that the record speaks of, if it speaks of one.
    pub descriptor: Option<OwnedFd>,
}

/// Sends one record. On a non-blocking socket that is full nothing is sent and the error is `WouldBlock`.
///
/// # Errors
/// What `sendmsg` or `memfd_create` say.
pub fn send(socket: impl AsFd, record: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let memfd = if record.len() > INLINE_MAX { Some(into_memfd(record)?) } else { None };
    let (tag, body) = if memfd.is_some() { ([IN_MEMFD], &[][..]) } else { ([INLINE], record) };

    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().chain(memfd.as_ref().map(AsFd::as_fd)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let pushed = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        assert!(pushed, "the buffer has room for {DESCRIPTORS_MAX} descriptors");
    }
    let parts = [IoSlice::new(&tag), IoSlice::new(body)];
    loop {
        match sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn into_memfd(record: &[u8]) -> io::Result<OwnedFd> {
    let memfd = memfd_create("ockam-record", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < record.len() {
        written += rustix::io::pwrite(&memfd, &record[written..], written as u64)?;
    }
    Ok(memfd)
}

/// Receives one record, or `None` when the other side has closed.
///
/// # Errors
/// `WouldBlock` on a non-blocking socket with nothing to read; `InvalidData` for a message that is not a record, is
/// larger than [`crate::record::BYTES_MAX`], or lacks its descriptor.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Received>> {
    RECEIVED.with_borrow_mut(|message| {
        message.resize(1 + INLINE_MAX, 0);
        receive_into(socket, message)
    })
}

fn receive_into(socket: impl AsFd, message: &mut [u8]) -> io::Result<Option<Received>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let parts = &mut [IoSliceMut::new(message)];
        match recvmsg(&socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            descriptors.extend(received);
        }
    }
    let message = &mut message[..received.bytes];
    let Some((&tag, body)) = message.split_first() else { return Ok(None) };
    let record = if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        Err(invalid("a message is cut"))
    } else {
        match tag {
            INLINE => Ok(body.to_vec()),
            IN_MEMFD => {
                let memfd = descriptors.pop().ok_or_else(|| invalid("a record's memfd is missing"));
                memfd.and_then(|memfd| from_memfd(&memfd))
            }
            _ => Err(invalid("a message has an unknown tag")),
        }
    };
    message.zeroize();
    Ok(Some(Received { record: record?, descriptor: descriptors.pop() }))
}

fn from_memfd(memfd: &OwnedFd) -> io::Result<Vec<u8>> {
    let length = usize::try_from(rustix::fs::fstat(memfd)?.st_size).map_err(|_| invalid("a memfd has no size"))?;
    if length > crate::record::BYTES_MAX {
        return Err(invalid("a record is too long"));
    }
    let mut record = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(memfd, &mut record[filled..], filled as u64)? {
            0 => return Err(invalid("a memfd shrank")),
            count => filled += count,
        }
    }
    Ok(record)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn small_and_large_records_arrive_whole_with_their_descriptor() {
        let (ours, theirs) = pair();
        for length in [0, 1, INLINE_MAX, INLINE_MAX + 1, 5 << 20] {
            let record: Vec<u8> = (0..length).map(|i| i as u8).collect();
            send(&ours, &record, Some(theirs.as_fd())).unwrap();
            let received = receive(&theirs).unwrap().unwrap();
            assert!(received.record == record, "{length} bytes changed");
            assert!(received.descriptor.is_some());
        }
    }

    #[test]
    fn nothing_of_a_record_stays_behind() {
        let (ours, theirs) = pair();
        for tag in [INLINE, 9] {
            rustix::net::send(&ours, &[&[tag][..], b"a key"].concat(), SendFlags::empty()).unwrap();
            assert_eq!(receive(&theirs).is_ok(), tag == INLINE);
            RECEIVED.with_borrow(|message| assert!(message.iter().all(|byte| *byte == 0)));
        }
    }

    #[test]
    fn the_end_is_none_and_garbage_is_invalid() {
        let (ours, theirs) = pair();
        rustix::net::send(&ours, &[9, 9], SendFlags::empty()).unwrap();
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
        rustix::net::send(&ours, &[IN_MEMFD], SendFlags::empty()).unwrap();
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(ours);
        assert!(receive(&theirs).unwrap().is_none());
    }
}
