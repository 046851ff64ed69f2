//! Floors: the least that the task of a node costs with blocking sockets, as processes of their own. They prove what the
//! machine gives; they have no tables, no checks, no second peer in mind.

use crate::system::Failed;
use ockam_bench::relay::{Piece, Relay, Swap};
use ockam_wire::PREAMBLE;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

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
}

/// Buffer of the relay of bytes.
const BYTES: usize = 256 * 1024;

/// Prints its address and serves, a thread per connection, until it is killed.
pub fn serve(floor: &Floor) -> Result<(), Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        let floor = floor.clone();
        std::thread::spawn(move || {
            let result = match floor {
                Floor::Echo => echo(stream),
                Floor::Frames { to } => frames(stream, to),
                Floor::Bytes { to } => bytes(stream, to),
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
