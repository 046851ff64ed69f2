//! tokio: epoll, tasks on one thread.

use crate::{ANY, report};
use ockam_bench::relay::{Piece, Relay};
use ockam_wire::PREAMBLE;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until it is killed.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(ANY).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move { report(relay(stream, to).await) });
        }
    })
}

async fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&[PREAMBLE]).await?;
    stream.read_u8().await.map(|_| ())
}

async fn relay(mut from: TcpStream, to: SocketAddr) -> io::Result<()> {
    greet(&mut from).await?;
    let mut to = TcpStream::connect(to).await?;
    greet(&mut to).await?;
    let mut relay = Relay::default();
    loop {
        let room = relay.input.room();
        let count = from.read(&mut relay.input.bytes[room]).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        relay.input.received(count);
        while let Some(piece) = relay.next_piece().map_err(io::Error::other)? {
            match piece {
                Piece::Gathered => {
                    to.write_all(&relay.output).await?;
                    relay.output.clear();
                }
                Piece::InPlace(range) => to.write_all(&relay.input.bytes[range]).await?,
            }
        }
    }
}
