//! Floors: the least that the task of a node costs with blocking sockets, as processes of their own. They prove what the
//! machine gives; they have no tables, no checks, no second peer in mind.

use crate::system::Failed;
use ockam_bench::relay::{Piece, Relay, Swap};
use ockam_wire::PREAMBLE;
use rustix::event::epoll;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Which one.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Floor {
    /// Swaps the routes of each frame and sends it back
    Echo,
    /// Moves an address of each frame from the onward to the return route and sends it on
    Frames {
        /// Where to
        #[arg(long)]
        to: SocketAddr,
    },
    /// Sends bytes on as they come
    Bytes {
        /// Where to
        #[arg(long)]
        to: SocketAddr,
    },
    /// Sends bytes back as they come, on any number of connections
    EchoBytes,
    /// Sends bytes on later, and no faster than a line would
    Line {
        /// Where to
        #[arg(long)]
        to: SocketAddr,
        /// Milliseconds, each way
        #[arg(long)]
        delay: u64,
        /// Megabits per second, each way
        #[arg(long)]
        rate: u64,
    },
}

/// Buffer of the relay of bytes.
const BYTES: usize = 256 * 1024;

/// Prints its address and serves, a thread per connection, until it is killed.
pub fn serve(floor: &Floor) -> Result<(), Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    if let Floor::EchoBytes = floor {
        return Ok(echo_bytes(&listener)?);
    }
    for stream in listener.incoming() {
        let stream = stream?;
        let floor = floor.clone();
        std::thread::spawn(move || {
            let result = match floor {
                Floor::Echo => echo(stream),
                Floor::Frames { to } => frames(stream, to),
                Floor::Bytes { to } => bytes(stream, to),
                Floor::EchoBytes => Ok(()),
                Floor::Line { to, delay, rate } => line(stream, to, Duration::from_millis(delay), rate * 1_000_000 / 8),
            };
            if let Err(error) = result {
                eprintln!("ockam-bench floor: {error}");
            }
        });
    }
    Ok(())
}

/// Version bytes both ways.
fn greet(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&[PREAMBLE])?;
    stream.read_exact(&mut [0])
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    greet(&mut stream)?;
    let mut swap = Swap::default();
    loop {
        let room = swap.input.room();
        let count = stream.read(&mut swap.input.bytes[room])?;
        if count == 0 {
            return Ok(());
        }
        swap.input.received(count);
        swap.answer().map_err(std::io::Error::other)?;
        stream.write_all(&swap.output)?;
        swap.output.clear();
    }
}

fn frames(mut from: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    greet(&mut from)?;
    let mut to = TcpStream::connect(to)?;
    greet(&mut to)?;
    let mut relay = Relay::default();
    loop {
        let room = relay.input.room();
        let count = from.read(&mut relay.input.bytes[room])?;
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        relay.input.received(count);
        while let Some(piece) = relay.next_piece().map_err(std::io::Error::other)? {
            match piece {
                Piece::Gathered => {
                    to.write_all(&relay.output)?;
                    relay.output.clear();
                }
                Piece::InPlace(range) => to.write_all(&relay.input.bytes[range])?,
            }
        }
    }
}

fn bytes(from: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let to = TcpStream::connect(to)?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let (back_from, back_to) = (to.try_clone()?, from.try_clone()?);
    std::thread::spawn(move || copy(back_from, back_to));
    copy(from, to)
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BYTES];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        to.write_all(&buffer[..count])?;
    }
}

/// One thread for all connections: there may be ten thousand. It is part of the load, the same for every system.
fn echo_bytes(listener: &TcpListener) -> std::io::Result<()> {
    crate::run::hostile::allow_descriptors()?;
    listener.set_nonblocking(true)?;
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |socket: &dyn AsFd| {
        let data = epoll::EventData::new_u64(socket.as_fd().as_raw_fd() as u64);
        epoll::add(&queue, socket.as_fd(), data, epoll::EventFlags::IN).map_err(std::io::Error::from)
    };
    watch(listener)?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut buffer = vec![0; BYTES];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let key = event.data.u64();
            if key == listener.as_raw_fd() as u64 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    watch(&stream)?;
                    streams.insert(stream.as_raw_fd() as u64, stream);
                }
            } else if let Some(mut stream) = streams.get(&key) {
                // It says that there is something, so this does not wait. What goes back fits into the socket: nobody
                // sends more than a piece before it has read the last one.
                let echoed =
                    stream.read(&mut buffer).and_then(|count| stream.write_all(&buffer[..count]).map(|()| count));
                if !matches!(echoed, Ok(1..)) {
                    // Ended by a reset, so that its port is free at once: more connections come in a second than there are
                    // ports, and each would keep one for that long.
                    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
                    streams.remove(&key);
                }
            }
        }
    }
}

/// What a line holds besides what is on its way: what comes on top waits in the sender.
const QUEUE: Duration = Duration::from_millis(20);

/// A long line: `delay` each way, `rate` bytes per second.
fn line(from: TcpStream, to: SocketAddr, delay: Duration, rate: u64) -> std::io::Result<()> {
    let to = TcpStream::connect(to)?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let (back_from, back_to) = (to.try_clone()?, from.try_clone()?);
    std::thread::spawn(move || one_way(back_from, back_to, delay, rate));
    one_way(from, to, delay, rate)
}

fn one_way(mut from: TcpStream, mut to: TcpStream, delay: Duration, rate: u64) -> std::io::Result<()> {
    // Bounded in pieces too, should the far end take nothing.
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(65_536);
    let far_end = std::thread::spawn(move || -> std::io::Result<()> {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            to.write_all(&bytes)?;
        }
        to.shutdown(Shutdown::Write)
    });
    let mut buffer = vec![0; BYTES / 4];
    let mut free_at = Instant::now();
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        // A line does not stop while this process waits for a CPU.
        let now = Instant::now();
        free_at =
            free_at.max(now.checked_sub(QUEUE).unwrap_or(now)) + Duration::from_secs_f64(count as f64 / rate as f64);
        if sender.send((free_at.max(now) + delay, buffer[..count].to_vec())).is_err() {
            break;
        }
        std::thread::sleep(free_at.saturating_duration_since(Instant::now() + QUEUE));
    }
    drop(sender);
    far_end.join().map_err(|_| std::io::Error::other("the far end panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_delays_and_has_a_rate() {
        let (near, far) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (near_to, far_to) = (near.local_addr().unwrap(), far.local_addr().unwrap());
        std::thread::spawn(move || line(near.accept().unwrap().0, far_to, Duration::from_millis(30), 1_000_000));
        let mut one = TcpStream::connect(near_to).unwrap();
        let mut other = far.accept().unwrap().0;
        let start = Instant::now();
        one.write_all(&[7; 100_000]).unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        other.read_to_end(&mut received).unwrap();
        assert_eq!(received, [7; 100_000]);
        let there = start.elapsed();
        assert!(there >= Duration::from_millis(130), "{there:?}");
        other.write_all(b"back").unwrap();
        drop(other);
        received.clear();
        one.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"back");
        assert!(start.elapsed() >= there + Duration::from_millis(30));
    }

    #[test]
    fn many_are_echoed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || echo_bytes(&listener));
        let mut streams: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[number as u8; 3]).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [number as u8; 3]);
        }
    }
}
