//! glommio: its own executor and rings, tasks on one thread.

use crate::{ANY, report};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use ockam_bench::relay::{Piece, Relay};
use ockam_wire::PREAMBLE;
use std::io;
use std::net::{Shutdown, SocketAddr};

/// Serves until it is killed.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().map_err(error)?;
    executor.run(async {
        let listener = TcpListener::bind(ANY).map_err(error)?;
        println!("{}", listener.local_addr().map_err(error)?);
        loop {
            let stream = listener.accept().await.map_err(error)?;
            glommio::spawn_local(async move { report(relay(stream, to).await) }).detach();
        }
    })
}

fn error(error: glommio::GlommioError<()>) -> io::Error {
    error.into()
}

async fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true).map_err(error)?;
    stream.write_all(&[PREAMBLE]).await?;
    stream.read_exact(&mut [0]).await
}

async fn relay(mut from: TcpStream, to: SocketAddr) -> io::Result<()> {
    greet(&mut from).await?;
    let mut to = TcpStream::connect(to).await.map_err(error)?;
    greet(&mut to).await?;
    let mut relay = Relay::default();
    loop {
        let room = relay.input.room();
        let count = from.read(&mut relay.input.bytes[room]).await?;
        if count == 0 {
            return to.shutdown(Shutdown::Write).await.map_err(error);
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
