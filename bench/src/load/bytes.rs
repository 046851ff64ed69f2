//! Loads that are applications' own bytes, without frames: what goes through tunnels. Known beforehand and compared to the
//! last byte, like the frames of flows.

use super::{Load, PATIENCE, Sink, connect_from};
use hdrhistogram::Histogram;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// The noise repeats itself after so many bytes: a prime, so that nothing that a tunnel cuts bytes into fits it.
const PERIOD: usize = 1_048_573;
/// What one call sends or receives.
const CHUNK: usize = 128 * 1024;
/// What a request of a new connection, and of a round trip, holds.
const REQUEST: usize = 64;
/// Connections that answers are still read from one after the other share a thread with so many.
const THREADS: usize = 2;

/// The noise, with enough behind its period for a chunk that begins at its end.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let period: Vec<u8> = bytes.flatten().take(PERIOD).collect();
    [&period[..], &period[..CHUNK]].concat()
});

/// Up to a chunk of the stream that begins at `position`.
fn noise(position: u64, length: usize) -> &'static [u8] {
    let place = (position % PERIOD as u64) as usize;
    &NOISE[place..place + length]
}

fn verify(position: u64, received: &[u8]) -> io::Result<()> {
    if received == noise(position, received.len()) {
        return Ok(());
    }
    let what = format!("other bytes than were sent, at {position} or behind");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Connects through a tunnel.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A connection through a tunnel to a sink: both ends.
fn dial_to(address: SocketAddr, sink: &Sink) -> io::Result<(TcpStream, TcpStream)> {
    let stream = dial(address)?;
    // It proves itself by its first bytes: a connection of an earlier load may be left.
    let name = rand_name();
    (&stream).write_all(&name)?;
    loop {
        let mut other = sink.accept_within(PATIENCE)?;
        prepare(&other)?;
        let mut theirs = [0; 8];
        match other.read_exact(&mut theirs) {
            Ok(()) if theirs == name => return Ok((stream, other)),
            // What an earlier load left behind has ended, one way or the other.
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(error),
        }
    }
}

fn rand_name() -> [u8; 8] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

/// Which way a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connects.
    Up,
    /// To who connects.
    Down,
}

impl Load {
    /// One stream through a tunnel, as fast as it goes; counts bytes.
    pub fn bytes(tunnel: SocketAddr, sink: &Sink, direction: Direction) -> io::Result<Load> {
        let (near, far) = dial_to(tunnel, sink)?;
        let (from, to) = if direction == Direction::Up { (near, far) } else { (far, near) };
        let sent = Arc::new(AtomicU64::new(u64::MAX));
        let total = sent.clone();
        let mut load = Load::new();
        // First, since what it finds wrong says more than what the sender says of that.
        load.thread(move |bytes, _| {
            let mut buffer = vec![0; CHUNK];
            let mut position = 0;
            loop {
                let count = (&to).read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                verify(position, &buffer[..count])?;
                position += count as u64;
                bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            match sent.load(Ordering::Acquire) {
                sent if sent == position => to.shutdown(Shutdown::Write),
                sent => {
                    let what = format!("the stream ended after {position} of {sent} bytes");
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
                }
            }
        });
        load.thread(move |_, stop| {
            let mut position = 0;
            while !stop.load(Ordering::Relaxed) {
                (&from).write_all(noise(position, CHUNK))?;
                position += CHUNK as u64;
            }
            total.store(position, Ordering::Release);
            from.shutdown(Shutdown::Write)?;
            // The other end is awaited, so that nothing is cut off by ours.
            while (&from).read(&mut [0; REQUEST])? > 0 {}
            Ok(())
        });
        Ok(load)
    }

    /// Connections to something that echoes, in rounds: a piece on each, then all that comes back; counts bytes, both ways.
    /// The connections are made before, and end with the load.
    pub fn bytes_in_rounds(tunnel: SocketAddr, connections: usize, piece: usize) -> io::Result<Load> {
        let crowd = Crowd::open(tunnel, connections)?;
        let mut load = Load::new();
        for streams in crowd.shared_out(THREADS) {
            load.thread(move |bytes, stop| {
                let mut buffer = vec![0; piece];
                let mut position = 0;
                while !stop.load(Ordering::Relaxed) {
                    for mut stream in &streams {
                        stream.write_all(noise(position, piece))?;
                    }
                    for mut stream in &streams {
                        stream.read_exact(&mut buffer)?;
                        verify(position, &buffer)?;
                        bytes.fetch_add(2 * piece as u64, Ordering::Relaxed);
                    }
                    position += piece as u64;
                }
                Ok(())
            });
        }
        Ok(load)
    }

    /// New connections, so many at a time: connect, a request and its answer, close; counts connections.
    pub fn new_connections(tunnel: SocketAddr, at_once: usize) -> io::Result<Load> {
        let mut load = Load::new();
        for place in 0..at_once {
            load.thread(move |connections, stop| {
                let mut answer = [0; REQUEST];
                let mut position = place as u64;
                let source = Ipv4Addr::new(127, 0, 2, 1 + (place % 250) as u8);
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect_from(source, tunnel)?;
                    prepare(&stream)?;
                    stream.write_all(noise(position, REQUEST))?;
                    stream.read_exact(&mut answer)?;
                    verify(position, &answer)?;
                    position += REQUEST as u64;
                    connections.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Ok(load)
    }
}

/// Connections through a tunnel to something that echoes, of which each has had an answer.
pub struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens them, one after the other.
    ///
    /// # Errors
    /// What a socket says; how many there were by then is part of it.
    pub fn open(tunnel: SocketAddr, connections: usize) -> io::Result<Crowd> {
        let mut streams = Vec::with_capacity(connections);
        for number in 0..connections {
            let open = || -> io::Result<TcpStream> {
                let stream = dial(tunnel)?;
                ask(&stream)?;
                Ok(stream)
            };
            let open = open();
            streams.push(open.map_err(|error| io::Error::new(error.kind(), format!("connection {number}: {error}")))?);
        }
        Ok(Crowd(streams))
    }

    /// Has every one answer once more.
    ///
    /// # Errors
    /// What a socket says, or `InvalidData` for a wrong answer.
    pub fn ask_all(&self) -> io::Result<()> {
        self.0.iter().try_for_each(ask)
    }

    fn shared_out(self, threads: usize) -> Vec<Vec<TcpStream>> {
        let mut shares: Vec<Vec<TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
        self.0.into_iter().enumerate().for_each(|(place, stream)| shares[place % threads].push(stream));
        shares
    }
}

fn ask(mut stream: &TcpStream) -> io::Result<()> {
    let mut answer = [0; REQUEST];
    stream.write_all(noise(7, REQUEST))?;
    stream.read_exact(&mut answer)?;
    verify(7, &answer)
}

/// Round trips of a request to something that echoes and back, one at a time, in nanoseconds.
///
/// # Errors
/// What the socket says, or `InvalidData` for a wrong answer.
pub fn round_trips(tunnel: SocketAddr, count: u64, histogram: &mut Histogram<u64>) -> io::Result<()> {
    let mut stream = dial(tunnel)?;
    let mut answer = [0; REQUEST];
    let warm_up = count / 10;
    for number in 0..count + warm_up {
        let request = noise(number * REQUEST as u64, REQUEST);
        let start = Instant::now();
        stream.write_all(request)?;
        stream.read_exact(&mut answer)?;
        let elapsed = start.elapsed().as_nanos() as u64;
        verify(number * REQUEST as u64, &answer)?;
        if number >= warm_up {
            histogram.saturating_record(elapsed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Copies both ways, and spoils byte `spoiled` of what goes up.
    fn tunnel(to: SocketAddr, spoiled: Option<usize>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(to).unwrap());
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || copy(near, far, spoiled));
                std::thread::spawn(move || copy(far_too, near_too, None));
            }
        });
        address
    }

    fn copy(mut from: TcpStream, mut to: TcpStream, spoiled: Option<usize>) {
        let (mut buffer, mut position) = (vec![0; 64 * 1024], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(place) = spoiled.and_then(|place| place.checked_sub(position)).filter(|place| *place < count) {
                buffer[place] ^= 1;
            }
            position += count;
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn flows_until(load: &Load, count: u64) {
        while load.frames.load(Ordering::Relaxed) < count && !load.ended_early() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn streams_are_verified_both_ways() {
        let sink = Sink::new().unwrap();
        let through = tunnel(sink.address, None);
        for direction in [Direction::Up, Direction::Down] {
            let load = Load::bytes(through, &sink, direction).unwrap();
            flows_until(&load, 3 * PERIOD as u64);
            load.finish().unwrap();
        }
        let load = Load::bytes(tunnel(sink.address, Some(2_000_000)), &sink, Direction::Up).unwrap();
        flows_until(&load, u64::MAX);
        let why = load.finish().unwrap_err().to_string();
        assert!(why.starts_with("void: other bytes than were sent"), "{why}");
    }

    #[test]
    fn connections_and_round_trips_go_to_an_echo() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let echo = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || copy(stream.try_clone().unwrap(), stream, None));
            }
        });
        let load = Load::new_connections(tunnel(echo, None), 2).unwrap();
        flows_until(&load, 10);
        load.finish().unwrap();
        let load = Load::bytes_in_rounds(tunnel(echo, None), 5, 4096).unwrap();
        flows_until(&load, 1 << 20);
        load.finish().unwrap();
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        round_trips(tunnel(echo, None), 100, &mut histogram).unwrap();
        assert_eq!(histogram.len(), 100);
        assert!(round_trips(tunnel(echo, Some(200)), 100, &mut histogram).is_err());
        let crowd = Crowd::open(tunnel(echo, Some(70)), 1).unwrap();
        assert!(crowd.ask_all().is_err());
    }
}
