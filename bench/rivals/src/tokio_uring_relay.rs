//! tokio-uring: one-shot reads and writes on a ring of its own, buffers owned by the operation.

use crate::{ANY, report};
use ockam_bench::relay::{Piece, Relay};
use ockam_wire::PREAMBLE;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

/// Serves until it is killed.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    tokio_uring::start(async {
        let listener = TcpListener::bind(ANY)?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(async move { report(relay(stream, to).await) });
        }
    })
}

async fn greet(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(vec![PREAMBLE]).await.0?;
    match stream.read(vec![0; 1]).await.0? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn relay(from: TcpStream, to: SocketAddr) -> io::Result<()> {
    greet(&from).await?;
    let to = TcpStream::connect(to).await?;
    greet(&to).await?;
    let mut relay = Relay::default();
    loop {
        let room = relay.input.room();
        let buffer = std::mem::take(&mut relay.input.bytes);
        let (result, buffer) = from.read(buffer.slice(room)).await;
        relay.input.bytes = buffer.into_inner();
        let count = result?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        relay.input.received(count);
        while let Some(piece) = relay.next_piece().map_err(io::Error::other)? {
            match piece {
                Piece::Gathered => {
                    let (result, mut buffer) = to.write_all(std::mem::take(&mut relay.output)).await;
                    result?;
                    buffer.clear();
                    relay.output = buffer;
                }
                Piece::InPlace(range) => {
                    let buffer = std::mem::take(&mut relay.input.bytes);
                    let (result, buffer) = to.write_all(buffer.slice(range)).await;
                    relay.input.bytes = buffer.into_inner();
                    result?;
                }
            }
        }
    }
}

/// NOPs of one batch.
const BATCH: usize = 32;
/// NOPs of one measurement.
const NOPS: usize = 64_000;

/// Prints nanoseconds per NOP: alone, and [`BATCH`] at once; medians of nine.
pub fn nops() -> io::Result<()> {
    tokio_uring::start(async {
        let mut medians = Vec::new();
        for batch in [1, BATCH] {
            let mut samples = Vec::new();
            for _ in 0..9 {
                let start = Instant::now();
                for _ in 0..NOPS / batch {
                    let tasks: Vec<_> = (0..batch).map(|_| tokio_uring::spawn(tokio_uring::no_op())).collect();
                    for task in tasks {
                        task.await.map_err(io::Error::other)??;
                    }
                }
                samples.push(start.elapsed().as_nanos() as f64 / NOPS as f64);
            }
            samples.sort_by(f64::total_cmp);
            medians.push(samples[samples.len() / 2].to_string());
        }
        println!("{}", medians.join(" "));
        Ok(())
    })
}
