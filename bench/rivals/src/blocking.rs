//! Blocking sockets, a thread per connection.

use crate::{ANY, report};
use ockam_bench::relay::{Piece, Relay};
use ockam_wire::PREAMBLE;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Serves until it is killed.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(ANY)?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || report(relay(stream, to)));
    }
    Ok(())
}

fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&[PREAMBLE])?;
    stream.read_exact(&mut [0])
}

fn relay(mut from: TcpStream, to: SocketAddr) -> io::Result<()> {
    greet(&mut from)?;
    let mut to = TcpStream::connect(to)?;
    greet(&mut to)?;
    let mut relay = Relay::default();
    loop {
        let room = relay.input.room();
        let count = from.read(&mut relay.input.bytes[room])?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        relay.input.received(count);
        while let Some(piece) = relay.next_piece().map_err(io::Error::other)? {
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
